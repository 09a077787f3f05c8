package volume

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func TestMatch(t *testing.T) {
	volume := func(name, size string, change ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
		v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		}, Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable}}
		for _, f := range change {
			f(v)
		}
		return v
	}
	claimed := func(name string, uid types.UID) func(*corev1.PersistentVolume) {
		return func(v *corev1.PersistentVolume) {
			v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: name, UID: uid}
		}
	}
	class := func(v *corev1.PersistentVolume) { v.Spec.StorageClassName = "fast" }
	block := func(v *corev1.PersistentVolume) { v.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock) }
	going := func(v *corev1.PersistentVolume) { v.DeletionTimestamp = ptr.To(metav1.Now()) }
	released := func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeReleased }
	labelled := func(v *corev1.PersistentVolume) { v.Labels = map[string]string{"disk": "ssd"} }
	for what, c := range map[string]struct {
		volumes  []*corev1.PersistentVolume
		change   func(*corev1.PersistentVolumeClaim)
		reserved bool
		want     string
	}{
		"none there":                 {nil, nil, false, ""},
		"the smallest that suffices": {[]*corev1.PersistentVolume{volume("a", "1Gi"), volume("b", "9Gi"), volume("c", "3Gi")}, nil, false, "c"},
		"of equals the first":        {[]*corev1.PersistentVolume{volume("b", "3Gi"), volume("a", "3Gi")}, nil, false, "a"},
		"the reserved one":           {[]*corev1.PersistentVolume{volume("a", "2Gi"), volume("b", "9Gi", claimed("c", ""))}, nil, false, "b"},
		"the one that is its own":    {[]*corev1.PersistentVolume{volume("a", "2Gi"), volume("b", "9Gi", claimed("c", "u"))}, nil, false, "b"},
		"of an earlier claim":        {[]*corev1.PersistentVolume{volume("b", "9Gi", claimed("c", "x"))}, nil, false, ""},
		"somebody else's":            {[]*corev1.PersistentVolume{volume("b", "9Gi", claimed("d", ""))}, nil, false, ""},
		"only a reserved one":        {[]*corev1.PersistentVolume{volume("a", "2Gi")}, nil, true, ""},
		"of another class":           {[]*corev1.PersistentVolume{volume("a", "2Gi", class)}, nil, false, ""},
		"of its class":               {[]*corev1.PersistentVolume{volume("a", "2Gi"), volume("b", "2Gi", class)}, func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = ptr.To("fast") }, false, "b"},
		"of another mode":            {[]*corev1.PersistentVolume{volume("a", "2Gi", block)}, nil, false, ""},
		"for other ways of access": {[]*corev1.PersistentVolume{volume("a", "2Gi")}, func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		}, false, ""},
		"on its way out":     {[]*corev1.PersistentVolume{volume("a", "2Gi", going)}, nil, false, ""},
		"not taken back yet": {[]*corev1.PersistentVolume{volume("a", "2Gi", released)}, nil, false, ""},
		"by its labels": {[]*corev1.PersistentVolume{volume("a", "2Gi"), volume("b", "9Gi", labelled)}, func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"disk": "ssd"}}
		}, false, "b"},
	} {
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "default", UID: "u"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")}},
		}}
		if c.change != nil {
			c.change(claim)
		}
		got := ""
		if v := match(claim, c.volumes, c.reserved); v != nil {
			got = v.Name
		}
		if got != c.want {
			t.Errorf("%s: %q, not %q", what, got, c.want)
		}
	}
}

func TestPhase(t *testing.T) {
	ref := &corev1.ObjectReference{Name: "c", UID: "u"}
	claim := func(uid types.UID) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{UID: uid}}
	}
	for what, c := range map[string]struct {
		ref   *corev1.ObjectReference
		claim *corev1.PersistentVolumeClaim
		was   corev1.PersistentVolumePhase
		want  corev1.PersistentVolumePhase
	}{
		"free":                          {nil, nil, "", corev1.VolumeAvailable},
		"reserved":                      {&corev1.ObjectReference{Name: "c"}, nil, "", corev1.VolumeAvailable},
		"bound":                         {ref, claim("u"), corev1.VolumeAvailable, corev1.VolumeBound},
		"its claim is gone":             {ref, nil, corev1.VolumeBound, corev1.VolumeReleased},
		"another of the claim's name":   {ref, claim("x"), corev1.VolumeBound, corev1.VolumeReleased},
		"it could not be taken back":    {ref, nil, corev1.VolumeFailed, corev1.VolumeFailed},
		"given to a claim all the same": {ref, claim("u"), corev1.VolumeFailed, corev1.VolumeBound},
	} {
		v := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{ClaimRef: c.ref}, Status: corev1.PersistentVolumeStatus{Phase: c.was}}
		if got := phaseOf(v, c.claim); got != c.want {
			t.Errorf("%s: %s, not %s", what, got, c.want)
		}
	}
}

func TestDefault(t *testing.T) {
	class := func(name string, marked bool, born int64) *storagev1.StorageClass {
		s := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.Unix(born, 0)}}
		if marked {
			s.Annotations = map[string]string{defaultClass: "true"}
		}
		return s
	}
	for want, all := range map[string][]*storagev1.StorageClass{
		"":      {class("a", false, 1)},
		"young": {class("old", true, 1), class("young", true, 2), class("younger", false, 3)},
		"first": {class("second", true, 2), class("first", true, 2)},
	} {
		got := ""
		if s := defaultOf(all); s != nil {
			got = s.Name
		}
		if got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}
