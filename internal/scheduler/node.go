package scheduler

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// node is a node with the pods on it, counted.
type node struct {
	obj     *corev1.Node
	name    string
	slot    int32
	tie     uint64 // order among nodes that are otherwise alike
	version uint64 // moves when the object changes in a way that decisions see
	alloc   resources
	used    resources
	// as scored: with defaults for what was not asked for
	cpu, memory int64
	ports       map[hostPort]int
	images      map[string]int64 // size by name
	pods        map[string]*placed
	taints      []corev1.Taint // those that keep pods off: NoSchedule, NoExecute
	soft        []corev1.Taint // PreferNoSchedule
	features    features
}

// placed is a pod on a node, bound or assumed to be.
type placed struct {
	*pod
	on      string
	assumed bool // the API server has not said so yet
}

func newNode(name string) *node {
	return &node{name: name, ports: map[hostPort]int{}, pods: map[string]*placed{}}
}

// set takes over what a Node object says. A node whose object is not there yet
// (pods may be seen before their node) takes nothing.
func (n *node) set(obj *corev1.Node) {
	n.obj = obj
	n.version++
	n.alloc = resourcesOf(obj.Status.Allocatable)
	n.features = declared(obj)
	n.taints, n.soft = nil, nil
	for _, t := range obj.Spec.Taints {
		if t.Effect == corev1.TaintEffectPreferNoSchedule {
			n.soft = append(n.soft, t)
		} else {
			n.taints = append(n.taints, t)
		}
	}
}

func (n *node) setImages(obj *corev1.Node) {
	n.images = make(map[string]int64, len(obj.Status.Images))
	for _, i := range obj.Status.Images {
		for _, name := range i.Names {
			n.images[name] = i.SizeBytes
		}
	}
}

func sameImages(a, b *corev1.Node) bool {
	return slices.EqualFunc(a.Status.Images, b.Status.Images, func(x, y corev1.ContainerImage) bool {
		return x.SizeBytes == y.SizeBytes && slices.Equal(x.Names, y.Names)
	})
}

// changed says what of a node that decisions look at is different, 0 = nothing.
func changed(old, now *corev1.Node) (c change) {
	if old.Spec.Unschedulable != now.Spec.Unschedulable || !equality.Semantic.DeepEqual(old.Spec.Taints, now.Spec.Taints) {
		c |= nodeTaints
	}
	if !sameLabels(old.Labels, now.Labels) {
		c |= nodeLabels
	}
	if !equality.Semantic.DeepEqual(old.Status.Allocatable, now.Status.Allocatable) {
		c |= nodeRoom
	}
	if declared(old) != declared(now) {
		c |= nodeFeatures
	}
	return c
}

func (n *node) label(key string) (string, bool) {
	v, ok := n.obj.Labels[key]
	return v, ok
}

// count a pod in (sign 1) or out (sign -1).
func (n *node) count(p *pod, sign int64) {
	n.used.add(&p.requests, sign)
	n.cpu += sign * p.cpu
	n.memory += sign * p.memory
	for _, h := range p.ports {
		if n.ports[h] += int(sign); n.ports[h] <= 0 {
			delete(n.ports, h)
		}
	}
}

// portTaken says whether a host port of a class is in use.
func (n *node) portTaken(c *class) bool {
	for _, want := range c.ports {
		for have := range n.ports {
			if want.clashes(have) {
				return true
			}
		}
	}
	return false
}

// clashes: the same port and protocol on the same address, or on all addresses.
func (h hostPort) clashes(other hostPort) bool {
	return h.port == other.port && h.protocol == other.protocol && (h.ip == other.ip || h.ip == "0.0.0.0" || other.ip == "0.0.0.0")
}
