package scheduler

import (
	"cmp"
	"math"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// hope is a pod for which others were told to go: it has the room on that node
// before pods of lower priority do.
type hope struct {
	*pod
	on      string
	victims map[types.UID]bool // that were told to go
}

// robs says whether p, put on a node, would take what others of no lower priority
// hope to have there.
func (w *world) robs(p *pod, n *node) bool {
	v := w.withHopes(p, n)
	return !v.ok()
}

// withHopes is the verdict on a node with the pods that hope for it counted as if
// they were on it.
func (w *world) withHopes(p *pod, n *node) verdict {
	if len(w.hopes) == 0 {
		return yes
	}
	var keys []string
	for key, h := range w.hopes {
		if h.on == n.name && key != p.key && h.priority >= p.priority && w.placed[key] == nil {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return yes
	}
	slices.Sort(keys)
	var v verdict
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

// preempt looks for the node on which the least has to go for p to fit: first
// fewest broken disruption budgets, then the lowest top priority, the smallest
// sum of priorities, the fewest pods, the youngest ones. It returns nil when no pod
// of lower priority is worth removing, and why, in upstream's words.
func (w *world) preempt(p *pod, no *refusal, budgets []*policyv1.PodDisruptionBudget) (best *preemption, why string, eligible bool) {
	if text := w.mayNot(p); text != "" {
		return nil, "preemption: " + text, false
	}
	if p.options.Disabled["DefaultPreemption"] {
		return nil, "", false
	}
	reasons := make([]string, len(w.nodes))
	for i := range reasons {
		reasons[i] = "Preemption is not helpful for scheduling"
	}
	if !no.whole.ok() {
		return nil, nobody(reasons), true
	}
	var candidates []int
	for i := range w.nodes {
		if !no.verdicts[i].final {
			reasons[i] = "No preemption victims found for incoming pod"
			candidates = append(candidates, i)
		}
	}
	if len(candidates) == 0 {
		return nil, nobody(reasons), true
	}
	// as upstream: in a large cluster the best of a tenth of the nodes will do
	enough := max(100, len(w.nodes)/10)
	from, found := int(mix(w.seed, p.key)%uint64(len(candidates))), 0
	lowest := w.lowestPriority()
	if lowest >= p.priority {
		return nil, nobody(reasons), true
	}
	w.trial(p, func() {
		for i := range candidates {
			n := w.nodes[candidates[(from+i)%len(candidates)]]
			c := w.victims(p, n, budgets)
			if c == nil {
				continue
			}
			if best == nil || better(c, best) {
				best = c
			}
			if found++; found >= enough && best.violations == 0 {
				return
			}
		}
	})
	return best, nobody(reasons), true
}

func (w *world) lowestPriority() int32 {
	lowest := int32(math.MaxInt32)
	for _, pl := range w.placed {
		lowest = min(lowest, pl.priority)
	}
	return lowest
}

// mayNot says why a pod may not preempt others, "" = it may.
func (w *world) mayNot(p *pod) string {
	if p.obj.Spec.PreemptionPolicy != nil && *p.obj.Spec.PreemptionPolicy == corev1.PreemptNever {
		return "not eligible due to preemptionPolicy=Never."
	}
	h := w.hopes[p.key]
	if h == nil {
		return ""
	}
	n := w.byName[h.on]
	if n == nil || n.obj == nil {
		return ""
	}
	for _, pl := range n.pods {
		if pl.priority < p.priority && (h.victims[pl.obj.UID] || leaving(pl.obj)) {
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
// back, the most important first, for as long as p still fits.
func (w *world) victims(p *pod, n *node, budgets []*policyv1.PodDisruptionBudget) *preemption {
	var lower []*placed
	for _, pl := range n.pods {
		if pl.priority < p.priority {
			lower = append(lower, pl)
		}
	}
	if len(lower) == 0 || !enoughWithout(p, n, lower) {
		return nil
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
	fits := func() bool {
		v := w.boardOf(p.class).verdict(n.slot)
		return v.ok() && !w.robs(p, n)
	}
	if !fits() {
		return nil
	}
	broken := breaks(lower, budgets)
	out := &preemption{node: n}
	for _, violates := range []bool{true, false} {
		for i, pl := range lower {
			if broken[i] != violates {
				continue
			}
			w.place(pl.pod, n.name, pl.assumed)
			if fits() {
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
		return nil
	}
	slices.SortFunc(out.victims, moreImportant)
	return out
}

// enoughWithout: with all the lower pods gone there would be room; a quick look
// before the thorough one.
func enoughWithout(p *pod, n *node, lower []*placed) bool {
	cpu, memory, count := n.alloc.cpu-n.used.cpu, n.alloc.memory-n.used.memory, n.alloc.pods-n.used.pods
	for _, pl := range lower {
		cpu, memory, count = cpu+pl.requests.cpu, memory+pl.requests.memory, count+1
	}
	return cpu >= p.requests.cpu && memory >= p.requests.memory && count >= 1
}

func moreImportant(a, b *placed) int {
	if c := cmp.Compare(b.priority, a.priority); c != 0 {
		return c
	}
	if c := startOf(a.obj).Compare(startOf(b.obj)); c != 0 {
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
	at := startOf(list[0].obj)
	for _, pl := range list {
		if t := startOf(pl.obj); pl.priority == list[0].priority && t.Before(at) {
			at = t
		}
	}
	return at
}
