package scheduler

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// hope is a pod for which others were told to go: it has the room on that node
// before pods of lower priority do.
type hope struct {
	*pod
	on string
}

// robs says whether p, put on a node, would take what others of no lower priority
// hope to have there.
func (w *world) robs(p *pod, n *node) bool {
	return w.withHopes(p, n) != nil
}

// withHopes is the verdict on a node with the pods that hope for it counted as if
// they were on it.
func (w *world) withHopes(p *pod, n *node) *verdict {
	if len(w.hopes) == 0 {
		return nil
	}
	var keys []string
	for key, h := range w.hopes {
		if h.on == n.name && key != p.key && h.priority >= p.priority && w.placed[key] == nil {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	slices.Sort(keys)
	var v *verdict
	w.trial(p, func() {
		for _, key := range keys {
			w.place(w.hopes[key].pod, n.name, true)
		}
		v = w.boardOf(p.class).verdict(n.slot)
		for _, key := range keys {
			w.remove(key)
		}
	})
	return v
}

// trial runs something that changes the world and takes it all back, and has only
// p's board hear of it.
func (w *world) trial(p *pod, f func()) {
	w.boardOf(p.class)
	dropped, mark := w.logged, w.changes()
	f()
	w.boardOf(p.class)
	if w.logged == dropped {
		w.log = w.log[:mark-w.logged]
		p.board.seen = mark
	}
}

// preemption is a node and the pods that would have to leave it.
type preemption struct {
	node       *node
	victims    []*placed
	violations int // of disruption budgets
}

// objects of the victims.
func (c *preemption) objects() []*corev1.Pod {
	var all []*corev1.Pod
	for _, v := range c.victims {
		all = append(all, v.obj)
	}
	return all
}

// preempt looks for nodes that p would fit on if pods of lower priority went. why
// says, in upstream's words, why there are none; eligible, that it was looked for.
func (w *world) preempt(ctx context.Context, p *pod, no *refusal, budgets []*policyv1.PodDisruptionBudget) (found []*preemption, why string, eligible bool) {
	if text := w.mayNot(p, no); text != "" {
		return nil, "preemption: " + text, false
	}
	reasons := make([]*verdict, len(w.nodes))
	var candidates []int
	for i := range w.nodes {
		reasons[i] = saidUseless
		if no.whole == nil && (no.verdicts[i] == nil || !no.verdicts[i].final) {
			reasons[i] = saidNoVictims
			candidates = append(candidates, i)
		}
	}
	if len(candidates) == 0 || w.lowestPriority() >= p.priority {
		return nil, nobody(reasons), true
	}
	// as upstream: in a large cluster the best of a tenth of the nodes will do
	o := p.options
	enough := max(o.victimLeast, len(candidates)*o.victimPercent/100)
	from, kind := int(mix(w.seed, p.key)%uint64(len(candidates))), false
	w.trial(p, func() {
		for i := range candidates {
			at := candidates[(from+i)%len(candidates)]
			c, why := w.victims(ctx, p, w.nodes[at], budgets)
			if c == nil {
				reasons[at] = why
				continue
			}
			found, kind = append(found, c), kind || c.violations == 0
			if kind && len(found) >= enough {
				return
			}
		}
	})
	return found, nobody(reasons), true
}

// least of what may be done: first fewest broken disruption budgets, then the
// lowest top priority, the smallest sum of priorities, the fewest pods, the
// youngest ones.
func least(all []*preemption) (best *preemption) {
	for _, c := range all {
		if best == nil || better(c, best) {
			best = c
		}
	}
	return best
}

func (w *world) lowestPriority() int32 {
	lowest := int32(math.MaxInt32)
	for v := range w.priorities {
		lowest = min(lowest, v)
	}
	return lowest
}

// mayNot says why a pod may not preempt others, "" = it may.
func (w *world) mayNot(p *pod, no *refusal) string {
	if p.obj.Spec.PreemptionPolicy != nil && *p.obj.Spec.PreemptionPolicy == corev1.PreemptNever {
		return "not eligible due to preemptionPolicy=Never."
	}
	h := w.hopes[p.key]
	if h == nil {
		return ""
	}
	n := w.byName[h.on]
	if n == nil || n.obj == nil || no.whole != nil {
		return ""
	}
	if at := slices.Index(w.nodes, n); at >= 0 && no.verdicts[at] != nil && no.verdicts[at].final {
		return ""
	}
	for _, pl := range n.pods {
		if pl.priority < p.priority && leaving(pl.obj) {
			return "not eligible due to a terminating pod on the nominated node."
		}
	}
	return ""
}

// leaving: the pod was preempted, and is on its way out.
func leaving(p *corev1.Pod) bool {
	if p.DeletionTimestamp == nil {
		return false
	}
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonPreemptionByScheduler
	})
}

