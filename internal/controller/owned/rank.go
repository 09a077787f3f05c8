package owned

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Rank puts the pods that should go first, first: not yet on a node, not
// running, not ready, cheaper by annotation, on a fuller node, ready for less
// time, more restarts, younger (KEP-2255, KEP-2185).
func Rank(pods, siblings []*corev1.Pod, now time.Time) {
	onNode := map[string]int{}
	for _, p := range siblings {
		if Active(p) && p.Spec.NodeName != "" {
			onNode[p.Spec.NodeName]++
		}
	}
	slices.SortStableFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(
			falseFirst(a.Spec.NodeName != "", b.Spec.NodeName != ""),
			cmp.Compare(phases[a.Status.Phase], phases[b.Status.Phase]),
			falseFirst(Ready(a), Ready(b)),
			cmp.Compare(deletionCost(a), deletionCost(b)),
			cmp.Compare(onNode[b.Spec.NodeName], onNode[a.Spec.NodeName]),
			cmp.Compare(age(readySince(a), now), age(readySince(b), now)),
			cmp.Compare(restarts(b), restarts(a)),
			cmp.Compare(age(a.CreationTimestamp, now), age(b.CreationTimestamp, now)),
		)
	})
}

var phases = map[corev1.PodPhase]int{corev1.PodPending: 0, corev1.PodUnknown: 1, corev1.PodRunning: 2}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case !a:
		return -1
	}
	return 1
}

// age on a scale of powers of two, so that pods of about the same age are equals.
func age(at metav1.Time, now time.Time) int64 {
	if at.IsZero() {
		return -1
	}
	d := now.Sub(at.Time)
	if d < time.Nanosecond {
		return 0
	}
	return int64(math.Log2(float64(d)))
}

func readySince(p *corev1.Pod) metav1.Time {
	if c := Condition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return c.LastTransitionTime
	}
	return metav1.Time{}
}

func deletionCost(p *corev1.Pod) int64 {
	v, err := strconv.ParseInt(p.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return v
}

// restarts of the container that restarted most; sidecars count like containers.
func restarts(p *corev1.Pod) int32 {
	var most int32
	for i := range p.Status.ContainerStatuses {
		most = max(most, p.Status.ContainerStatuses[i].RestartCount)
	}
	return most
}
