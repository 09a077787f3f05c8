package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helper "k8s.io/component-helpers/resource"
)

// resources is a vector: CPU in thousandths, the rest in bytes or pieces.
type resources struct {
	cpu, memory, ephemeral int64
	pods                   int64
	other                  map[corev1.ResourceName]int64
}

func resourcesOf(list corev1.ResourceList) resources {
	var r resources
	for name, q := range list {
		switch name {
		case corev1.ResourceCPU:
			r.cpu = q.MilliValue()
		case corev1.ResourceMemory:
			r.memory = q.Value()
		case corev1.ResourceEphemeralStorage:
			r.ephemeral = q.Value()
		case corev1.ResourcePods:
			r.pods = q.Value()
		default:
			if r.other == nil {
				r.other = map[corev1.ResourceName]int64{}
			}
			r.other[name] = q.Value()
		}
	}
	return r
}

// add other, sign times (1 or -1).
func (r *resources) add(o *resources, sign int64) {
	r.cpu += sign * o.cpu
	r.memory += sign * o.memory
	r.ephemeral += sign * o.ephemeral
	r.pods += sign * o.pods
	for name, v := range o.other {
		if r.other == nil {
			r.other = map[corev1.ResourceName]int64{}
		}
		r.other[name] += sign * v
	}
}

// What a container that asks for nothing is taken to use, so that such pods
// spread over nodes, too.
const (
	defaultCPU    = 100
	defaultMemory = 200 << 20
)

// requests of a pod, as it is filtered by, and as it is scored by.
func requests(pod *corev1.Pod) (exact resources, cpu, memory int64) {
	exact = resourcesOf(helper.PodRequests(pod, helper.PodResourcesOptions{UseStatusResources: true}))
	exact.pods = 1
	scored := helper.PodRequests(pod, helper.PodResourcesOptions{
		UseStatusResources: true,
		NonMissingContainerRequests: corev1.ResourceList{
			corev1.ResourceCPU:    *resource.NewMilliQuantity(defaultCPU, resource.DecimalSI),
			corev1.ResourceMemory: *resource.NewQuantity(defaultMemory, resource.BinarySI),
		},
	})
	return exact, scored.Cpu().MilliValue(), scored.Memory().Value()
}
