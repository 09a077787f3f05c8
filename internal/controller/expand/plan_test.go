package expand

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/volume"

	"github.com/proa-dev/proa/internal/api/core"
)

func sizes(s string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(s)}
}

func bound(wants, has string, change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "n", UID: "1"}}
	c.Spec.VolumeName, c.Spec.Resources.Requests = "v", sizes(wants)
	c.Status.Phase, c.Status.Capacity = corev1.ClaimBound, sizes(has)
	for _, f := range change {
		f(c)
	}
	return c
}

func TestNews(t *testing.T) {
	pending := func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimPending }
	ends := func(c *corev1.PersistentVolumeClaim) { c.DeletionTimestamp = &metav1.Time{} }
	for what, c := range map[string]struct {
		old, now *corev1.PersistentVolumeClaim
		want     bool
	}{
		"it was there before us":     {nil, bound("2Gi", "1Gi"), true},
		"it has what it asks for":    {nil, bound("1Gi", "1Gi"), false},
		"it has more":                {nil, bound("1Gi", "2Gi"), false},
		"it is not bound":            {nil, bound("2Gi", "1Gi", pending), false},
		"it ends":                    {nil, bound("2Gi", "1Gi", ends), false},
		"it is gone":                 {bound("2Gi", "1Gi"), nil, false},
		"it asks for more":           {bound("1Gi", "1Gi"), bound("2Gi", "1Gi"), true},
		"it asks for more still":     {bound("2Gi", "1Gi"), bound("3Gi", "1Gi"), true},
		"a resizer is at work on it": {bound("2Gi", "1Gi"), bound("2Gi", "1Gi", func(c *corev1.PersistentVolumeClaim) { c.Labels = map[string]string{"a": "b"} }), false},
		"it has come nearer to it":   {bound("3Gi", "1Gi"), bound("3Gi", "2Gi"), true},
		"it asks for less again":     {bound("3Gi", "1Gi"), bound("2Gi", "1Gi"), false},
	} {
		if got := news(c.old, c.now); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}

func TestWho(t *testing.T) {
	claim := bound("2Gi", "1Gi")
	ref := &corev1.ObjectReference{Namespace: "n", Name: "c", UID: "1"}
	by := func(name string) map[string]string {
		return map[string]string{volume.AnnDynamicallyProvisioned: name}
	}
	for what, c := range map[string]struct {
		v    corev1.PersistentVolume
		want whose
	}{
		"ours": {corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Annotations: by("p")}, Spec: corev1.PersistentVolumeSpec{ClaimRef: ref}}, ours},
		"a driver's": {corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Annotations: by("d")}, Spec: corev1.PersistentVolumeSpec{
			ClaimRef: ref, PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{}}}}, others},
		"made by hand":         {corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{ClaimRef: ref}}, others},
		"another claim's":      {corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{Namespace: "n", Name: "c", UID: "2"}}}, nobodys},
		"not a claim's at all": {corev1.PersistentVolume{}, nobodys},
	} {
		if got := who(claim, &c.v, "p"); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}

// TestSteps of growing: what was begun is finished, also when less is asked for
// meanwhile.
func TestSteps(t *testing.T) {
	claim := bound("3Gi", "1Gi")
	claim.Status.Conditions = []corev1.PersistentVolumeClaimCondition{{Type: corev1.PersistentVolumeClaimVolumeModifyingVolume, Status: corev1.ConditionTrue}, {Type: corev1.PersistentVolumeClaimControllerResizeError, Status: corev1.ConditionTrue}}
	if got := target(claim); got.String() != "3Gi" {
		t.Error(got)
	}
	now := metav1.Now()
	claim.Status = begun(claim.Status, target(claim), now)
	if s := claim.Status; s.AllocatedResources.Storage().String() != "3Gi" || s.AllocatedResourceStatuses[corev1.ResourceStorage] != corev1.PersistentVolumeClaimControllerResizeInProgress ||
		len(s.Conditions) != 2 || s.Conditions[1].Type != corev1.PersistentVolumeClaimResizing || s.Capacity.Storage().String() != "1Gi" {
		t.Errorf("%+v", s)
	}
	again := begun(claim.Status, target(claim), metav1.NewTime(now.Add(9)))
	if len(again.Conditions) != 2 || again.Conditions[1].LastTransitionTime != now {
		t.Errorf("begun twice: %+v", again.Conditions)
	}
	claim.Spec.Resources.Requests = sizes("2Gi")
	if got := target(claim); got.String() != "3Gi" {
		t.Errorf("what was begun is %v", got)
	}
	core.Grown(&claim.Status, target(claim))
	if s := claim.Status; s.Capacity.Storage().String() != "3Gi" || s.AllocatedResourceStatuses != nil || len(s.Conditions) != 1 || s.AllocatedResources.Storage().String() != "3Gi" {
		t.Errorf("%+v", s)
	}
	claim.Spec.Resources.Requests = sizes("5Gi")
	if got := target(claim); got.String() != "5Gi" {
		t.Errorf("what was allocated before counts: %v", got)
	}
}
