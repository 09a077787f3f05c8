package endpoints

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	managedByLabel   = "endpoints.kubernetes.io/managed-by"
	managedByName    = "endpoint-controller"
	mostPerEndpoints = 1000
)

// planEndpoints is the Service's Endpoints object, the older form that some
// clients still read; nil when have is as it should be.
func planEndpoints(svc *corev1.Service, pods []backend, have *corev1.Endpoints, trigger time.Time) *corev1.Endpoints {
	family := families(svc)[0]
	subsets, cut := truncate(subsetsOf(svc, pods, family))
	out := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: svc.Name, Namespace: svc.Namespace}}
	if have != nil {
		out = have.DeepCopy()
	}
	labels := maps.Clone(svc.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	delete(labels, corev1.IsHeadlessService)
	if headless(svc) {
		labels[corev1.IsHeadlessService] = ""
	}
	labels[managedByLabel] = managedByName
	over := have != nil && have.Annotations[corev1.EndpointsOverCapacity] == "truncated"
	if have != nil && equality.Semantic.DeepEqual(have.Subsets, subsets) && maps.Equal(have.Labels, labels) && over == cut {
		return nil
	}
	out.Subsets, out.Labels = subsets, labels
	if out.Annotations == nil {
		out.Annotations = map[string]string{}
	}
	delete(out.Annotations, corev1.EndpointsOverCapacity)
	if cut {
		out.Annotations[corev1.EndpointsOverCapacity] = "truncated"
	}
	delete(out.Annotations, corev1.EndpointsLastChangeTriggerTime)
	if !trigger.IsZero() {
		out.Annotations[corev1.EndpointsLastChangeTriggerTime] = trigger.UTC().Format(time.RFC3339Nano)
	}
	return out
}

// subsetsOf groups addresses by their ports and by whether they are ready. A pod
// that is being deleted is in neither, unless the Service publishes everything.
func subsetsOf(svc *corev1.Service, pods []backend, family discoveryv1.AddressType) []corev1.EndpointSubset {
	var all []corev1.EndpointSubset
	for i := range pods {
		b := &pods[i]
		ip := b.address(family)
		if ip == "" || b.terminating && !svc.Spec.PublishNotReadyAddresses {
			continue
		}
		var ports []corev1.EndpointPort
		for _, p := range portsOf(svc, b.pod) {
			ports = append(ports, corev1.EndpointPort{Name: *p.Name, Port: *p.Port, Protocol: *p.Protocol, AppProtocol: p.AppProtocol})
		}
		if len(ports) == 0 && !(headless(svc) && len(svc.Spec.Ports) == 0) {
			continue
		}
		a := corev1.EndpointAddress{IP: ip, Hostname: b.hostname(svc), TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: b.pod.Namespace, Name: b.pod.Name, UID: b.pod.UID}}
		if name := b.pod.Spec.NodeName; name != "" {
			a.NodeName = &name
		}
		at := slices.IndexFunc(all, func(s corev1.EndpointSubset) bool { return equality.Semantic.DeepEqual(s.Ports, ports) })
		if at < 0 {
			all = append(all, corev1.EndpointSubset{Ports: ports})
			at = len(all) - 1
		}
		if b.ready {
			all[at].Addresses = append(all[at].Addresses, a)
		} else {
			all[at].NotReadyAddresses = append(all[at].NotReadyAddresses, a)
		}
	}
	return all
}

// truncate to what one object may hold, ready addresses first.
func truncate(all []corev1.EndpointSubset) ([]corev1.EndpointSubset, bool) {
	room, cut := mostPerEndpoints, false
	for i := range all {
		n := min(room, len(all[i].Addresses))
		cut = cut || n < len(all[i].Addresses)
		all[i].Addresses, room = all[i].Addresses[:n], room-n
	}
	for i := range all {
		n := min(room, len(all[i].NotReadyAddresses))
		cut = cut || n < len(all[i].NotReadyAddresses)
		all[i].NotReadyAddresses, room = all[i].NotReadyAddresses[:n], room-n
	}
	return all, cut
}
