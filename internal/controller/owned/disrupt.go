package owned

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// Disrupt deletes a pod that must leave, with its grace, after its condition
// DisruptionTarget says why. No error when it is gone already; after a conflict look
// at it again.
func Disrupt(ctx context.Context, c client.Client[*corev1.Pod], p *corev1.Pod, reason, message string, now time.Time) error {
	out := p.DeepCopy()
	SetDisrupted(out, reason, message, now)
	if _, err := c.UpdateStatus(ctx, out); err != nil {
		return loop.IgnoreNotFound(err)
	}
	return loop.IgnoreNotFound(c.Delete(ctx, p.Namespace, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}}))
}

// SetDisrupted sets the condition DisruptionTarget of a pod.
func SetDisrupted(p *corev1.Pod, reason, message string, now time.Time) {
	p.Status.Conditions = append(slices.DeleteFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.DisruptionTarget }), corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, Message: message,
		LastTransitionTime: metav1.NewTime(now), ObservedGeneration: p.Generation,
	})
}
