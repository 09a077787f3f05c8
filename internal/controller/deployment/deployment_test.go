package deployment_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/controller/deployment"
	"github.com/proa-dev/proa/internal/controller/gc"
	"github.com/proa-dev/proa/internal/controller/replicaset"
	"github.com/proa-dev/proa/test/controllertest"
)

// TestConverges with faults: a Deployment is scaled, rolled, recreated, rolled back
// and deleted; what somebody else does to its status and its sets is put right.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Shaky.Reads.Store(1000) // the collector lists every kind
	c.Kubelet(nil)
	c.Run(deployment.New(c.Informers, controllertest.Log()), replicaset.New(c.Informers, controllertest.Log()), gc.New(c.Shaky, controllertest.Log()))
	app := map[string]string{"app": "a"}
	controllertest.Create(c, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"}, Spec: appsv1.DeploymentSpec{
		Replicas: ptr.To[int32](4), Selector: &metav1.LabelSelector{MatchLabels: app},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "one"}}}},
	}})
	get := func() *appsv1.Deployment { return controllertest.Get[*appsv1.Deployment](c, "default", "a") }
	reached := func(n int, image string) func() bool {
		return func() bool {
			d := get()
			st, want := d.Status, int32(n)
			if st.ObservedGeneration != d.Generation || st.Replicas != want || st.UpdatedReplicas != want || st.AvailableReplicas != want || st.UnavailableReplicas != 0 {
				return false
			}
			for _, cond := range st.Conditions {
				if cond.Status != corev1.ConditionTrue {
					return false
				}
			}
			pods := controllertest.List[*corev1.Pod](c)
			for _, p := range pods {
				if p.Spec.Containers[0].Image != image {
					return false
				}
			}
			return len(pods) == n && len(st.Conditions) == 2
		}
	}
	change := func(f func(*appsv1.Deployment)) { controllertest.Change(c, "default", "a", "", f) }
	image := func(name string) func(*appsv1.Deployment) {
		return func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = name }
	}
	current := func() *appsv1.ReplicaSet {
		for _, rs := range controllertest.List[*appsv1.ReplicaSet](c) {
			if *rs.Spec.Replicas > 0 {
				return rs
			}
		}
		return nil
	}
	c.Settles("four", reached(4, "one"))
	change(image("two"))
	c.Settles("four new", reached(4, "two"))
	controllertest.Change(c, "default", "a", "status", func(d *appsv1.Deployment) { d.Status = appsv1.DeploymentStatus{Replicas: 9, CollisionCount: nil} })
	c.Settles("the status says what is", reached(4, "two"))
	controllertest.Change(c, "default", current().Name, "", func(rs *appsv1.ReplicaSet) { rs.Spec.Replicas = ptr.To[int32](1) })
	c.Settles("the set is as large as it was", reached(4, "two"))
	controllertest.Change(c, "default", current().Name, "status", func(rs *appsv1.ReplicaSet) { rs.Status = appsv1.ReplicaSetStatus{} })
	c.Settles("its status too", reached(4, "two"))
	controllertest.Change(c, "default", current().Name, "", func(rs *appsv1.ReplicaSet) { rs.OwnerReferences = nil })
	c.Settles("adopted again", func() bool { return reached(4, "two")() && len(current().OwnerReferences) == 1 })
	controllertest.Delete[*appsv1.ReplicaSet](c, "default", current().Name, metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)})
	c.Settles("another set in its place", reached(4, "two"))
	change(func(d *appsv1.Deployment) {
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
		d.Spec.Replicas = ptr.To[int32](3)
		image("three")(d)
	})
	c.Settles("recreated", reached(3, "three"))
	change(image("one"))
	c.Settles("rolled back", reached(3, "one"))
	change(func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To[int32](0) })
	c.Settles("none", reached(0, "one"))
	change(func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To[int32](2) })
	c.Settles("two", reached(2, "one"))
	controllertest.Delete[*appsv1.Deployment](c, "default", "a", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)})
	c.Settles("all gone", func() bool {
		return get() == nil && len(controllertest.List[*appsv1.ReplicaSet](c))+len(controllertest.List[*corev1.Pod](c)) == 0
	})
}
