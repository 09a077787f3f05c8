package replicaset_test

import (
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/controller/owned"
	"github.com/proa-dev/proa/internal/controller/replicaset"
	"github.com/proa-dev/proa/test/controllertest"
)

func template() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "a"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
}

func set(replicas int32) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"},
		Spec:       appsv1.ReplicaSetSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}, Template: template()},
	}
}

// TestConverges with every fifth write failing.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	log := controllertest.Log()
	c.Kubelet(nil)
	c.Run(replicaset.New(c.Informers, log), replicaset.NewReplication(c.Informers, log))
	controllertest.Create(c, set(7))
	controllertest.Create(c, &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Name: "rc", Namespace: "default"},
		Spec: corev1.ReplicationControllerSpec{Replicas: ptr.To[int32](3), Selector: map[string]string{"app": "rc"}, Template: &corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "rc"}}, Spec: template().Spec,
		}},
	})
	reached := func(n, m int32) func() bool {
		return func() bool {
			rs := controllertest.Get[*appsv1.ReplicaSet](c, "default", "a")
			rc := controllertest.Get[*corev1.ReplicationController](c, "default", "rc")
			return rs.Status.AvailableReplicas == n && rs.Status.Replicas == n && rs.Status.ObservedGeneration == rs.Generation &&
				rc.Status.AvailableReplicas == m && rc.Status.Replicas == m && len(controllertest.List[*corev1.Pod](c)) == int(n+m)
		}
	}
	c.Until("7 and 3 pods", reached(7, 3))
	controllertest.Change(c, "default", "a", "", func(rs *appsv1.ReplicaSet) { rs.Spec.Replicas = ptr.To[int32](2) })
	c.Settles("2 and 3 pods", reached(2, 3))
	controllertest.Change(c, "default", "a", "status", func(rs *appsv1.ReplicaSet) { rs.Status = appsv1.ReplicaSetStatus{Replicas: 9} })
	controllertest.Change(c, "default", "rc", "status", func(rc *corev1.ReplicationController) { rc.Status = corev1.ReplicationControllerStatus{Replicas: 9} })
	c.Settles("2 and 3 pods, whatever somebody says", reached(2, 3))
	for _, p := range controllertest.List[*corev1.Pod](c) {
		controllertest.Change(c, "default", p.Name, "", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "free"} })
	}
	c.Until("5 released, 5 new", func() bool {
		free := 0
		for _, p := range controllertest.List[*corev1.Pod](c) {
			if metav1.GetControllerOf(p) == nil {
				free++
			}
		}
		return free == 5 && len(controllertest.List[*corev1.Pod](c)) == 10
	})
}

// TestForgetfulList: whatever a list says, there are never more pods than wanted
// by one pass's worth.
func TestForgetfulList(t *testing.T) {
	c := controllertest.New(t, 0)
	c.Shaky.Forget.Store(true)
	c.Run(replicaset.New(c.Informers, controllertest.Log()))
	controllertest.Create(c, set(3))
	c.Until("an event says why", func() bool {
		for _, e := range controllertest.List[*corev1.Event](c) {
			if e.Reason == "FailedCreate" {
				return true
			}
		}
		return false
	})
	wake := func(n int) { // every change of a pod does
		p := controllertest.List[*corev1.Pod](c)[0]
		controllertest.Change(c, "default", p.Name, "", func(p *corev1.Pod) { p.Annotations = map[string]string{"n": fmt.Sprint(n)} })
	}
	for i := range 20 {
		wake(i)
	}
	c.Shaky.Forget.Store(false)
	wake(20) // or it waits, the longer the more often it has failed
	c.Until("the set counts its pods", func() bool {
		return controllertest.Get[*appsv1.ReplicaSet](c, "default", "a").Status.Replicas == 3
	})
	if n := len(controllertest.List[*corev1.Pod](c)); n != 3 {
		t.Errorf("%d pods for a set of 3", n)
	}
	for _, p := range controllertest.List[*corev1.Pod](c) {
		if !owned.Active(p) {
			t.Errorf("%s was deleted", p.Name)
		}
	}
}
