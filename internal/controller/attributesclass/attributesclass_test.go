package attributesclass

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func TestUsed(t *testing.T) {
	wants := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{VolumeAttributesClassName: ptr.To("gold")}}
	has := &corev1.PersistentVolumeClaim{Status: corev1.PersistentVolumeClaimStatus{CurrentVolumeAttributesClassName: ptr.To("gold")}}
	changing := &corev1.PersistentVolumeClaim{Status: corev1.PersistentVolumeClaimStatus{ModifyVolumeStatus: &corev1.ModifyVolumeStatus{TargetVolumeAttributesClassName: "gold"}}}
	volume := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{VolumeAttributesClassName: ptr.To("gold")}}
	for what, c := range map[string]struct {
		claims  []*corev1.PersistentVolumeClaim
		volumes []*corev1.PersistentVolume
		want    bool
	}{
		"by nothing":            {nil, nil, false},
		"by a claim's wish":     {[]*corev1.PersistentVolumeClaim{{}, wants}, nil, true},
		"by what a claim has":   {[]*corev1.PersistentVolumeClaim{has}, nil, true},
		"by a change under way": {[]*corev1.PersistentVolumeClaim{changing}, nil, true},
		"by a volume":           {nil, []*corev1.PersistentVolume{{}, volume}, true},
	} {
		if got := used("gold", c.claims, c.volumes); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
		if used("silver", c.claims, c.volumes) {
			t.Errorf("%s: another class counts as used", what)
		}
	}
}
