package volume_test

import (
	"errors"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/volume"
	"github.com/proa-dev/proa/test/controllertest"
)

func claim(name, class, size string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &class,
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}},
	}}
}

func static(name, size string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		PersistentVolumeSource:        corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/x"}},
		PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
	}}
}

// TestConverges with every fifth write failing: static binding, provisioning,
// protection and taking back.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	var mu sync.Mutex
	var removed []string
	failures := 3 // of removing a folder
	c.Run(volume.New(c.Informers, volume.Config{
		Path: func(node, name string) string { return "/" + node + "/" + name },
		Remove: func(_, path string) error {
			mu.Lock()
			defer mu.Unlock()
			if failures--; failures >= 0 {
				return errors.New("the node is not there just now")
			}
			removed = append(removed, path)
			return nil
		},
	}, controllertest.Log()))
	c.Until("the default class", func() bool {
		return controllertest.Get[*storagev1.StorageClass](c, "", volume.ClassName) != nil
	})
	controllertest.Create(c, static("small", "1Gi"))
	controllertest.Create(c, static("fit", "3Gi"))
	controllertest.Create(c, static("large", "9Gi"))
	c.Until("volumes that can be had", func() bool { // a claim takes the best of those that are available
		for _, name := range []string{"small", "fit", "large"} {
			if controllertest.Get[*corev1.PersistentVolume](c, "", name).Status.Phase != corev1.VolumeAvailable {
				return false
			}
		}
		return true
	})
	controllertest.Create(c, claim("s", "", "2Gi"))
	get := func(name string) *corev1.PersistentVolumeClaim {
		return controllertest.Get[*corev1.PersistentVolumeClaim](c, "default", name)
	}
	c.Until("bound to the smallest that is large enough", func() bool {
		got, v := get("s"), controllertest.Get[*corev1.PersistentVolume](c, "", "fit")
		return got.Status.Phase == corev1.ClaimBound && got.Spec.VolumeName == "fit" && v.Status.Phase == corev1.VolumeBound && v.Spec.ClaimRef.UID == got.UID
	})
	controllertest.Change(c, "default", "s", "status", func(c *corev1.PersistentVolumeClaim) {
		c.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
	})
	controllertest.Change(c, "", "fit", "status", func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeAvailable })
	c.Settles("bound, whatever somebody says", func() bool {
		st := get("s").Status
		return st.Phase == corev1.ClaimBound && len(st.Capacity) == 1 && len(st.AccessModes) == 1 && controllertest.Get[*corev1.PersistentVolume](c, "", "fit").Status.Phase == corev1.VolumeBound
	})
	picky := claim("picky", "", "2Gi")
	picky.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"disk": "fast"}}
	controllertest.Create(c, picky)
	c.Settles("no volume has the label", func() bool { return get("picky").Status.Phase == corev1.ClaimPending })
	controllertest.Change(c, "", "large", "", func(v *corev1.PersistentVolume) { v.Labels = map[string]string{"disk": "fast"} })
	c.Settles("one has got it", func() bool {
		return get("picky").Status.Phase == corev1.ClaimBound && get("picky").Spec.VolumeName == "large"
	})
	controllertest.Create(c, claim("d", volume.ClassName, "2Gi"))
	c.Until("pending until a pod has a node", func() bool { return get("d").Status.Phase == corev1.ClaimPending })
	controllertest.Change(c, "default", "d", "", func(c *corev1.PersistentVolumeClaim) {
		c.Annotations = map[string]string{"volume.kubernetes.io/selected-node": "n1"}
	})
	c.Until("provisioned", func() bool { return get("d").Status.Phase == corev1.ClaimBound })
	made := controllertest.Get[*corev1.PersistentVolume](c, "", get("d").Spec.VolumeName)
	if made.Spec.HostPath.Path != "/n1/"+made.Name || made.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
		t.Errorf("%+v", made.Spec)
	}
	controllertest.Create(c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}, Spec: corev1.PodSpec{
		NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "i"}}, TerminationGracePeriodSeconds: ptr.To[int64](0),
		Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "d"}}}},
	}})
	remove := func(cl client.Conn, name string) {
		if err := client.For[*corev1.PersistentVolumeClaim](cl).Delete(t.Context(), "default", name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	remove(c.Conn, "d")
	remove(c.Conn, "s")
	c.Until("the unused claim is gone, its volume released", func() bool {
		return get("s") == nil && controllertest.Get[*corev1.PersistentVolume](c, "", "fit").Status.Phase == corev1.VolumeReleased
	})
	if get("d") == nil {
		t.Fatal("a claim that a pod uses is gone")
	}
	if err := client.For[*corev1.Pod](c.Conn).Delete(t.Context(), "default", "p", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		t.Fatal(err)
	}
	c.Settles("the claim is gone, and its volume with its folder", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return get("d") == nil && controllertest.Get[*corev1.PersistentVolume](c, "", made.Name) == nil && len(removed) > 0 && removed[0] == made.Spec.HostPath.Path
	})
}

// TestEphemeral with faults: a pod has its claim, also when somebody deletes it
// before it is used.
func TestEphemeral(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Run(volume.New(c.Informers, volume.Config{}, controllertest.Log()))
	create := func() {
		controllertest.Create(c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}, Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "c", Image: "i"}},
			Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
				VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: claim("", "", "1Gi").Spec},
			}}}},
		}})
	}
	owned := func() bool {
		have := controllertest.Get[*corev1.PersistentVolumeClaim](c, "default", "p-v")
		return have != nil && have.DeletionTimestamp == nil && metav1.IsControlledBy(have, controllertest.Get[*corev1.Pod](c, "default", "p"))
	}
	create()
	c.Settles("the pod has its claim", owned)
	controllertest.Delete[*corev1.PersistentVolumeClaim](c, "default", "p-v", metav1.DeleteOptions{})
	c.Settles("the pod has another", owned)
}
