package expand_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/controller/expand"
	"github.com/proa-dev/proa/internal/controller/volume"
	"github.com/proa-dev/proa/test/controllertest"
)

// TestConverges with faults: a claim of the default class grows; one of a driver is
// left to the driver's resizer.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Run(
		volume.New(c.Informers, volume.Config{Path: func(_, name string) string { return "/" + name }, Remove: func(string, string) error { return nil }}, controllertest.Log()),
		expand.New(c.Informers, volume.Provisioner, controllertest.Log()),
	)
	size := func(s string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(s)}
	}
	get := func(name string) *corev1.PersistentVolumeClaim {
		return controllertest.Get[*corev1.PersistentVolumeClaim](c, "default", name)
	}
	ask := func(name, how string) {
		controllertest.Change(c, "default", name, "", func(c *corev1.PersistentVolumeClaim) { c.Spec.Resources.Requests = size(how) })
	}
	claim := func(name, class string, annotations map[string]string) {
		controllertest.Create(c, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Annotations: annotations}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &class,
			Resources: corev1.VolumeResourceRequirements{Requests: size("1Gi")},
		}})
	}
	controllertest.Create(c, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "driven"}, Spec: corev1.PersistentVolumeSpec{
		Capacity: size("1Gi"), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "h"}},
	}})
	claim("driven", "", nil)
	claim("local", volume.ClassName, map[string]string{"volume.kubernetes.io/selected-node": "n1"})
	c.Until("both are bound", func() bool {
		return get("driven").Status.Phase == corev1.ClaimBound && get("local").Status.Phase == corev1.ClaimBound
	})
	for _, step := range []string{"2Gi", "5Gi"} {
		ask("local", step)
		c.Settles("the claim and its volume have "+step, func() bool {
			now := get("local")
			v := controllertest.Get[*corev1.PersistentVolume](c, "", now.Spec.VolumeName)
			return now.Status.Capacity.Storage().String() == step && v.Spec.Capacity.Storage().String() == step &&
				len(now.Status.Conditions) == 0 && now.Status.AllocatedResourceStatuses == nil && now.Status.AllocatedResources.Storage().String() == step &&
				now.Annotations["volume.kubernetes.io/storage-resizer"] == volume.Provisioner
		})
	}
	ask("driven", "2Gi")
	c.Until("it is asked for", func() bool { return get("driven").Spec.Resources.Requests.Storage().String() == "2Gi" })
	c.Settles("it waits for its driver", func() bool { return get("driven").Status.Capacity.Storage().String() == "1Gi" })
}
