package replicaset

import (
	"errors"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

var at = time.Unix(100_000, 0) // now

// sample pods: so many ready for an hour, ready for five seconds, not ready, ended and
// on their way out.
func sample(ready, fresh, unready, ended, leaving int) (all []*corev1.Pod) {
	add := func(n int, change func(*corev1.Pod)) {
		for range n {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(len(all)), Labels: map[string]string{"app": "a"}}, Spec: corev1.PodSpec{NodeName: "n"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
			change(p)
			all = append(all, p)
		}
	}
	since := func(d time.Duration) []corev1.PodCondition {
		return []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(at.Add(-d))}}
	}
	add(ready, func(p *corev1.Pod) { p.Status.Conditions = since(time.Hour) })
	add(fresh, func(p *corev1.Pod) { p.Status.Conditions = since(5 * time.Second) })
	add(unready, func(*corev1.Pod) {})
	add(ended, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
	add(leaving, func(p *corev1.Pod) { p.DeletionTimestamp = ptr.To(metav1.NewTime(at)) })
	return all
}

func TestDecide(t *testing.T) {
	for what, c := range map[string]struct {
		want    int32
		pods    []*corev1.Pod
		deleted bool
		create  int
		remove  []string // names, that go first
	}{
		"as many as wanted":             {3, sample(3, 0, 0, 2, 2), false, 0, nil},
		"too few":                       {5, sample(3, 0, 0, 2, 2), false, 2, nil},
		"far too few":                   {5000, nil, false, burst, nil},
		"too many: those not ready":     {2, sample(2, 1, 2, 0, 0), false, 0, []string{"3", "4", "2"}},
		"none wanted":                   {0, sample(2, 0, 0, 1, 0), false, 0, []string{"0", "1"}},
		"far too many":                  {0, sample(burst+5, 0, 0, 0, 0), false, 0, make([]string, burst)},
		"deleted: the collector cleans": {5, sample(1, 0, 0, 0, 0), true, 0, nil},
	} {
		rs := &appsv1.ReplicaSet{Spec: appsv1.ReplicaSetSpec{Replicas: &c.want}}
		if c.deleted {
			rs.DeletionTimestamp = ptr.To(metav1.NewTime(at))
		}
		p := decide(rs, c.pods, c.pods, at)
		if p.create != c.create || len(p.delete) != len(c.remove) {
			t.Errorf("%s: creates %d, deletes %d", what, p.create, len(p.delete))
			continue
		}
		for i, name := range c.remove {
			if name != "" && p.delete[i].Name != name {
				t.Errorf("%s: deletes %s as number %d, not %s", what, p.delete[i].Name, i, name)
			}
		}
	}
}

func TestStatus(t *testing.T) {
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Generation: 7}, Spec: appsv1.ReplicaSetSpec{
		MinReadySeconds: 30, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "a"}}},
	}}
	pods := sample(2, 3, 1, 4, 5)
	pods[0].Labels["app"] = "b"
	st, again := status(rs, pods, plan{}, nil, at)
	if st.Replicas != 6 || st.FullyLabeledReplicas != 5 || st.ReadyReplicas != 5 || st.AvailableReplicas != 2 || *st.TerminatingReplicas != 5 || st.ObservedGeneration != 7 || len(st.Conditions) > 0 {
		t.Errorf("%+v", st)
	}
	if again != 25*time.Second {
		t.Errorf("the next becomes available in %v", again)
	}
	failed, _ := status(rs, nil, plan{create: 1}, errors.New("no room"), at)
	if len(failed.Conditions) != 1 || failed.Conditions[0].Reason != "FailedCreate" || failed.Conditions[0].Message != "no room" {
		t.Errorf("%+v", failed.Conditions)
	}
	rs.Status = failed
	if again, _ := status(rs, nil, plan{create: 1}, errors.New("no room, 2nd attempt"), at.Add(time.Minute)); again.Conditions[0] != failed.Conditions[0] {
		t.Errorf("the same failure is written each time: %+v", again.Conditions)
	}
	if good, _ := status(rs, nil, plan{}, nil, at); len(good.Conditions) > 0 {
		t.Errorf("the failure is over: %+v", good.Conditions)
	}
}
