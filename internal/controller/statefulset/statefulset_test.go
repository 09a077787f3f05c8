package statefulset_test

import (
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/controller/statefulset"
	"github.com/proa-dev/proa/test/controllertest"
)

// TestConverges with every fifth write failing: grows, rolls with a partition,
// rolls on, rolls back, shrinks.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Kubelet(nil)
	c.Run(statefulset.New(c.Informers, controllertest.Log()))
	app := map[string]string{"app": "a"}
	controllertest.Create(c, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: ptr.To[int32](3), Selector: &metav1.LabelSelector{MatchLabels: app}, ServiceName: "s",
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "one"}}}},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			}}},
		},
	})
	images := func(want ...string) func() bool {
		return func() bool {
			set := controllertest.Get[*appsv1.StatefulSet](c, "default", "a")
			if len(controllertest.List[*corev1.Pod](c)) != len(want) || int(set.Status.AvailableReplicas) != len(want) || set.Status.ObservedGeneration != set.Generation {
				return false
			}
			for i, image := range want {
				p := controllertest.Get[*corev1.Pod](c, "default", fmt.Sprint("a-", i))
				if p == nil || p.Spec.Containers[0].Image != image || p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != fmt.Sprint("data-a-", i) {
					return false
				}
			}
			return true
		}
	}
	change := func(f func(*appsv1.StatefulSet)) { controllertest.Change(c, "default", "a", "", f) }
	c.Until("three pods", images("one", "one", "one"))
	change(func(s *appsv1.StatefulSet) {
		s.Spec.Template.Spec.Containers[0].Image = "two"
		s.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: ptr.To[int32](2)}
	})
	c.Until("a canary", images("one", "one", "two"))
	change(func(s *appsv1.StatefulSet) { s.Spec.UpdateStrategy.RollingUpdate.Partition = ptr.To[int32](0) })
	c.Until("all new", images("two", "two", "two"))
	c.Until("the new revision is the current one", func() bool {
		st := controllertest.Get[*appsv1.StatefulSet](c, "default", "a").Status
		return st.CurrentRevision == st.UpdateRevision && st.CurrentReplicas == 3
	})
	change(func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Image = "one" })
	c.Until("rolled back", images("one", "one", "one"))
	if n := len(controllertest.List[*appsv1.ControllerRevision](c)); n != 2 {
		t.Errorf("%d revisions, a rollback makes none", n)
	}
	change(func(s *appsv1.StatefulSet) {
		s.Spec.Replicas = ptr.To[int32](1)
		s.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
			WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType,
		}
	})
	c.Until("one pod", images("one"))
	c.Until("claims have their owners", func() bool {
		owner := func(i int) string {
			claim := controllertest.Get[*corev1.PersistentVolumeClaim](c, "default", fmt.Sprint("data-a-", i))
			if len(claim.OwnerReferences) != 1 {
				return ""
			}
			return claim.OwnerReferences[0].Kind
		}
		return owner(0) == "StatefulSet" && owner(1) == "Pod" && owner(2) == "Pod"
	})
	controllertest.Change(c, "default", "data-a-1", "", func(claim *corev1.PersistentVolumeClaim) { claim.Finalizers = []string{"example.com/held"} })
	controllertest.Delete[*corev1.PersistentVolumeClaim](c, "default", "data-a-1", metav1.DeleteOptions{})
	change(func(s *appsv1.StatefulSet) { s.Spec.Replicas = ptr.To[int32](2) })
	c.Settles("the second pod waits for its claim to be gone", func() bool { return len(controllertest.List[*corev1.Pod](c)) == 1 })
	controllertest.Change(c, "default", "data-a-1", "", func(claim *corev1.PersistentVolumeClaim) { claim.Finalizers = nil })
	c.Settles("two pods", images("one", "one"))
	controllertest.Change(c, "default", "a", "status", func(s *appsv1.StatefulSet) { s.Status = appsv1.StatefulSetStatus{Replicas: 7, ReadyReplicas: 7} })
	c.Settles("two pods, whatever somebody says", func() bool {
		st := controllertest.Get[*appsv1.StatefulSet](c, "default", "a").Status
		return images("one", "one")() && st.Replicas == 2 && st.ReadyReplicas == 2 && st.CurrentRevision == st.UpdateRevision && st.CurrentRevision != ""
	})
}
