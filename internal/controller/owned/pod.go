package owned

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Active pods are those that have not ended and are not being deleted.
func Active(p *corev1.Pod) bool { return p.DeletionTimestamp == nil && !Ended(p) }

// Ended says that nothing of a pod runs any more, or ever will.
func Ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// Ready says whether a pod's condition Ready is true.
func Ready(p *corev1.Pod) bool {
	c := Condition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// Condition of a pod, nil if it has none of this type.
func Condition(p *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == t {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// Available says whether a pod has been ready for so many seconds and, if not
// yet but ready, how long it will take.
func Available(p *corev1.Pod, seconds int32, now time.Time) (bool, time.Duration) {
	c := Condition(p, corev1.PodReady)
	if c == nil || c.Status != corev1.ConditionTrue {
		return false, 0
	}
	if seconds == 0 {
		return true, 0
	}
	if c.LastTransitionTime.IsZero() {
		return false, 0
	}
	left := c.LastTransitionTime.Add(time.Duration(seconds) * time.Second).Sub(now)
	return left <= 0, max(left, 0)
}

// FromTemplate makes a pod of a controller's template. The name is made by the
// API server from prefix.
func FromTemplate(t *corev1.PodTemplateSpec, prefix, namespace string, owner metav1.OwnerReference) *corev1.Pod {
	t = t.DeepCopy()
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: NamePrefix(prefix), Namespace: namespace, Labels: t.Labels, Annotations: t.Annotations,
			Finalizers: t.Finalizers, OwnerReferences: []metav1.OwnerReference{owner},
		},
		Spec: t.Spec,
	}
}

// NamePrefix is what generated names of a controller's pods begin with: its name
// and a dash, if that makes a good name.
func NamePrefix(controller string) string {
	if len(controller)+1 > 253-5 {
		return controller[:253-5]
	}
	return controller + "-"
}
