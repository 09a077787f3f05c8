package disruption

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

func TestJudge(t *testing.T) {
	now := time.Unix(1000, 0)
	least := func(v intstr.IntOrString) policyv1.PodDisruptionBudgetSpec {
		return policyv1.PodDisruptionBudgetSpec{MinAvailable: &v}
	}
	most := func(v intstr.IntOrString) policyv1.PodDisruptionBudgetSpec {
		return policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &v}
	}
	for _, c := range []struct {
		name                      string
		spec                      policyv1.PodDisruptionBudgetSpec
		ready, unready, evicted   int
		since                     time.Duration
		expected                  int32
		desired, healthy, allowed int32
		again                     time.Duration
	}{
		{"least of a number", least(intstr.FromInt32(2)), 3, 0, 0, 0, 0, 2, 3, 1, 0},
		{"least not reached", least(intstr.FromInt32(4)), 3, 0, 0, 0, 0, 4, 3, 0, 0},
		{"least in percent", least(intstr.FromString("50%")), 3, 0, 0, 0, 5, 3, 3, 0, 0},
		{"most of a number", most(intstr.FromInt32(1)), 3, 0, 0, 0, 3, 2, 3, 1, 0},
		{"most, one down", most(intstr.FromInt32(1)), 2, 1, 0, 0, 3, 2, 2, 0, 0},
		{"most in percent rounds up", most(intstr.FromString("34%")), 3, 0, 0, 0, 3, 1, 3, 2, 0},
		{"nothing expected", most(intstr.FromInt32(1)), 3, 0, 0, 0, 0, 0, 3, 0, 0},
		{"being evicted", least(intstr.FromInt32(1)), 2, 0, 1, time.Minute, 0, 1, 1, 0, time.Minute},
		{"was not evicted", least(intstr.FromInt32(1)), 2, 0, 1, 3 * time.Minute, 0, 1, 2, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &policyv1.PodDisruptionBudget{Spec: c.spec}
			var pods []*corev1.Pod
			for i := range c.ready + c.unready {
				p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i)}}
				if i < c.ready {
					p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
				}
				if i < c.evicted {
					b.Status.DisruptedPods = map[string]metav1.Time{p.Name: metav1.NewTime(now.Add(-c.since))}
				}
				pods = append(pods, p)
			}
			v, err := judge(b, pods, c.expected, now)
			if err != nil {
				t.Fatal(err)
			}
			st := v.status
			if st.DesiredHealthy != c.desired || st.CurrentHealthy != c.healthy || st.DisruptionsAllowed != c.allowed || v.again != c.again {
				t.Errorf("desired %d, healthy %d, allowed %d, again %v", st.DesiredHealthy, st.CurrentHealthy, st.DisruptionsAllowed, v.again)
			}
			want := metav1.ConditionFalse
			if c.allowed > 0 {
				want = metav1.ConditionTrue
			}
			if len(st.Conditions) != 1 || st.Conditions[0].Status != want {
				t.Errorf("conditions %v", st.Conditions)
			}
		})
	}
}

func TestStale(t *testing.T) {
	now := time.Unix(1000, 0)
	p := &corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Minute)),
	}}}}
	if in, ok := stale(p, now); !ok || in != time.Minute {
		t.Error(in, ok)
	}
	p.DeletionTimestamp = ptr.To(metav1.NewTime(now))
	if _, ok := stale(p, now); ok {
		t.Error("a pod that goes is no stale one")
	}
}
