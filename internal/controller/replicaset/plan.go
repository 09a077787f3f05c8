package replicaset

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/proa-dev/proa/internal/controller/owned"
)

// burst is how many pods one pass creates or deletes at the most.
const burst = 500

// plan is what one pass does about the number of pods.
type plan struct {
	create int
	delete []*corev1.Pod
}

// decide compares the pods that there are with those that are wanted. pods are
// all that the set owns; siblings all pods of sets with the same owner, which
// tell how full nodes are.
func decide(rs *appsv1.ReplicaSet, pods, siblings []*corev1.Pod, now time.Time) plan {
	if rs.DeletionTimestamp != nil {
		return plan{}
	}
	var active []*corev1.Pod
	for _, p := range pods {
		if owned.Active(p) {
			active = append(active, p)
		}
	}
	want := 1
	if rs.Spec.Replicas != nil {
		want = int(*rs.Spec.Replicas)
	}
	switch diff := len(active) - want; {
	case diff < 0:
		return plan{create: min(-diff, burst)}
	case diff > 0:
		if diff < len(active) {
			owned.Rank(active, siblings, now)
		}
		return plan{delete: active[:min(diff, burst)]}
	}
	return plan{}
}

// status is what the set's status should say. failure is what went wrong while
// creating or deleting, nil if nothing did.
func status(rs *appsv1.ReplicaSet, pods []*corev1.Pod, p plan, failure error, now time.Time) (s appsv1.ReplicaSetStatus, again time.Duration) {
	s = *rs.Status.DeepCopy()
	template := labels.Set(rs.Spec.Template.Labels).AsSelectorPreValidated()
	s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas = 0, 0, 0, 0
	var terminating int32
	for _, pod := range pods {
		if !owned.Active(pod) {
			if pod.DeletionTimestamp != nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
				terminating++
			}
			continue
		}
		s.Replicas++
		if template.Matches(labels.Set(pod.Labels)) {
			s.FullyLabeledReplicas++
		}
		if owned.Ready(pod) {
			s.ReadyReplicas++
		}
		ok, in := owned.Available(pod, rs.Spec.MinReadySeconds, now)
		if ok {
			s.AvailableReplicas++
		} else if in > 0 && (again == 0 || in < again) {
			again = in
		}
	}
	s.TerminatingReplicas = &terminating
	s.ObservedGeneration = rs.Generation
	s.Conditions = slices.DeleteFunc(s.Conditions, func(c appsv1.ReplicaSetCondition) bool { return c.Type == appsv1.ReplicaSetReplicaFailure })
	if failure != nil {
		reason := "FailedCreate"
		if len(p.delete) > 0 {
			reason = "FailedDelete"
		}
		c := appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: reason, Message: failure.Error(), LastTransitionTime: metav1.NewTime(now),
		}
		for _, have := range rs.Status.Conditions {
			if have.Type == c.Type && have.Reason == c.Reason {
				c.LastTransitionTime = have.LastTransitionTime
				c.Message = have.Message
			}
		}
		s.Conditions = append(s.Conditions, c)
	}
	return s, again
}
