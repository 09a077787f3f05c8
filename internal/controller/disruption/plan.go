package disruption

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/proa-dev/proa/internal/controller/owned"
)

const (
	// deletionTimeout is how long an eviction that was allowed may take until the
	// pod is deleted; after that it counts again.
	deletionTimeout = 2 * time.Minute
	// staleTimeout is how long a pod may be said to be disrupted without being deleted.
	staleTimeout = 2 * time.Minute
)

// verdict about a budget.
type verdict struct {
	status   policyv1.PodDisruptionBudgetStatus
	again    time.Duration
	overstay []*corev1.Pod // were to be evicted, and are still there
}

// percentual says whether the budget depends on how many pods there should be.
func percentual(b *policyv1.PodDisruptionBudget) bool {
	return b.Spec.MaxUnavailable != nil || b.Spec.MinAvailable != nil && b.Spec.MinAvailable.Type == intstr.String
}

// judge a budget by its pods. expected is how many there should be, as their
// controllers' scales say; it counts only if the budget is percentual.
func judge(b *policyv1.PodDisruptionBudget, pods []*corev1.Pod, expected int32, now time.Time) (verdict, error) {
	v := verdict{status: policyv1.PodDisruptionBudgetStatus{ObservedGeneration: b.Generation, ExpectedPods: expected}}
	st := &v.status
	switch {
	case b.Spec.MaxUnavailable != nil:
		n, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MaxUnavailable, int(expected), true)
		if err != nil {
			return v, err
		}
		st.DesiredHealthy = max(0, expected-int32(n))
	case b.Spec.MinAvailable != nil && b.Spec.MinAvailable.Type == intstr.String:
		n, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MinAvailable, int(expected), true)
		if err != nil {
			return v, err
		}
		st.DesiredHealthy = int32(n)
	case b.Spec.MinAvailable != nil:
		st.DesiredHealthy, st.ExpectedPods = b.Spec.MinAvailable.IntVal, int32(len(pods))
	}
	for _, p := range pods {
		if p.DeletionTimestamp != nil {
			continue
		}
		if at, evicted := b.Status.DisruptedPods[p.Name]; evicted {
			if left := at.Add(deletionTimeout).Sub(now); left > 0 {
				if st.DisruptedPods == nil {
					st.DisruptedPods = map[string]metav1.Time{}
				}
				st.DisruptedPods[p.Name] = at
				if v.again == 0 || left < v.again {
					v.again = left
				}
				continue
			}
			v.overstay = append(v.overstay, p)
		}
		if owned.Ready(p) {
			st.CurrentHealthy++
		}
	}
	if st.ExpectedPods > 0 {
		st.DisruptionsAllowed = max(0, st.CurrentHealthy-st.DesiredHealthy)
	}
	st.Conditions = append(st.Conditions, b.Status.Conditions...)
	c := metav1.Condition{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionTrue, Reason: policyv1.SufficientPodsReason, ObservedGeneration: b.Generation, LastTransitionTime: metav1.NewTime(now)}
	if st.DisruptionsAllowed == 0 {
		c.Status, c.Reason = metav1.ConditionFalse, policyv1.InsufficientPodsReason
	}
	apimeta.SetStatusCondition(&st.Conditions, c)
	return v, nil
}

// failed is the status when a budget cannot be judged: nothing may be disrupted.
func failed(b *policyv1.PodDisruptionBudget, err error, now time.Time) policyv1.PodDisruptionBudgetStatus {
	st := *b.Status.DeepCopy()
	st.DisruptionsAllowed = 0
	apimeta.SetStatusCondition(&st.Conditions, metav1.Condition{
		Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason, Message: err.Error(),
		ObservedGeneration: st.ObservedGeneration, LastTransitionTime: metav1.NewTime(now),
	})
	return st
}

// stale says whether a pod is said to be disrupted and is not, and in how long
// that is to be taken back.
func stale(p *corev1.Pod, now time.Time) (in time.Duration, ok bool) {
	if p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return 0, false
	}
	c := owned.Condition(p, corev1.DisruptionTarget)
	if c == nil || c.Status != corev1.ConditionTrue || c.Reason == corev1.PodReasonTerminationByKubelet {
		return 0, false
	}
	return max(0, c.LastTransitionTime.Add(staleTimeout).Sub(now)), true
}
