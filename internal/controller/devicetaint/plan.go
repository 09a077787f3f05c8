package devicetaint

import (
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/dynamic-resource-allocation/resourceclaim"

	"github.com/proa-dev/proa/internal/controller/owned"
)

// device names a device in the cluster.
type device struct{ driver, pool, name string }

func allocated(r *resourcev1.DeviceRequestAllocationResult) device {
	return device{r.Driver, r.Pool, r.Device}
}

// taintsOf are the taints by which the devices of a pool drive pods off. Slices of
// an older generation than the newest that is there say nothing. A taint without a
// time, which the API server would have given it, counts from now.
func taintsOf(slices map[string]*resourcev1.ResourceSlice, now time.Time) map[string][]resourcev1.DeviceTaint {
	newest := int64(math.MinInt64)
	for _, s := range slices {
		newest = max(newest, s.Spec.Pool.Generation)
	}
	all := map[string][]resourcev1.DeviceTaint{}
	for _, s := range slices {
		if s.Spec.Pool.Generation != newest {
			continue
		}
		for i := range s.Spec.Devices {
			d := &s.Spec.Devices[i]
			for _, t := range d.Taints {
				if t.Effect == resourcev1.DeviceTaintEffectNoExecute {
					if t.TimeAdded == nil {
						t.TimeAdded = &metav1.Time{Time: now}
					}
					all[d.Name] = append(all[d.Name], t)
				}
			}
		}
	}
	return all
}

// leave says when a pod has to go because of the devices that it has: never (ok
// false), or at a time that may have passed. claim returns nil for one that is not
// there; taints are those of a device that drive pods off.
func leave(p *corev1.Pod, claim func(name string) *resourcev1.ResourceClaim, taints func(device) []resourcev1.DeviceTaint) (at time.Time, ok bool) {
	if p.Spec.NodeName == "" || owned.Ended(p) {
		return at, false
	}
	for _, name := range owned.ClaimNames(p) {
		c := claim(name)
		if c == nil || c.Status.Allocation == nil || !resourceclaim.IsReservedForPod(p, c, false) { // perhaps of a pod of the same name
			continue
		}
		for i := range c.Status.Allocation.Devices.Results {
			r := &c.Status.Allocation.Devices.Results[i]
			for _, t := range taints(allocated(r)) {
				limit, tolerated := tolerated(r.Tolerations, t)
				if tolerated && limit < 0 {
					continue
				}
				if end := t.TimeAdded.Add(limit); !ok || end.Before(at) {
					at, ok = end, true
				}
			}
		}
	}
	return at, ok
}

// tolerated for how long: negative = for ever. Unlike with nodes, one toleration
// without a time is enough for ever; of those with a time, the least counts.
// tolerationSeconds means something with the effect NoExecute only: a toleration of
// every effect is for ever, or the scheduler would bring back what is driven off.
func tolerated(tolerations []resourcev1.DeviceToleration, t resourcev1.DeviceTaint) (limit time.Duration, ok bool) {
	for _, tol := range tolerations {
		if !resourceclaim.ToleratesTaint(tol, t) {
			continue
		}
		if tol.TolerationSeconds == nil || tol.Effect != resourcev1.DeviceTaintEffectNoExecute {
			return -1, true
		}
		if d := time.Duration(max(0, *tol.TolerationSeconds)) * time.Second; !ok || d < limit {
			limit, ok = d, true
		}
	}
	return limit, ok
}
