package scheduler

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// fitsNode runs the filters that look at the Node object alone, in upstream's
// order; the first that says no decides.
func (w *world) fitsNode(c *class, n *node) *verdict {
	o := c.options
	byName := o.filters.has(nodeAffinity)
	switch {
	case byName && c.only != nil && !c.only[n.name]:
		return saidNotNamed
	case n.obj.Spec.Unschedulable && !toleratesTaint(c.sample, &unschedulable) && o.filters.has(nodeUnschedulable):
		return saidUnschedulable
	case len(n.taints) > 0 && untolerated(c, n.taints) > 0 && o.filters.has(taintToleration):
		return saidTainted
	case byName && o.added != nil && !o.added.Match(n.obj):
		return saidNotAdded
	case byName && !w.affine(c, n):
		return saidNotAffine
	}
	return nil
}

// affine: the pod's own selector and affinity allow the node.
func (w *world) affine(c *class, n *node) bool {
	if c.required == nil {
		return true
	}
	ok, _ := c.required.Match(n.obj)
	return ok
}

// fitsPods runs the filters that look at the pods of the node, too.
func (w *world) fitsPods(c *class, st *want, n *node) *verdict {
	o := c.options
	if len(c.ports) > 0 && o.filters.has(nodePorts) && n.portTaken(c) {
		return saidPorts
	}
	if o.filters.has(nodeResourcesFit) && !w.fitsResources(c, n) {
		return w.lacking(c, n)
	}
	if v := w.fitsVolumes(c, st, n); v != nil {
		return v
	}
	if c.features&^n.features != 0 && o.filters.has(nodeDeclaredFeatures) {
		return saidFeatures
	}
	return nil
}

// rules are those filters that look at other nodes, for one decision.
type rules struct {
	b     *board
	first bool // nothing is there yet that the pod has to be near to, but itself
}

func (b *board) rules() rules {
	r := rules{b: b, first: true}
	for i := range b.dims {
		if d := &b.dims[i]; d.what == isAffine && d.total != 0 {
			r.first = false
		}
	}
	for _, t := range b.c.affinity {
		r.first = r.first && b.w.terms.matches(t, b.c.sample)
	}
	return r
}

// fits a cell or, without one, a node.
func (r rules) fits(c *cell, slot int32) *verdict {
	var lacks, shunned, against bool
	for i := range r.b.dims {
		d := &r.b.dims[i]
		var v int64
		var ok bool
		if c != nil {
			v, ok = c.value(i), c.dom[i] >= 0
		} else {
			v, ok = d.value(slot), d.dom[slot] >= 0
		}
		switch d.what {
		case isSpread:
			if !d.spread.hard {
				continue
			}
			if !ok {
				return saidSpreadLabel
			}
			if d.spread.self {
				v++
			}
			if v-d.emptiest() > int64(d.spread.maxSkew) {
				return saidSpread
			}
		case isAffine:
			lacks = lacks || !ok || v == 0 && !r.first
		case isAnti:
			shunned = shunned || v > 0
		case isAgainst:
			against = against || v > 0
		}
	}
	switch {
	case lacks:
		return saidNotNear
	case shunned:
		return saidShunned
	case against:
		return saidAgainst
	}
	return nil
}

var unschedulable = corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}

func toleratesTaint(pod *corev1.Pod, t *corev1.Taint) bool {
	for i := range pod.Spec.Tolerations {
		if tol := &pod.Spec.Tolerations[i]; tolerates(tol, t) {
			return true
		}
	}
	return false
}

func tolerates(tol *corev1.Toleration, t *corev1.Taint) bool {
	if tol.Effect != "" && tol.Effect != t.Effect || tol.Key != "" && tol.Key != t.Key {
		return false
	}
	if tol.Operator == corev1.TolerationOpExists {
		return true
	}
	return (tol.Operator == "" || tol.Operator == corev1.TolerationOpEqual) && tol.Value == t.Value
}

// untolerated is how many of the taints are not tolerated.
func untolerated(c *class, taints []corev1.Taint) (count int) {
	for i := range taints {
		if !toleratesTaint(c.sample, &taints[i]) {
			count++
		}
	}
	return count
}

func (w *world) fitsResources(c *class, n *node) bool {
	want := &c.requests
	if n.used.pods+1 > n.alloc.pods || want.cpu > 0 && want.cpu > n.alloc.cpu-n.used.cpu ||
		want.memory > 0 && want.memory > n.alloc.memory-n.used.memory ||
		want.ephemeral > 0 && want.ephemeral > n.alloc.ephemeral-n.used.ephemeral {
		return false
	}
	for name, q := range want.other {
		if q > 0 && q > n.alloc.other[name]-n.used.other[name] && !w.elsewhere(c, n, name) {
			return false
		}
	}
	return true
}

// elsewhere: a resource is not for NodeResourcesFit to look at.
func (w *world) elsewhere(c *class, n *node, name corev1.ResourceName) bool {
	if n.alloc.other[name] == 0 && w.devices.backed[name] != nil {
		return true // it is made of devices there
	}
	o := c.options
	if (o.ignored != nil || o.ignoring != nil) && extendedResource(name) {
		group, _, _ := strings.Cut(string(name), "/")
		return o.ignored[name] || o.ignoring[group]
	}
	return false
}

// lacking names everything there is too little of.
func (w *world) lacking(c *class, n *node) *verdict {
	v := verdict{plugin: nodeResourcesFit}
	want := &c.requests
	lack := func(name string, need, have, total int64) {
		if need > 0 && need > have {
			v.reason = append(v.reason, name)
			v.final = v.final || need > total
		}
	}
	if n.used.pods+1 > n.alloc.pods {
		v.reason = append(v.reason, "Too many pods")
	}
	lack("Insufficient cpu", want.cpu, n.alloc.cpu-n.used.cpu, n.alloc.cpu)
	lack("Insufficient memory", want.memory, n.alloc.memory-n.used.memory, n.alloc.memory)
	lack("Insufficient ephemeral-storage", want.ephemeral, n.alloc.ephemeral-n.used.ephemeral, n.alloc.ephemeral)
	for _, name := range slices.Sorted(maps.Keys(want.other)) {
		if !w.elsewhere(c, n, name) {
			lack("Insufficient "+string(name), want.other[name], n.alloc.other[name]-n.used.other[name], n.alloc.other[name])
		}
	}
	return w.shared(&v)
}

// shared is the same verdict for all nodes of which the same is said.
func (w *world) shared(v *verdict) *verdict {
	key := strings.Join(v.reason, ",")
	if v.final {
		key += "!"
	}
	if have := w.said[key]; have != nil {
		return have
	}
	w.said[key] = v
	return v
}
