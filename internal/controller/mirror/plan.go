package mirror

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/controller/owned"
)

const (
	managedBy = "endpointslicemirroring-controller.k8s.io"
	// perSubset is how many addresses of a subset are mirrored at the most.
	perSubset = 1000
	leader    = "control-plane.alpha.kubernetes.io/leader"
)

type plan struct {
	create, update, remove []*discoveryv1.EndpointSlice
}

// mirrored says whether a Service's Endpoints are somebody's own writing, that
// readers of slices would miss.
func mirrored(e *corev1.Endpoints, svc *corev1.Service) bool {
	if e == nil || svc == nil || len(svc.Spec.Selector) > 0 || e.DeletionTimestamp != nil {
		return false
	}
	_, election := e.Annotations[leader]
	return !election && e.Labels[discoveryv1.LabelSkipMirror] != "true"
}

// decide compares the slices that an Endpoints object asks for, one for each
// subset's ports and address family, with those there are. e nil: none are wanted.
func decide(e *corev1.Endpoints, have []*discoveryv1.EndpointSlice) plan {
	var p plan
	left := slices.Clone(have)
	for _, want := range wanted(e) {
		at := slices.IndexFunc(left, func(s *discoveryv1.EndpointSlice) bool {
			return s.AddressType == want.AddressType && equality.Semantic.DeepEqual(s.Ports, want.Ports)
		})
		if at < 0 {
			p.create = append(p.create, want)
			continue
		}
		s := left[at]
		left = slices.Delete(left, at, at+1)
		if equality.Semantic.DeepEqual(s.Endpoints, want.Endpoints) && maps.Equal(s.Labels, want.Labels) && maps.Equal(s.Annotations, want.Annotations) && metav1.IsControlledBy(s, e) {
			continue
		}
		out := s.DeepCopy()
		out.Endpoints, out.Labels, out.Annotations, out.OwnerReferences = want.Endpoints, want.Labels, want.Annotations, want.OwnerReferences
		p.update = append(p.update, out)
	}
	p.remove = left
	return p
}

func wanted(e *corev1.Endpoints) []*discoveryv1.EndpointSlice {
	if e == nil {
		return nil
	}
	var all []*discoveryv1.EndpointSlice
	for _, sub := range e.Subsets {
		ports := []discoveryv1.EndpointPort{}
		for i := range sub.Ports {
			p := sub.Ports[i].DeepCopy()
			ports = append(ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &p.Port, Protocol: &p.Protocol, AppProtocol: p.AppProtocol})
		}
		count := 0
		add := func(list []corev1.EndpointAddress, ready bool) {
			for i := range list {
				ip, err := netip.ParseAddr(list[i].IP)
				if err != nil || count >= perSubset {
					continue
				}
				count++
				a := list[i].DeepCopy()
				point := discoveryv1.Endpoint{Addresses: []string{ip.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}, TargetRef: a.TargetRef, NodeName: a.NodeName}
				if a.Hostname != "" {
					point.Hostname = &a.Hostname
				}
				s := sliceFor(&all, e, ip.Is4(), ports)
				if !slices.ContainsFunc(s.Endpoints, func(x discoveryv1.Endpoint) bool { return equality.Semantic.DeepEqual(x, point) }) {
					s.Endpoints = append(s.Endpoints, point)
				}
			}
		}
		add(sub.Addresses, true)
		add(sub.NotReadyAddresses, false)
	}
	for _, s := range all {
		slices.SortStableFunc(s.Endpoints, func(a, b discoveryv1.Endpoint) int { return cmp.Compare(a.Addresses[0], b.Addresses[0]) })
	}
	return all
}

func sliceFor(all *[]*discoveryv1.EndpointSlice, e *corev1.Endpoints, four bool, ports []discoveryv1.EndpointPort) *discoveryv1.EndpointSlice {
	family := discoveryv1.AddressTypeIPv6
	if four {
		family = discoveryv1.AddressTypeIPv4
	}
	for _, s := range *all {
		if s.AddressType == family && equality.Semantic.DeepEqual(s.Ports, ports) {
			return s
		}
	}
	labels := maps.Clone(e.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[discoveryv1.LabelServiceName], labels[discoveryv1.LabelManagedBy] = e.Name, managedBy
	annotations := map[string]string{}
	for k, v := range e.Annotations {
		if k != corev1.EndpointsLastChangeTriggerTime && k != corev1.LastAppliedConfigAnnotation {
			annotations[k] = v
		}
	}
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: owned.NamePrefix(e.Name), Namespace: e.Namespace, Labels: labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{owned.Ref(e, corev1.SchemeGroupVersion.WithKind("Endpoints"))},
		},
		AddressType: family, Ports: ports, Endpoints: []discoveryv1.Endpoint{},
	}
	*all = append(*all, s)
	return s
}
