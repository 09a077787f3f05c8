package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// Extended resources that a DeviceClass stands for are allocated through a claim
// that the scheduler makes (KEP-5004): on nodes that do not say themselves that they
// have them.

// extendedResources that a class of pods asks for, those of device classes among them.
func (c *class) extendedResources() (names []corev1.ResourceName) {
	for name, n := range c.requests.other {
		if n > 0 && (extendedResource(name) || isDeviceClass(name)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func isDeviceClass(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), resourcev1.ResourceDeviceClassPrefix)
}

// specialClaim for the extended resources of a pod that devices stand for: one that
// is there from an earlier try, or one that has no requests and no name yet; nil
// when it needs none.
func (d *devices) specialClaim(p *pod) *resourcev1.ResourceClaim {
	if !slices.ContainsFunc(p.extended, func(name corev1.ResourceName) bool { return d.backed[name] != nil }) {
		return nil
	}
	if x := p.obj.Status.ExtendedResourceClaimStatus; x != nil {
		if c := d.claims[p.obj.Namespace+"/"+x.ResourceClaimName]; c != nil && special(c) && metav1.IsControlledBy(c, p.obj) {
			return c
		}
	}
	if c := d.left[p.obj.UID]; c != nil {
		return c
	}
	return &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: p.obj.Namespace, GenerateName: p.obj.Name + "-extended-resources-",
		UID:             "for " + p.obj.UID, // until it has one
		Annotations:     map[string]string{resourcev1.ExtendedResourceClaimAnnotation: "true"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: p.obj.Name, UID: p.obj.UID, Controller: ptr.To(true)}},
	}}
}

// special: a claim was made by the scheduler.
func special(c *resourcev1.ResourceClaim) bool {
	return c.Annotations[resourcev1.ExtendedResourceClaimAnnotation] == "true"
}

// specialOwner is the pod that a special claim was made for, "" = it is none.
func specialOwner(c *resourcev1.ResourceClaim) types.UID {
	if ref := metav1.GetControllerOfNoCopy(c); ref != nil && special(c) {
		return ref.UID
	}
	return ""
}

// specialOn is the special claim as it is to be on a node, nil = nothing there needs
// devices.
func (w *world) specialOn(p *pod, n *node) (*resourcev1.ResourceClaim, []corev1.ContainerExtendedResourceRequest, *verdict) {
	if p.need.extended < 0 {
		return nil, nil, nil
	}
	c := p.need.claims[p.need.extended]
	if c.Name != "" { // of an earlier try: what it got may not hold any more
		return nil, nil, saidStale
	}
	from := map[corev1.ResourceName]*resourcev1.DeviceClass{}
	for _, name := range p.extended {
		have, said := n.alloc.other[name]
		if class := w.devices.backed[name]; class != nil && have == 0 {
			from[name] = class
		} else if !said {
			return nil, nil, saidNoResource
		}
	}
	if len(from) == 0 {
		return nil, nil, nil
	}
	out := c.DeepCopy()
	var mappings []corev1.ContainerExtendedResourceRequest
	out.Spec.Devices.Requests, mappings = deviceRequests(&p.obj.Spec, from)
	return out, mappings, nil
}

// deviceRequests for the extended resources of a pod, and which request is for which
// container. What a container needs that has ended before others begin can be used
// by those, so among init containers the largest request counts, less what long-lived
// containers that come later ask for.
func deviceRequests(spec *corev1.PodSpec, from map[corev1.ResourceName]*resourcev1.DeviceClass) (requests []resourcev1.DeviceRequest, mappings []corev1.ContainerExtendedResourceRequest) {
	all := slices.Concat(spec.InitContainers, spec.Containers)
	short := func(i int) bool {
		r := all[i].RestartPolicy
		return i < len(spec.InitContainers) && (r == nil || *r != corev1.ContainerRestartPolicyAlways)
	}
	for _, name := range slices.Sorted(maps.Keys(from)) {
		long := make([]*resourcev1.DeviceRequest, len(all))
		for i := range all {
			if short(i) {
				continue
			}
			var maps []corev1.ContainerExtendedResourceRequest
			long[i], maps = deviceRequest(i, &all[i], name, from[name].Name, nil)
			mappings = append(mappings, maps...)
		}
		var largest *resourcev1.DeviceRequest
		own := map[string]bool{} // requests of short-lived containers
		var shortMaps []corev1.ContainerExtendedResourceRequest
		for i := range all {
			if !short(i) {
				continue
			}
			r, maps := deviceRequest(i, &all[i], name, from[name].Name, long[i:])
			shortMaps = append(shortMaps, maps...)
			if r != nil {
				own[r.Name] = true
				if largest == nil || largest.Exactly.Count < r.Exactly.Count {
					largest = r
				}
			}
		}
		for i := range shortMaps {
			if own[shortMaps[i].RequestName] {
				shortMaps[i].RequestName = largest.Name
			}
		}
		mappings = append(mappings, shortMaps...)
		for _, r := range append(long, largest) {
			if r != nil {
				requests = append(requests, *r)
			}
		}
	}
	slices.SortFunc(requests, func(a, b resourcev1.DeviceRequest) int { return cmp.Compare(a.Name, b.Name) })
	return requests, mappings
}

// deviceRequest of one container for one resource, nil = none, or what others have
// that it may use is enough.
func deviceRequest(i int, c *corev1.Container, name corev1.ResourceName, class string, usable []*resourcev1.DeviceRequest) (*resourcev1.DeviceRequest, []corev1.ContainerExtendedResourceRequest) {
	q, ok := c.Resources.Requests[name]
	if !ok || q.Value() == 0 {
		return nil, nil
	}
	var mappings []corev1.ContainerExtendedResourceRequest
	mapTo := func(request string) {
		mappings = append(mappings, corev1.ContainerExtendedResourceRequest{ContainerName: c.Name, ResourceName: string(name), RequestName: request})
	}
	left := q.Value()
	for _, r := range usable {
		if r == nil {
			continue
		}
		mapTo(r.Name)
		if left -= r.Exactly.Count; left <= 0 {
			return nil, mappings
		}
	}
	at := slices.Index(slices.Sorted(maps.Keys(c.Resources.Requests)), name)
	r := &resourcev1.DeviceRequest{
		Name:    fmt.Sprintf("container-%d-request-%d", i, at),
		Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: left},
	}
	mapTo(r.Name)
	return r, mappings
}
