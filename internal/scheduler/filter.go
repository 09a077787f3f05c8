package scheduler

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// verdict is why a pod cannot be on a node; "" when it can. final means that
// taking other pods off the node would not help.
type verdict struct {
	plugin string
	reason []string
	final  bool
}

func (v *verdict) ok() bool { return len(v.reason) == 0 }

var yes = verdict{}

func no(plugin, reason string) verdict      { return verdict{plugin, []string{reason}, false} }
func noFinal(plugin, reason string) verdict { return verdict{plugin, []string{reason}, true} }

// fitsNode runs the filters that look at the Node object alone, in upstream's
// order; the first that says no decides.
func (w *world) fitsNode(c *class, n *node) verdict {
	o, pod := c.options, c.sample
	if n.obj.Spec.Unschedulable && !toleratesTaint(pod, &unschedulable) && !o.Disabled["NodeUnschedulable"] {
		return noFinal("NodeUnschedulable", "node(s) were unschedulable")
	}
	if untolerated(c, n.taints) > 0 && !o.Disabled["TaintToleration"] {
		return noFinal("TaintToleration", "node(s) had untolerated taint(s)")
	}
	if o.Disabled["NodeAffinity"] {
		return yes
	}
	if o.added != nil && !o.added.Match(n.obj) {
		return noFinal("NodeAffinity", "node(s) didn't match scheduler-enforced node affinity")
	}
	if !w.affine(c, n) {
		return noFinal("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
	}
	return yes
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
func (w *world) fitsPods(c *class, st *want, n *node) verdict {
	o := c.options
	if len(c.ports) > 0 && !o.Disabled["NodePorts"] && n.portTaken(c) {
		return no("NodePorts", "node(s) didn't have free ports for the requested pod ports")
	}
	if !o.Disabled["NodeResourcesFit"] && !fitsResources(&c.requests, n) {
		return lacking(&c.requests, n)
	}
	return w.fitsVolumes(c, st, n)
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
func (r rules) fits(c *cell, slot int32) verdict {
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
				return noFinal("PodTopologySpread", "node(s) didn't match pod topology spread constraints (missing required label)")
			}
			if d.spread.self {
				v++
			}
			if v-d.emptiest() > int64(d.spread.maxSkew) {
				return no("PodTopologySpread", "node(s) didn't match pod topology spread constraints")
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
		return noFinal("InterPodAffinity", "node(s) didn't match pod affinity rules")
	case shunned:
		return no("InterPodAffinity", "node(s) didn't match pod anti-affinity rules")
	case against:
		return no("InterPodAffinity", "node(s) didn't satisfy existing pods anti-affinity rules")
	}
	return yes
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

func fitsResources(want *resources, n *node) bool {
	if n.used.pods+1 > n.alloc.pods || want.cpu > 0 && want.cpu > n.alloc.cpu-n.used.cpu ||
		want.memory > 0 && want.memory > n.alloc.memory-n.used.memory ||
		want.ephemeral > 0 && want.ephemeral > n.alloc.ephemeral-n.used.ephemeral {
		return false
	}
	for name, q := range want.other {
		if q > 0 && q > n.alloc.other[name]-n.used.other[name] {
			return false
		}
	}
	return true
}

// lacking names everything there is too little of.
func lacking(want *resources, n *node) verdict {
	v := verdict{plugin: "NodeResourcesFit"}
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
		lack("Insufficient "+string(name), want.other[name], n.alloc.other[name]-n.used.other[name], n.alloc.other[name])
	}
	return v
}
