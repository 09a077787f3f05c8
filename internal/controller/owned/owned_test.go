package owned

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestRank: of each pair the first goes first.
func TestRank(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	ago := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }
	pod := func(change ...func(*corev1.Pod)) *corev1.Pod { // on a node, running, ready for an hour, without restarts
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(2 * time.Hour)}, Spec: corev1.PodSpec{NodeName: "n"},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: ago(time.Hour)}}},
		}
		for _, f := range change {
			f(p)
		}
		return p
	}
	cost := func(v string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.PodDeletionCost: v} }
	}
	on := func(node string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = node } }
	phase := func(x corev1.PodPhase) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Status.Phase = x } }
	unready := func(p *corev1.Pod) { p.Status.Conditions = nil }
	readyFor := func(d time.Duration) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Status.Conditions[0].LastTransitionTime = ago(d) }
	}
	restarts := func(n ...int32) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			for _, x := range n {
				p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{RestartCount: x})
			}
		}
	}
	born := func(d time.Duration) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.CreationTimestamp = ago(d) }
	}
	for what, c := range map[string]struct {
		first, second *corev1.Pod
		others        []*corev1.Pod
	}{
		"without a node before one that costs less": {pod(on("")), pod(cost("-100")), nil},
		"pending before not ready":                  {pod(phase(corev1.PodPending)), pod(unready), nil},
		"unknown before running":                    {pod(phase(corev1.PodUnknown)), pod(), nil},
		"not ready before cheaper":                  {pod(unready, cost("100")), pod(cost("1")), nil},
		"cheaper before one on a fuller node":       {pod(cost("-1")), pod(on("full")), []*corev1.Pod{pod(on("full")), pod(on("full"))}},
		"on a fuller node before ready for less":    {pod(on("full")), pod(readyFor(time.Second)), []*corev1.Pod{pod(on("full")), pod(on("full"))}},
		"ended pods fill no node":                   {pod(readyFor(time.Second)), pod(on("full")), []*corev1.Pod{pod(on("full"), phase(corev1.PodFailed))}},
		"ready for less before restarted more":      {pod(readyFor(time.Minute)), pod(restarts(9)), nil},
		"about the same time, restarted more":       {pod(readyFor(70*time.Minute), restarts(1, 3)), pod(restarts(2, 2)), nil},
		"restarted more before younger":             {pod(restarts(1)), pod(born(time.Second)), nil},
		"younger":                                   {pod(born(time.Minute)), pod(), nil},
		"a cost that is no number counts as none":   {pod(cost("-1")), pod(cost("-many")), nil},
		"a cost beyond 32 bits counts as none":      {pod(cost("-1")), pod(cost("-99999999999")), nil},
	} {
		for _, list := range [][]*corev1.Pod{{c.first, c.second}, {c.second, c.first}} {
			all := append(slices.Clone(list), c.others...)
			if Rank(list, all, now); list[0] != c.first {
				t.Errorf("%s: it is the other one", what)
			}
		}
	}
}

func TestUntolerated(t *testing.T) {
	taint := corev1.Taint{Key: "k", Value: "v", Effect: corev1.TaintEffectNoSchedule}
	for what, c := range map[string]struct {
		tolerates corev1.Toleration
		want      bool // it drives off
	}{
		"nothing":           {corev1.Toleration{Key: "other", Operator: corev1.TolerationOpExists}, true},
		"the value":         {corev1.Toleration{Key: "k", Value: "v"}, false},
		"another value":     {corev1.Toleration{Key: "k", Value: "w"}, true},
		"any value":         {corev1.Toleration{Key: "k", Operator: corev1.TolerationOpExists}, false},
		"everything":        {corev1.Toleration{Operator: corev1.TolerationOpExists}, false},
		"of another effect": {corev1.Toleration{Key: "k", Value: "v", Effect: corev1.TaintEffectNoExecute}, true},
	} {
		got := Untolerated([]corev1.Taint{taint}, []corev1.Toleration{c.tolerates}, corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute)
		if (got != nil) != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
	if got := Untolerated([]corev1.Taint{taint}, nil, corev1.TaintEffectNoExecute); got != nil {
		t.Errorf("of another effect: %v", got)
	}
}

func TestAvailable(t *testing.T) {
	now := time.Unix(1000, 0)
	for what, c := range map[string]struct {
		ready   corev1.ConditionStatus
		long    time.Duration
		seconds int32
		ok      bool
		in      time.Duration
	}{
		"at once":       {corev1.ConditionTrue, 0, 0, true, 0},
		"not ready":     {corev1.ConditionFalse, time.Hour, 0, false, 0},
		"not long yet":  {corev1.ConditionTrue, 4 * time.Second, 10, false, 6 * time.Second},
		"for just long": {corev1.ConditionTrue, 10 * time.Second, 10, true, 0},
	} {
		p := &corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: c.ready, LastTransitionTime: metav1.NewTime(now.Add(-c.long))}}}}
		if ok, in := Available(p, c.seconds, now); ok != c.ok || in != c.in {
			t.Errorf("%s: %v, in %v", what, ok, in)
		}
	}
}
