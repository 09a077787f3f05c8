package nodelifecycle

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestJudge(t *testing.T) {
	now := time.Unix(10000, 0)
	const (
		notReady, unreachable = corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable
		schedule, execute     = ":NoSchedule", ":NoExecute"
	)
	for what, c := range map[string]struct {
		ready    corev1.ConditionStatus // "" = nothing was ever said
		pressure bool
		cordoned bool
		taints   []corev1.Taint
		silent   time.Duration
		evict    bool
		unknown  bool // conditions become so
		want     []string
	}{
		"ready":                        {ready: corev1.ConditionTrue},
		"ready again":                  {ready: corev1.ConditionTrue, taints: []corev1.Taint{{Key: notReady, Effect: "NoSchedule"}, {Key: unreachable, Effect: "NoExecute"}}},
		"not ready":                    {ready: corev1.ConditionFalse, want: []string{notReady + schedule}},
		"not ready, to be emptied":     {ready: corev1.ConditionFalse, evict: true, want: []string{notReady + execute, notReady + schedule}},
		"not ready, is being emptied":  {ready: corev1.ConditionFalse, taints: []corev1.Taint{{Key: notReady, Effect: "NoExecute"}}, want: []string{notReady + execute, notReady + schedule}},
		"never heard of":               {want: []string{notReady + schedule}},
		"never heard of for too long":  {silent: time.Minute, unknown: true, want: []string{unreachable + schedule}},
		"silent, not for too long":     {ready: corev1.ConditionTrue, silent: 49 * time.Second},
		"silent for too long":          {ready: corev1.ConditionTrue, silent: 50 * time.Second, unknown: true, want: []string{unreachable + schedule}},
		"was not ready, is silent now": {ready: corev1.ConditionFalse, silent: time.Minute, evict: true, unknown: true, taints: []corev1.Taint{{Key: notReady, Effect: "NoExecute"}}, want: []string{unreachable + execute, unreachable + schedule}},
		"under pressure":               {ready: corev1.ConditionTrue, pressure: true, want: []string{corev1.TaintNodeMemoryPressure + schedule}},
		"cordoned":                     {ready: corev1.ConditionTrue, cordoned: true, want: []string{corev1.TaintNodeUnschedulable + schedule}},
		"with somebody's taint":        {ready: corev1.ConditionTrue, taints: []corev1.Taint{{Key: "k", Value: "v", Effect: "NoExecute"}}, want: []string{"k" + execute}},
	} {
		n := &corev1.Node{Spec: corev1.NodeSpec{Unschedulable: c.cordoned, Taints: c.taints}}
		if c.ready != "" {
			n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeReady, Status: c.ready})
		}
		if c.pressure {
			n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionTrue})
		}
		p := judge(n, now.Add(-c.silent), c.evict, now)
		var got []string
		for _, x := range p.taints {
			got = append(got, x.Key+":"+string(x.Effect))
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) || (p.conditions != nil) != c.unknown {
			t.Errorf("%s: taints %v, conditions %v", what, got, p.conditions)
		}
		n.Spec.Taints = p.taints
		if p.conditions != nil {
			n.Status.Conditions = p.conditions
		}
		if q := judge(n, now.Add(-c.silent), c.evict, now); q.conditions != nil || !slices.Equal(q.taints, p.taints) {
			t.Errorf("%s: then again %+v", what, q)
		}
	}
}

func TestLeave(t *testing.T) {
	now := time.Unix(10000, 0)
	since := metav1.NewTime(now.Add(-time.Minute))
	taint := func(key string) corev1.Taint {
		return corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute, TimeAdded: &since}
	}
	for what, c := range map[string]struct {
		taints    []corev1.Taint
		tolerates []corev1.Toleration
		in        time.Duration
		leaves    bool
	}{
		"no taint":                     {nil, nil, 0, false},
		"of another effect":            {[]corev1.Taint{{Key: "a", Effect: corev1.TaintEffectNoSchedule}}, nil, 0, false},
		"not tolerated":                {[]corev1.Taint{taint("a")}, nil, 0, true},
		"tolerated for ever":           {[]corev1.Taint{taint("a")}, []corev1.Toleration{{Key: "a", Operator: corev1.TolerationOpExists}}, 0, false},
		"tolerated by another's value": {[]corev1.Taint{taint("a")}, []corev1.Toleration{{Key: "a", Value: "x"}}, 0, true},
		"for some time":                {[]corev1.Taint{taint("a")}, []corev1.Toleration{{Operator: corev1.TolerationOpExists, TolerationSeconds: ptr.To[int64](90)}}, 30 * time.Second, true},
		"the time is up":               {[]corev1.Taint{taint("a")}, []corev1.Toleration{{Operator: corev1.TolerationOpExists, TolerationSeconds: ptr.To[int64](10)}}, -50 * time.Second, true},
		"the shortest counts": {[]corev1.Taint{taint("a"), taint("b")}, []corev1.Toleration{
			{Key: "a", Operator: corev1.TolerationOpExists, TolerationSeconds: ptr.To[int64](90)}, {Key: "b", Operator: corev1.TolerationOpExists, TolerationSeconds: ptr.To[int64](70)},
		}, 10 * time.Second, true},
		"one of two is not tolerated": {[]corev1.Taint{taint("a"), taint("b")}, []corev1.Toleration{{Key: "a", Operator: corev1.TolerationOpExists}}, 0, true},
	} {
		at, ok := leave(&corev1.Pod{Spec: corev1.PodSpec{Tolerations: c.tolerates}}, c.taints, now)
		if ok != c.leaves || ok && at.Sub(now) != c.in {
			t.Errorf("%s: %v, in %v", what, ok, at.Sub(now))
		}
	}
}
