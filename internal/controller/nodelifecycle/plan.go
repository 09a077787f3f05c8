package nodelifecycle

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// grace is how long a node may say nothing before it counts as unreachable.
	grace = 50 * time.Second
	// startupGrace is the same for a node that has not said anything yet.
	startupGrace = 60 * time.Second
)

// nodePlan is what is to be written about a node.
type nodePlan struct {
	conditions []corev1.NodeCondition // nil = as they are
	taints     []corev1.Taint         // wanted, all of them; compare with the node's
	ready      corev1.ConditionStatus
	next       time.Time // when its silence becomes too long
}

// judge a node by its conditions and by when its lease was last renewed, or seen
// to change. evict says whether pods are to be driven off it now if it is not
// ready.
func judge(n *corev1.Node, heard time.Time, evict bool, now time.Time) nodePlan {
	p := nodePlan{ready: corev1.ConditionUnknown}
	limit := grace
	ready := condition(n, corev1.NodeReady)
	if ready == nil {
		limit = startupGrace
	}
	p.next = heard.Add(limit)
	if silent := !now.Before(p.next); silent {
		p.conditions = silence(n, now)
	} else if ready != nil {
		p.ready = ready.Status
	}
	p.taints = taints(n, &p, evict, now)
	return p
}

// silence makes the conditions that only the kubelet can know unknown. nil when
// they are already.
func silence(n *corev1.Node, now time.Time) []corev1.NodeCondition {
	out := slices.Clone(n.Status.Conditions)
	changed := false
	for _, t := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		i := slices.IndexFunc(out, func(c corev1.NodeCondition) bool { return c.Type == t })
		if i < 0 {
			out = append(out, corev1.NodeCondition{
				Type: t, Status: corev1.ConditionUnknown, Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status.",
				LastHeartbeatTime: n.CreationTimestamp, LastTransitionTime: metav1.NewTime(now),
			})
			changed = true
		} else if out[i].Status != corev1.ConditionUnknown {
			out[i].Status, out[i].Reason, out[i].Message = corev1.ConditionUnknown, "NodeStatusUnknown", "Kubelet stopped posting node status."
			out[i].LastTransitionTime = metav1.NewTime(now)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return out
}

// pressure conditions keep new pods away while they are true.
var pressure = []struct {
	condition corev1.NodeConditionType
	taint     string
}{
	{corev1.NodeMemoryPressure, corev1.TaintNodeMemoryPressure},
	{corev1.NodeDiskPressure, corev1.TaintNodeDiskPressure},
	{corev1.NodePIDPressure, corev1.TaintNodePIDPressure},
	{corev1.NodeNetworkUnavailable, corev1.TaintNodeNetworkUnavailable},
}

// taints that a node should have: those that others gave it, and ours.
func taints(n *corev1.Node, p *nodePlan, evict bool, now time.Time) []corev1.Taint {
	var out []corev1.Taint
	want := map[corev1.Taint]bool{} // without time
	add := func(key string, effect corev1.TaintEffect) { want[corev1.Taint{Key: key, Effect: effect}] = true }
	switch p.ready {
	case corev1.ConditionFalse:
		add(corev1.TaintNodeNotReady, corev1.TaintEffectNoSchedule)
	case corev1.ConditionUnknown:
		add(unreadyKey(n, p), corev1.TaintEffectNoSchedule)
	}
	if p.ready != corev1.ConditionTrue {
		key := corev1.TaintNodeNotReady
		if p.ready == corev1.ConditionUnknown {
			key = unreadyKey(n, p)
		}
		if evict || has(n, key, corev1.TaintEffectNoExecute) {
			add(key, corev1.TaintEffectNoExecute)
		}
	}
	if p.conditions == nil { // of a silent node nothing is known
		for _, x := range pressure {
			if c := condition(n, x.condition); c != nil && c.Status == corev1.ConditionTrue {
				add(x.taint, corev1.TaintEffectNoSchedule)
			}
		}
	}
	if n.Spec.Unschedulable {
		add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	}
	for _, t := range n.Spec.Taints {
		id := corev1.Taint{Key: t.Key, Effect: t.Effect}
		if !ours[t.Key] || t.Effect == corev1.TaintEffectPreferNoSchedule {
			out = append(out, t)
		} else if want[id] {
			out = append(out, t)
			delete(want, id)
		}
	}
	for _, key := range order {
		for _, effect := range []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute} {
			if want[corev1.Taint{Key: key, Effect: effect}] {
				at := metav1.NewTime(now)
				out = append(out, corev1.Taint{Key: key, Effect: effect, TimeAdded: &at})
			}
		}
	}
	return out
}

// unreadyKey: a node of which nothing was ever heard is not ready yet; one that
// fell silent is unreachable.
func unreadyKey(n *corev1.Node, p *nodePlan) string {
	if p.conditions == nil && condition(n, corev1.NodeReady) == nil {
		return corev1.TaintNodeNotReady
	}
	return corev1.TaintNodeUnreachable
}

var order = []string{
	corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeMemoryPressure, corev1.TaintNodeDiskPressure,
	corev1.TaintNodePIDPressure, corev1.TaintNodeNetworkUnavailable, corev1.TaintNodeUnschedulable,
}

var ours = func() map[string]bool {
	m := map[string]bool{}
	for _, k := range order {
		m[k] = true
	}
	return m
}()

func has(n *corev1.Node, key string, effect corev1.TaintEffect) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == key && t.Effect == effect })
}

func condition(n *corev1.Node, t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == t {
			return &n.Status.Conditions[i]
		}
	}
	return nil
}

// leave says when a pod has to leave a node because of taints that do not let it
// stay: never (ok false), or at a time that may have passed.
func leave(p *corev1.Pod, taints []corev1.Taint, now time.Time) (at time.Time, ok bool) {
	for i := range taints {
		t := &taints[i]
		if t.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		limit, tolerated := tolerated(p, t)
		if !tolerated {
			return now, true
		}
		if limit < 0 {
			continue
		}
		since := now
		if t.TimeAdded != nil {
			since = t.TimeAdded.Time
		}
		if end := since.Add(limit); !ok || end.Before(at) {
			at, ok = end, true
		}
	}
	return at, ok
}

// tolerated for how long: negative = for ever. Of several tolerations the one
// with the least time counts.
func tolerated(p *corev1.Pod, t *corev1.Taint) (limit time.Duration, ok bool) {
	limit = -1
	for i := range p.Spec.Tolerations {
		tol := &p.Spec.Tolerations[i]
		if tol.Effect != "" && tol.Effect != t.Effect || tol.Key != "" && tol.Key != t.Key {
			continue
		}
		if tol.Operator != corev1.TolerationOpExists && tol.Value != t.Value {
			continue
		}
		ok = true
		if tol.TolerationSeconds == nil {
			continue
		}
		if d := time.Duration(max(0, *tol.TolerationSeconds)) * time.Second; limit < 0 || d < limit {
			limit = d
		}
	}
	return limit, ok
}
