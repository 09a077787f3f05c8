package scheduler

import (
	"strings"

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
			if !countable(name) {
				continue
			}
			if r.other == nil {
				r.other = map[corev1.ResourceName]int64{}
			}
			r.other[name] = q.Value()
		}
	}
	return r
}

// countable resources are extended ones (DOMAIN/NAME), huge pages and volumes that
// can be attached; what else there may be is not counted.
func countable(name corev1.ResourceName) bool {
	return extendedResource(name) || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) ||
		strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix) || strings.HasPrefix(string(name), corev1.ResourceAttachableVolumesPrefix)
}

func extendedResource(name corev1.ResourceName) bool {
	return strings.Contains(string(name), "/") && !strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix) &&
		!strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix)
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

// of a name.
func (r *resources) of(name corev1.ResourceName) int64 {
	switch name {
	case corev1.ResourceCPU:
		return r.cpu
	case corev1.ResourceMemory:
		return r.memory
	case corev1.ResourceEphemeralStorage:
		return r.ephemeral
	}
	return r.other[name]
}

// less says whether anything of r is less than in o.
func (r *resources) less(o *resources) bool {
	if r.cpu < o.cpu || r.memory < o.memory || r.ephemeral < o.ephemeral {
		return true
	}
	for name, v := range o.other {
		if r.other[name] < v {
			return true
		}
	}
	return false
}

// What a container that asks for nothing is taken to use, so that such pods
// spread over nodes, too.
const (
	defaultCPU    = 100
	defaultMemory = 200 << 20
)

// requests of a pod: as they are filtered by; CPU and memory as they count on a
// node that is scored; and as they are added to that for a pod that may come. The
// last two differ only for pods with resources of their own besides those of
// their containers.
func (c *class) asks(pod *corev1.Pod) {
	o := helper.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true}
	list := helper.PodRequests(pod, o)
	c.requests = resourcesOf(list)
	c.requests.pods = 1
	usual := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(defaultCPU, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(defaultMemory, resource.BinarySI),
	}
	o.NonMissingContainerRequests = usual
	scored := helper.PodRequests(pod, o)
	c.scoreCPU, c.scoreMemory = scored.Cpu().MilliValue(), scored.Memory().Value()
	c.cpu, c.memory = c.scoreCPU, c.scoreMemory
	if helper.IsPodLevelRequestsSet(pod) {
		o.NonMissingContainerRequests = corev1.ResourceList{}
		for name, q := range usual {
			if _, said := list[name]; !said {
				o.NonMissingContainerRequests[name] = q
			}
		}
		counted := helper.PodRequests(pod, o)
		c.cpu, c.memory = counted.Cpu().MilliValue(), counted.Memory().Value()
	}
}
