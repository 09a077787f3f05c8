package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"
)

// interested are the extenders that have a say in a pod.
func (c *Configuration) interested(p *corev1.Pod) (all []*Extender) {
	for _, e := range c.Extenders {
		if e.interested(p) {
			all = append(all, e)
		}
	}
	return all
}

// planNodes decides as plan does, but looks at each node that fits by itself: for
// pods in which extenders have a say, or which need devices.
func (w *world) planNodes(ctx context.Context, p *pod, with []*Extender) result {
	b := w.boardOf(p.class)
	t := &attempt{refused: map[int32]*verdict{}}
	if b.whole() == nil && w.needsDevices(p) {
		var err error
		if p.need, err = w.need(ctx, p, time.Now()); err != nil {
			return result{err: err}
		}
	}
	if b.whole() != nil || p.need != nil && p.need.rejected != nil {
		return result{why: w.refuse(p, nil)}
	}
	if h := w.hopes[p.key]; h != nil {
		if n := w.byName[h.on]; n != nil && n.obj != nil && b.fits(n.slot) && !w.robs(p, n) {
			left, err := w.filterDevices(ctx, p, t, []*node{n}, 1)
			if err == nil {
				left, err = t.filter(ctx, p, with, left)
			}
			if err == nil && len(left) == 1 {
				return p.result(n, 0)
			}
			clear(t.refused)
		}
	}
	var fit []*node
	rules := b.rules()
	for _, n := range w.nodes {
		l := b.line(n.slot)
		if l == nil || l.now != nil || rules.fits(nil, n.slot) != nil {
			continue
		}
		if v := w.withHopes(p, n); v != nil {
			t.refused[n.slot] = v
			continue
		}
		fit = append(fit, n)
	}
	left, err := fit, error(nil)
	if p.need != nil {
		enough := 1
		switch {
		case len(with) > 0:
			enough = len(fit)
		case p.need.ranked:
			enough = alternatives
		}
		b.sort(fit)
		left, err = w.filterDevices(ctx, p, t, fit, enough)
	}
	if err == nil {
		left, err = t.filter(ctx, p, with, left)
	}
	switch {
	case err != nil:
		return result{err: err}
	case len(left) == 0:
		return result{why: w.refuse(p, t.refused)}
	case len(left) == 1:
		return p.result(left[0], 0)
	}
	more := t.scores(ctx, p, with, left)
	if p.need != nil && p.need.ranked {
		for _, n := range left {
			more[n.slot] += p.options.weights[dynamicResources] * p.need.grade(n.slot)
		}
	}
	best, score := b.best(left, more)
	return p.result(best, score)
}

// attempt is one decision of planNodes on its way.
type attempt struct {
	refused map[int32]*verdict
}

// filter asks the extenders in turn.
func (t *attempt) filter(ctx context.Context, p *pod, with []*Extender, nodes []*node) ([]*node, error) {
	for _, e := range with {
		if len(nodes) == 0 {
			break
		}
		left, why, err := e.filterNodes(ctx, p.obj, nodes)
		if err != nil {
			if e.ignorable {
				continue
			}
			return nil, err
		}
		kept := make(map[*node]bool, len(left))
		for _, n := range left {
			kept[n] = true
		}
		for _, n := range nodes {
			if v := why[n.name]; v != nil {
				t.refused[n.slot] = v
			} else if !kept[n] {
				t.refused[n.slot] = saidExtender
			}
		}
		nodes = left
	}
	return nodes, nil
}

// scores that extenders give nodes, by slot. One that fails gives none.
func (t *attempt) scores(ctx context.Context, p *pod, with []*Extender, nodes []*node) map[int32]int64 {
	out := map[int32]int64{}
	for _, e := range with {
		byName, err := e.scores(ctx, p.obj, nodes)
		if err != nil {
			continue
		}
		for _, n := range nodes {
			out[n.slot] += byName[n.name]
		}
	}
	return out
}

// best of some nodes: as in pick, but among those alone, and with more to add to
// their scores.
func (b *board) best(nodes []*node, more map[int32]int64) (*node, int64) {
	totals := b.totals(nodes)
	var best *line
	var most int64
	for i, n := range nodes {
		l := b.line(n.slot)
		total := totals[i] + more[n.slot]
		if best == nil || total > most || total == most && b.before(l, best) {
			best, most = l, total
		}
	}
	return best.node, most
}

