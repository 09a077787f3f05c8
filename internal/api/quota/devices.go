package quota

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
	deviceapi "github.com/proa-dev/proa/internal/api/resource"
)

// Devices is what the count of a ResourceClaim depends on besides the claim
// (KEP-4381; KEP-5004 for extended resources). A nil Devices knows nothing: then
// claims count by class alone.
type Devices interface {
	// Classes visits all DeviceClasses until visit returns false.
	Classes(visit func(*resourcev1.DeviceClass) bool)
	// Pod returns nil when there is none of that name.
	Pod(namespace, name string) *corev1.Pod
	// OwnedBy are the claims that have a pod among their owners.
	OwnedBy(p *corev1.Pod) []*resourcev1.ResourceClaim
}

const requests = corev1.DefaultResourceRequestsPrefix

// isDeviceClaim says whether objects of a kind are ResourceClaims.
func isDeviceClaim(k *api.Kind) bool {
	return k.Group == resourcev1.GroupName && k.Resource == "resourceclaims"
}

// extendedOf is the extended resource whose requests a quota limits by a name.
func extendedOf(name corev1.ResourceName) (extended corev1.ResourceName, ok bool) {
	text, ok := strings.CutPrefix(string(name), requests)
	return corev1.ResourceName(text), ok && strings.Contains(text, "/")
}

// countsDevices says whether claims count for a name: CLASS.deviceclass.resource.k8s.io/devices,
// and "requests." before an extended resource that a class stands for.
func countsDevices(name corev1.ResourceName, d Devices) bool {
	if strings.HasSuffix(string(name), corev1.ResourceClaimsPerClass) {
		return true
	}
	extended, ok := extendedOf(name)
	if !ok || d == nil {
		return false
	}
	found := false
	d.Classes(func(c *resourcev1.DeviceClass) bool {
		found = deviceapi.StandsFor(c, extended)
		return !found
	})
	return found
}

// deviceUsage is what a claim counts for besides as an object: for each of its
// classes the most devices that it may get, and so many of the extended resources
// that the class stands for. Of these, a claim that was made for a pod's extended
// resources counts only what the pod itself does not count for already.
func deviceUsage(c *resourcev1.ResourceClaim, d Devices, now time.Time) corev1.ResourceList {
	classes := map[string]int64{}
	for i := range c.Spec.Devices.Requests {
		for class, n := range most(&c.Spec.Devices.Requests[i]) {
			classes[class] += n
		}
	}
	use, extended := corev1.ResourceList{}, map[corev1.ResourceName]int64{}
	for class, n := range classes {
		use[corev1.ResourceName(class+corev1.ResourceClaimsPerClass)] = *number(int(n))
		extended[corev1.ResourceName(corev1.ResourceImplicitExtendedClaimsPerClass+class)] = n
	}
	if d == nil {
		return use
	}
	d.Classes(func(class *resourcev1.DeviceClass) bool {
		if n, ok := classes[class.Name]; ok && class.Spec.ExtendedResourceName != nil {
			extended[corev1.ResourceName(requests+*class.Spec.ExtendedResourceName)] += n
		}
		return true
	})
	var counted corev1.ResourceList
	if p := servedPod(c, d); p != nil {
		counted = podUsage(p, now)
	}
	for name, n := range extended {
		left := number(int(n))
		left.Sub(counted[name])
		if left.Sign() > 0 {
			use[name] = *left
		}
	}
	return use
}

// most devices of each class that one request may be given.
func most(r *resourcev1.DeviceRequest) map[string]int64 {
	count := func(mode resourcev1.DeviceAllocationMode, n int64) int64 {
		switch mode {
		case resourcev1.DeviceAllocationModeExactCount:
			return n
		case resourcev1.DeviceAllocationModeAll: // nobody knows before it is allocated
			return resourcev1.AllocationResultsMaxSize
		}
		return 0
	}
	if e := r.Exactly; e != nil && len(r.FirstAvailable) == 0 {
		return map[string]int64{e.DeviceClassName: count(e.AllocationMode, e.Count)}
	}
	by := map[string]int64{}
	for _, s := range r.FirstAvailable { // one of them will be chosen
		if n := count(s.AllocationMode, s.Count); n > by[s.DeviceClassName] {
			by[s.DeviceClassName] = n
		}
	}
	return by
}

// servedPod is the pod for whose extended resources a claim was made, nil = none:
// the pod must say so too or, as long as it says nothing, have no older such claim.
// Anybody can write an annotation, and must not get devices past a quota by it.
func servedPod(c *resourcev1.ResourceClaim, d Devices) *corev1.Pod {
	name, ok := extendedOwner(c)
	if !ok {
		return nil
	}
	p := d.Pod(c.Namespace, name)
	if p == nil || !metav1.IsControlledBy(c, p) {
		return nil
	}
	if said := p.Status.ExtendedResourceClaimStatus; said != nil {
		if said.ResourceClaimName != c.Name {
			return nil
		}
		return p
	}
	for _, other := range d.OwnedBy(p) {
		if _, ok := extendedOwner(other); ok && metav1.IsControlledBy(other, p) && other.Namespace == c.Namespace && other.Name != c.Name && older(other, c) {
			return nil
		}
	}
	return p
}

// extendedOwner is the name of the pod that a claim for extended resources names.
func extendedOwner(c *resourcev1.ResourceClaim) (pod string, ok bool) {
	ref := metav1.GetControllerOfNoCopy(c)
	if c.Annotations[resourcev1.ExtendedResourceClaimAnnotation] != "true" || ref == nil || ref.Kind != "Pod" || ref.APIVersion != "v1" {
		return "", false
	}
	return ref.Name, true
}

// older says whether a was made before b; one without a time is about to be made.
func older(a, b *resourcev1.ResourceClaim) bool {
	x, y := a.CreationTimestamp, b.CreationTimestamp
	if x.IsZero() != y.IsZero() {
		return y.IsZero()
	}
	if x.Equal(&y) {
		return a.Name < b.Name
	}
	return x.Before(&y)
}

// MapChanged says whether a change of a DeviceClass (nil = there is none) changes
// which claims count for which extended resource.
func MapChanged(old, now *resourcev1.DeviceClass) bool {
	name := func(c *resourcev1.DeviceClass) string {
		if c.Spec.ExtendedResourceName == nil {
			return ""
		}
		return *c.Spec.ExtendedResourceName
	}
	return old == nil || now == nil || name(old) != name(now)
}

// AsksExtended says whether a quota limits extended resources, for which claims may
// count.
func AsksExtended(q *corev1.ResourceQuota) bool {
	for name := range q.Spec.Hard {
		if _, ok := extendedOf(name); ok {
			return true
		}
	}
	return false
}
