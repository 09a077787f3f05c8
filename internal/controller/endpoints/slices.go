package endpoints

import (
	"cmp"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/controller/owned"
)

const (
	managedBy = "endpointslice-controller.k8s.io"
	// perSlice is how many endpoints one slice holds: a change of one pod moves no
	// more than that to every node.
	perSlice = 100
)

// slicePlan is what changes among a Service's slices.
type slicePlan struct {
	create, update, remove []*discoveryv1.EndpointSlice
}

// group is the endpoints that share an address family and a set of ports.
type group struct {
	family    discoveryv1.AddressType
	ports     []discoveryv1.EndpointPort
	endpoints []discoveryv1.Endpoint
}

// planSlices compares what a Service's pods ask for with the slices there are.
// Endpoints stay in the slice they are in; new ones fill slices that change
// anyway, then others with room, then new slices. Slices of an earlier Service of
// the name go: the garbage collector would take them at any moment.
func planSlices(svc *corev1.Service, pods []backend, have []*discoveryv1.EndpointSlice, trigger time.Time) slicePlan {
	var p slicePlan
	left := map[*discoveryv1.EndpointSlice]bool{}
	for _, s := range have {
		left[s] = true
	}
	for _, family := range families(svc) {
		for _, g := range groups(svc, pods, family) {
			var mine []*discoveryv1.EndpointSlice
			for _, s := range have {
				if left[s] && s.DeletionTimestamp == nil && s.AddressType == family && samePorts(s.Ports, g.ports) && metav1.IsControlledBy(s, svc) {
					mine = append(mine, s)
					delete(left, s)
				}
			}
			p.group(svc, g, mine, trigger)
		}
	}
	for _, s := range have {
		if left[s] && s.DeletionTimestamp == nil {
			p.remove = append(p.remove, s)
		}
	}
	return p
}

func (p *slicePlan) group(svc *corev1.Service, g group, mine []*discoveryv1.EndpointSlice, trigger time.Time) {
	want := map[string]discoveryv1.Endpoint{}
	for _, e := range g.endpoints {
		want[e.Addresses[0]+string(e.TargetRef.UID)] = e
	}
	type draft struct {
		*discoveryv1.EndpointSlice
		old     *discoveryv1.EndpointSlice
		changed bool
	}
	var drafts []*draft
	for _, s := range mine {
		d := &draft{EndpointSlice: s.DeepCopy(), old: s}
		d.Endpoints = nil
		for _, e := range s.Endpoints {
			key := ""
			if e.TargetRef != nil && len(e.Addresses) > 0 {
				key = e.Addresses[0] + string(e.TargetRef.UID)
			}
			now, ok := want[key]
			if !ok {
				d.changed = true
				continue
			}
			delete(want, key)
			d.changed = d.changed || !equality.Semantic.DeepEqual(e, now)
			d.Endpoints = append(d.Endpoints, now)
		}
		if labels := sliceLabels(svc); !maps.Equal(labels, s.Labels) {
			d.Labels, d.changed = labels, true
		}
		drafts = append(drafts, d)
	}
	slices.SortStableFunc(drafts, func(a, b *draft) int {
		return cmp.Or(boolFirst(a.changed, b.changed), cmp.Compare(len(b.Endpoints), len(a.Endpoints)), cmp.Compare(a.Name, b.Name))
	})
	var add []discoveryv1.Endpoint
	for _, e := range g.endpoints {
		if _, ok := want[e.Addresses[0]+string(e.TargetRef.UID)]; ok {
			add = append(add, e)
		}
	}
	for _, d := range drafts {
		if n := min(perSlice-len(d.Endpoints), len(add)); n > 0 {
			d.Endpoints, add, d.changed = append(d.Endpoints, add[:n]...), add[n:], true
		}
	}
	empty := len(drafts) == 0
	for _, d := range drafts {
		switch {
		case len(d.Endpoints) == 0 && !(len(g.endpoints) == 0 && d == drafts[0]):
			p.remove = append(p.remove, d.old)
		case d.changed:
			stamp(d.EndpointSlice, trigger)
			p.update = append(p.update, d.EndpointSlice)
		}
	}
	for empty || len(add) > 0 {
		n := min(perSlice, len(add))
		s := &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				GenerateName: owned.NamePrefix(svc.Name), Namespace: svc.Namespace, Labels: sliceLabels(svc),
				OwnerReferences: []metav1.OwnerReference{owned.Ref(svc, corev1.SchemeGroupVersion.WithKind("Service"))},
			},
			AddressType: g.family, Ports: g.ports, Endpoints: add[:n:n],
		}
		stamp(s, trigger)
		p.create = append(p.create, s)
		add, empty = add[n:], false
	}
}

func boolFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func families(svc *corev1.Service) []discoveryv1.AddressType {
	var all []discoveryv1.AddressType
	for _, f := range svc.Spec.IPFamilies {
		all = append(all, discoveryv1.AddressType(f))
	}
	if len(all) == 0 {
		return []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4}
	}
	return all
}

// groups by ports: pods may resolve a named port differently. A family without
// any endpoint has one group without ports, so that an empty slice says so.
func groups(svc *corev1.Service, pods []backend, family discoveryv1.AddressType) []group {
	var all []group
	for i := range pods {
		b := &pods[i]
		address := b.address(family)
		if address == "" {
			continue
		}
		ports := portsOf(svc, b.pod)
		at := slices.IndexFunc(all, func(g group) bool { return samePorts(g.ports, ports) })
		if at < 0 {
			all = append(all, group{family: family, ports: ports})
			at = len(all) - 1
		}
		all[at].endpoints = append(all[at].endpoints, endpoint(svc, b, address))
	}
	if len(all) == 0 {
		return []group{{family: family}}
	}
	for i := range all {
		hint(svc, all[i].endpoints)
	}
	return all
}

func portsOf(svc *corev1.Service, p *corev1.Pod) []discoveryv1.EndpointPort {
	ports := []discoveryv1.EndpointPort{}
	for i := range svc.Spec.Ports {
		sp := &svc.Spec.Ports[i]
		n, ok := port(p, sp)
		if !ok {
			continue
		}
		name, protocol := sp.Name, sp.Protocol
		ports = append(ports, discoveryv1.EndpointPort{Name: &name, Port: &n, Protocol: &protocol, AppProtocol: sp.AppProtocol})
	}
	return ports
}

func samePorts(a, b []discoveryv1.EndpointPort) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !slices.ContainsFunc(b, func(p discoveryv1.EndpointPort) bool { return equality.Semantic.DeepEqual(a[i], p) }) {
			return false
		}
	}
	return true
}

func endpoint(svc *corev1.Service, b *backend, address string) discoveryv1.Endpoint {
	ready, serving, terminating := b.ready, b.serving, b.terminating
	e := discoveryv1.Endpoint{
		Addresses:  []string{address},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: b.pod.Namespace, Name: b.pod.Name, UID: b.pod.UID},
	}
	if name := b.pod.Spec.NodeName; name != "" {
		e.NodeName = &name
	}
	if b.node != nil {
		if zone := b.node.Labels[corev1.LabelTopologyZone]; zone != "" {
			e.Zone = &zone
		}
	}
	if name := b.hostname(svc); name != "" {
		e.Hostname = &name
	}
	return e
}

// hint tells proxies whom an endpoint is for, where the Service asks that traffic
// stays near (KEP-3015): only if it can be told for all ready endpoints.
func hint(svc *corev1.Service, endpoints []discoveryv1.Endpoint) {
	if svc.Spec.TrafficDistribution == nil {
		return
	}
	near := *svc.Spec.TrafficDistribution
	sameNode := near == corev1.ServiceTrafficDistributionPreferSameNode
	if !sameNode && near != corev1.ServiceTrafficDistributionPreferSameZone && near != corev1.ServiceTrafficDistributionPreferClose {
		return
	}
	for i := range endpoints {
		if *endpoints[i].Conditions.Ready && (endpoints[i].Zone == nil || sameNode && endpoints[i].NodeName == nil) {
			return
		}
	}
	for i := range endpoints {
		e := &endpoints[i]
		if !*e.Conditions.Ready {
			continue
		}
		e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: *e.Zone}}}
		if sameNode {
			e.Hints.ForNodes = []discoveryv1.ForNode{{Name: *e.NodeName}}
		}
	}
}

// sliceLabels are the Service's, and those by which slices are found.
func sliceLabels(svc *corev1.Service) map[string]string {
	labels := map[string]string{}
	for k, v := range svc.Labels {
		if k != discoveryv1.LabelServiceName && k != discoveryv1.LabelManagedBy && k != corev1.IsHeadlessService {
			labels[k] = v
		}
	}
	if headless(svc) {
		labels[corev1.IsHeadlessService] = ""
	}
	labels[discoveryv1.LabelServiceName], labels[discoveryv1.LabelManagedBy] = svc.Name, managedBy
	return labels
}

// stamp when the change happened that a slice is written for.
func stamp(s *discoveryv1.EndpointSlice, trigger time.Time) {
	if trigger.IsZero() {
		delete(s.Annotations, corev1.EndpointsLastChangeTriggerTime)
		return
	}
	metav1.SetMetaDataAnnotation(&s.ObjectMeta, corev1.EndpointsLastChangeTriggerTime, trigger.UTC().Format(time.RFC3339Nano))
}
