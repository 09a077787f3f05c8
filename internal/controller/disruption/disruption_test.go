package disruption_test

import (
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/controller/disruption"
	"github.com/proa-dev/proa/test/controllertest"
)

// TestConverges with faults: what may be disrupted follows the pods and the spec, and
// is put right when somebody else writes it.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Kubelet(nil)
	c.Run(disruption.New(c.Informers, controllertest.Log()))
	app := map[string]string{"app": "a"}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	set := controllertest.Create(c, &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"}, Spec: appsv1.ReplicaSetSpec{
		Replicas: ptr.To[int32](4), Selector: &metav1.LabelSelector{MatchLabels: app}, Template: template,
	}})
	pod := func(i int) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i), Namespace: "default", Labels: app, OwnerReferences: []metav1.OwnerReference{
			*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("ReplicaSet")),
		}}, Spec: template.Spec}
	}
	most := intstr.FromInt32(1)
	controllertest.Create(c, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b", Namespace: "default"}, Spec: policyv1.PodDisruptionBudgetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: app}, MaxUnavailable: &most,
	}})
	says := func(expected, desired, healthy, allowed int32) func() bool {
		return func() bool {
			b := controllertest.Get[*policyv1.PodDisruptionBudget](c, "default", "b")
			st := b.Status
			want := metav1.ConditionFalse
			if allowed > 0 {
				want = metav1.ConditionTrue
			}
			return st.ObservedGeneration == b.Generation && st.ExpectedPods == expected && st.DesiredHealthy == desired && st.CurrentHealthy == healthy &&
				st.DisruptionsAllowed == allowed && len(st.Conditions) == 1 && st.Conditions[0].Status == want
		}
	}
	c.Settles("no pods", says(0, 0, 0, 0))
	for i := range 4 {
		controllertest.Create(c, pod(i))
	}
	c.Settles("four pods", says(4, 3, 4, 1))
	controllertest.Change(c, "default", "b", "status", func(b *policyv1.PodDisruptionBudget) {
		b.Status = policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 40, ObservedGeneration: b.Generation}
	})
	c.Settles("put right", says(4, 3, 4, 1))
	controllertest.Change(c, "default", "p0", "status", func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse })
	c.Settles("one is not ready", says(4, 3, 3, 0))
	controllertest.Delete[*corev1.Pod](c, "default", "p0", metav1.DeleteOptions{})
	controllertest.Create(c, pod(5))
	c.Settles("another in its place", says(4, 3, 4, 1))
	controllertest.Change(c, "default", "b", "", func(b *policyv1.PodDisruptionBudget) {
		least := intstr.FromInt32(2)
		b.Spec.MaxUnavailable, b.Spec.MinAvailable = nil, &least
	})
	c.Settles("two suffice", says(4, 2, 4, 2))
}