// sort nodes, the best first.
func (b *board) sort(nodes []*node) {
	if len(nodes) < 2 {
		return
	}
	totals := map[*node]int64{}
	for i, total := range b.totals(nodes) {
		totals[nodes[i]] = total
	}
	slices.SortFunc(nodes, func(x, y *node) int {
		if totals[x] != totals[y] {
			return cmp.Compare(totals[y], totals[x])
		}
		if b.before(b.line(x.slot), b.line(y.slot)) {
			return -1
		}
		return 1
	})
}

// totals of some nodes' scores, as among those alone.
func (b *board) totals(nodes []*node) []int64 {
	among := map[*cell]*cell{}
	var cells []*cell
	for _, n := range nodes {
		c := b.line(n.slot).cell
		if among[c] == nil {
			copied := *c
			copied.heap = nil
			among[c] = &copied
			cells = append(cells, &copied)
		}
		among[c].heap = append(among[c].heap, n.slot)
	}
	b.grade(cells, len(nodes))
	totals := make([]int64, len(nodes))
	for i, n := range nodes {
		l := b.line(n.slot)
		totals[i] = among[l.cell].total + l.score
	}
	return totals
}

// narrow asks the extenders which victims they agree with.
func (w *world) narrow(ctx context.Context, p *pod, with []*Extender, all []*preemption) ([]*preemption, error) {
	for _, e := range with {
		if e.preempt == "" || len(all) == 0 {
			continue
		}
		answer, err := e.victims(ctx, p.obj, all)
		var left []*preemption
		if err == nil {
			left, err = w.agreed(e, answer)
		}
		if err != nil {
			if e.ignorable {
				continue
			}
			return nil, err
		}
		all = left
	}
	return all, nil
}

// agreed is what an extender makes of the victims: nodes less, or pods else.
func (w *world) agreed(e *Extender, answer map[string]*extenderv1.MetaVictims) (all []*preemption, err error) {
	for name, meta := range answer {
		if meta == nil || len(meta.Pods) == 0 {
			if e.ignorable {
				continue
			}
			return nil, fmt.Errorf("expected at least one victim pod on node %q", name)
		}
		n := w.byName[name]
		if n == nil || n.obj == nil {
			return nil, fmt.Errorf("extender: %v claims to preempt pods on node %q, which is not there", e.url, name)
		}
		c := &preemption{node: n, violations: int(meta.NumPDBViolations)}
		for _, one := range meta.Pods {
			v := n.podOf(one.UID)
			if v == nil {
				return nil, fmt.Errorf("extender: %v claims to preempt pod (UID: %v) on node: %v, but the pod is not found on that node", e.url, one.UID, name)
			}
			c.victims = append(c.victims, v)
		}
		slices.SortFunc(c.victims, moreImportant)
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *preemption) int { return cmp.Compare(a.node.name, b.node.name) })
	return all, nil
}

func (n *node) podOf(uid string) *placed {
	for _, pl := range n.pods {
		if string(pl.obj.UID) == uid {
			return pl
		}
	}
	return nil
}

func (e *Extender) victims(ctx context.Context, p *corev1.Pod, all []*preemption) (map[string]*extenderv1.MetaVictims, error) {
	args := extenderv1.ExtenderPreemptionArgs{Pod: p}
	for _, c := range all {
		if e.namesOnly {
			meta := &extenderv1.MetaVictims{NumPDBViolations: int64(c.violations)}
			for _, v := range c.victims {
				meta.Pods = append(meta.Pods, &extenderv1.MetaPod{UID: string(v.obj.UID)})
			}
			if args.NodeNameToMetaVictims == nil {
				args.NodeNameToMetaVictims = map[string]*extenderv1.MetaVictims{}
			}
			args.NodeNameToMetaVictims[c.node.name] = meta
			continue
		}
		if args.NodeNameToVictims == nil {
			args.NodeNameToVictims = map[string]*extenderv1.Victims{}
		}
		args.NodeNameToVictims[c.node.name] = &extenderv1.Victims{Pods: c.objects(), NumPDBViolations: int64(c.violations)}
	}
	var result extenderv1.ExtenderPreemptionResult
	err := e.call(ctx, e.preempt, &args, &result)
	return result.NodeNameToMetaVictims, err
}
