package attributesclass

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/test/controllertest"
)

// TestConverges with faults: a class goes once nothing names it.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Run(New(c.Informers, controllertest.Log()))
	for _, name := range []string{"gold", "free"} {
		controllertest.Create(c, &storagev1.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{Finalizer}}, DriverName: "d", Parameters: map[string]string{"a": "b"}})
	}
	gold := "gold"
	controllertest.Create(c, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "default"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, VolumeAttributesClassName: &gold,
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
	}})
	c.Until("the claim names it", func() bool {
		return controllertest.Get[*corev1.PersistentVolumeClaim](c, "default", "c").Spec.VolumeAttributesClassName != nil
	})
	there := func(name string) bool {
		return controllertest.Get[*storagev1.VolumeAttributesClass](c, "", name) != nil
	}
	for _, name := range []string{"gold", "free"} {
		controllertest.Delete[*storagev1.VolumeAttributesClass](c, "", name, metav1.DeleteOptions{})
	}
	c.Until("one goes", func() bool { return !there("free") })
	controllertest.Delete[*corev1.PersistentVolumeClaim](c, "default", "c", metav1.DeleteOptions{})
	c.Settles("then the other", func() bool { return !there("gold") })
}
