package deployment

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// count the replicas of all sets.
func (w *parts) count() appsv1.DeploymentStatus {
	st := appsv1.DeploymentStatus{ObservedGeneration: w.d.Generation, CollisionCount: w.d.Status.CollisionCount}
	var terminating int32
	known := true
	for _, rs := range w.sets {
		st.Replicas += rs.Status.Replicas
		st.ReadyReplicas += rs.Status.ReadyReplicas
		st.AvailableReplicas += rs.Status.AvailableReplicas
		if rs.Status.TerminatingReplicas == nil {
			known = false
		} else {
			terminating += *rs.Status.TerminatingReplicas
		}
	}
	if known {
		st.TerminatingReplicas = &terminating
	}
	if w.new != nil {
		st.UpdatedReplicas = w.new.Status.Replicas
	}
	st.UnavailableReplicas = max(0, total(w.sets)-st.AvailableReplicas)
	st.Conditions = append(st.Conditions, w.d.Status.Conditions...)
	return st
}

// finish works out the status, as the sets are before the plan is carried out.
func (w *parts) finish() {
	st := w.count()
	if st.AvailableReplicas >= *w.d.Spec.Replicas-unavailable(w.d) {
		setCondition(&st, appsv1.DeploymentAvailable, corev1.ConditionTrue, "MinimumReplicasAvailable", "Deployment has minimum availability.", w.now)
	} else {
		setCondition(&st, appsv1.DeploymentAvailable, corev1.ConditionFalse, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.", w.now)
	}
	if !w.d.Spec.Paused && w.d.DeletionTimestamp == nil {
		w.progress(&st)
		w.failure(&st)
	}
	w.p.status = st
}

// progress keeps the Progressing condition: complete, moving, or stuck for longer
// than the deadline allows.
func (w *parts) progress(st *appsv1.DeploymentStatus) {
	if !hasDeadline(w.d) {
		dropCondition(st, appsv1.DeploymentProgressing)
		return
	}
	have := condition(st, appsv1.DeploymentProgressing)
	if have != nil && have.Reason == "NewReplicaSetAvailable" && st.Replicas == st.UpdatedReplicas && w.p.create == nil {
		return
	}
	what := fmt.Sprintf("Deployment %q", w.d.Name)
	if w.new != nil {
		what = fmt.Sprintf("ReplicaSet %q", w.new.Name)
	}
	before := &w.d.Status
	want := *w.d.Spec.Replicas
	deadline := time.Duration(*w.d.Spec.ProgressDeadlineSeconds) * time.Second
	switch {
	case w.p.create != nil:
		setCondition(st, appsv1.DeploymentProgressing, corev1.ConditionTrue, "NewReplicaSetCreated", fmt.Sprintf("Created new replica set %q", w.p.create.Name), w.now)
	case st.UpdatedReplicas == want && st.Replicas == want && st.AvailableReplicas == want:
		setCondition(st, appsv1.DeploymentProgressing, corev1.ConditionTrue, "NewReplicaSetAvailable", what+" has successfully progressed.", w.now)
	case st.UpdatedReplicas > before.UpdatedReplicas || st.Replicas-st.UpdatedReplicas < before.Replicas-before.UpdatedReplicas ||
		st.ReadyReplicas > before.ReadyReplicas || st.AvailableReplicas > before.AvailableReplicas:
		moved(st, what+" is progressing.", w.now)
	case have != nil && have.Reason != "NewReplicaSetAvailable" &&
		(have.Reason == "ProgressDeadlineExceeded" || have.LastUpdateTime.Add(deadline).Before(w.now)):
		setCondition(st, appsv1.DeploymentProgressing, corev1.ConditionFalse, "ProgressDeadlineExceeded", what+" has timed out progressing.", w.now)
	}
	if c := condition(st, appsv1.DeploymentProgressing); c != nil && c.Reason != "NewReplicaSetAvailable" && c.Reason != "ProgressDeadlineExceeded" {
		w.p.again = max(c.LastUpdateTime.Add(deadline).Sub(w.now), 0) + time.Second
	}
}

// moved notes progress: the time of the last update moves even when nothing else
// in the condition does, because the deadline counts from it.
func moved(st *appsv1.DeploymentStatus, message string, now time.Time) {
	have := condition(st, appsv1.DeploymentProgressing)
	var kept *appsv1.DeploymentCondition
	if have != nil && have.Status == corev1.ConditionTrue {
		c := *have
		kept = &c
	}
	dropCondition(st, appsv1.DeploymentProgressing)
	setCondition(st, appsv1.DeploymentProgressing, corev1.ConditionTrue, "ReplicaSetUpdated", message, now)
	if kept != nil {
		condition(st, appsv1.DeploymentProgressing).LastTransitionTime = kept.LastTransitionTime
	}
}

// failure passes on what keeps a set from making its pods.
func (w *parts) failure(st *appsv1.DeploymentStatus) {
	for _, rs := range append([]*appsv1.ReplicaSet{w.new}, w.old...) {
		if rs == nil {
			continue
		}
		for _, c := range rs.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				setCondition(st, appsv1.DeploymentReplicaFailure, c.Status, c.Reason, c.Message, w.now)
				return
			}
		}
	}
	dropCondition(st, appsv1.DeploymentReplicaFailure)
}

func hasDeadline(d *appsv1.Deployment) bool {
	return d.Spec.ProgressDeadlineSeconds != nil && *d.Spec.ProgressDeadlineSeconds != 1<<31-1
}

// pauseCondition notes that nothing is expected of a paused Deployment, and when
// it was resumed.
func pauseCondition(d *appsv1.Deployment, now time.Time) {
	if !hasDeadline(d) {
		return
	}
	have := condition(&d.Status, appsv1.DeploymentProgressing)
	if have != nil && have.Reason == "ProgressDeadlineExceeded" {
		return
	}
	paused := have != nil && have.Reason == "DeploymentPaused"
	switch {
	case d.Spec.Paused && !paused:
		setCondition(&d.Status, appsv1.DeploymentProgressing, corev1.ConditionUnknown, "DeploymentPaused", "Deployment is paused", now)
	case !d.Spec.Paused && paused:
		setCondition(&d.Status, appsv1.DeploymentProgressing, corev1.ConditionUnknown, "DeploymentResumed", "Deployment is resumed", now)
	}
}