// victims on one node: everything of lower priority is taken off, then given
// back, the most important first, for as long as p still fits. Without any, it
// says why.
func (w *world) victims(ctx context.Context, p *pod, n *node, budgets []*policyv1.PodDisruptionBudget) (*preemption, *verdict) {
	var lower []*placed
	for _, pl := range n.pods {
		if pl.priority < p.priority {
			lower = append(lower, pl)
		}
	}
	if len(lower) == 0 {
		return nil, saidNoVictims
	}
	if p.need != nil { // others' going frees no devices: their claims go later
		if v, err := w.fitsDevices(ctx, p, n); v != nil || err != nil {
			return nil, v
		}
	}
	slices.SortFunc(lower, moreImportant)
	for _, pl := range lower {
		w.remove(pl.key)
	}
	gone := map[string]bool{}
	for _, pl := range lower {
		gone[pl.key] = true
	}
	defer func() {
		for _, pl := range lower {
			if gone[pl.key] {
				w.place(pl.pod, n.name, pl.assumed)
			}
		}
	}()
	fits := func() *verdict {
		if v := w.boardOf(p.class).verdict(n.slot); v != nil {
			return v
		}
		return w.withHopes(p, n)
	}
	if v := fits(); v != nil {
		return nil, v
	}
	broken := breaks(lower, budgets)
	out := &preemption{node: n}
	for _, violates := range []bool{true, false} {
		for i, pl := range lower {
			if broken[i] != violates {
				continue
			}
			w.place(pl.pod, n.name, pl.assumed)
			if fits() == nil {
				delete(gone, pl.key)
				continue
			}
			w.remove(pl.key)
			out.victims = append(out.victims, pl)
			if violates {
				out.violations++
			}
		}
	}
	if len(out.victims) == 0 {
		return nil, nil
	}
	slices.SortFunc(out.victims, moreImportant)
	return out, nil
}

func moreImportant(a, b *placed) int {
	if c := cmp.Compare(b.priority, a.priority); c != 0 {
		return c
	}
	if c := started(a.obj).Compare(started(b.obj)); c != 0 {
		return c
	}
	if c := a.obj.CreationTimestamp.Compare(b.obj.CreationTimestamp.Time); c != 0 {
		return c
	}
	return cmp.Compare(a.key, b.key)
}

// breaks says for each pod whether removing it, after those before it, would
// break a disruption budget.
func breaks(pods []*placed, budgets []*policyv1.PodDisruptionBudget) []bool {
	left := make([]int32, len(budgets))
	for i, b := range budgets {
		left[i] = b.Status.DisruptionsAllowed
	}
	out := make([]bool, len(pods))
	for i, pl := range pods {
		for j, b := range budgets {
			if b.Namespace != pl.obj.Namespace || len(pl.obj.Labels) == 0 {
				continue
			}
			sel, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
			if err != nil || sel.Empty() || !sel.Matches(labels.Set(pl.obj.Labels)) {
				continue
			}
			if _, known := b.Status.DisruptedPods[pl.obj.Name]; known {
				continue
			}
			if left[j]--; left[j] < 0 {
				out[i] = true
			}
		}
	}
	return out
}

func better(a, b *preemption) bool {
	if a.violations != b.violations {
		return a.violations < b.violations
	}
	if x, y := a.victims[0].priority, b.victims[0].priority; x != y {
		return x < y
	}
	if x, y := prioritySum(a.victims), prioritySum(b.victims); x != y {
		return x < y
	}
	if len(a.victims) != len(b.victims) {
		return len(a.victims) < len(b.victims)
	}
	return earliest(a.victims).After(earliest(b.victims))
}

func prioritySum(list []*placed) (sum int64) {
	for _, pl := range list {
		sum += int64(pl.priority) + math.MaxInt32 + 1
	}
	return sum
}

// earliest start among the victims of the highest priority.
func earliest(list []*placed) time.Time {
	at := started(list[0].obj)
	for _, pl := range list {
		if t := started(pl.obj); pl.priority == list[0].priority && t.Before(at) {
			at = t
		}
	}
	return at
}
