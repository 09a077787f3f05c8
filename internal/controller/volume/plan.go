package volume

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	volumehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"
)

const (
	bindCompleted  = "pv.kubernetes.io/bind-completed"
	boundByUs      = "pv.kubernetes.io/bound-by-controller"
	provisioner    = "volume.kubernetes.io/storage-provisioner"
	provisionerOld = "volume.beta.kubernetes.io/storage-provisioner"
	selectedNode   = "volume.kubernetes.io/selected-node"
	defaultClass   = "storageclass.kubernetes.io/is-default-class"
)

// classOf a claim or volume, "" = none.
func classOf(annotations map[string]string, name string) string {
	if v, ok := annotations[corev1.BetaStorageClassAnnotation]; ok {
		return v
	}
	return name
}

func claimClass(c *corev1.PersistentVolumeClaim) string {
	return classOf(c.Annotations, ptr.Deref(c.Spec.StorageClassName, ""))
}

// forClaim says whether a volume is reserved for a claim: by name, and by UID
// once that is known.
func forClaim(v *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) bool {
	r := v.Spec.ClaimRef
	return r != nil && r.Namespace == c.Namespace && r.Name == c.Name && (r.UID == "" || r.UID == c.UID)
}

// match is the volume for an unbound claim: one reserved for it, else the
// smallest that has what it asks for. reserved: only the former.
func match(c *corev1.PersistentVolumeClaim, volumes []*corev1.PersistentVolume, reserved bool) *corev1.PersistentVolume {
	sel := labels.Everything()
	if c.Spec.Selector != nil {
		s, err := metav1.LabelSelectorAsSelector(c.Spec.Selector)
		if err != nil {
			return nil
		}
		sel = s
	}
	var good []*corev1.PersistentVolume
	for _, v := range volumes {
		if v.DeletionTimestamp != nil || !fits(v, c) {
			continue
		}
		if forClaim(v, c) {
			return v
		}
		if !reserved && v.Spec.ClaimRef == nil && v.Status.Phase == corev1.VolumeAvailable && sel.Matches(labels.Set(v.Labels)) {
			good = append(good, v)
		}
	}
	if len(good) == 0 {
		return nil
	}
	return slices.MinFunc(good, func(a, b *corev1.PersistentVolume) int {
		x, y := a.Spec.Capacity[corev1.ResourceStorage], b.Spec.Capacity[corev1.ResourceStorage]
		return cmp.Or(x.Cmp(y), cmp.Compare(a.Name, b.Name))
	})
}

// fits by size, class, mode and ways of access.
func fits(v *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) bool {
	want, have := c.Spec.Resources.Requests[corev1.ResourceStorage], v.Spec.Capacity[corev1.ResourceStorage]
	if have.Cmp(want) < 0 || classOf(v.Annotations, v.Spec.StorageClassName) != claimClass(c) {
		return false
	}
	if ptr.Deref(v.Spec.VolumeMode, corev1.PersistentVolumeFilesystem) != ptr.Deref(c.Spec.VolumeMode, corev1.PersistentVolumeFilesystem) {
		return false
	}
	for _, m := range c.Spec.AccessModes {
		if !slices.Contains(v.Spec.AccessModes, m) {
			return false
		}
	}
	return ptr.Deref(v.Spec.VolumeAttributesClassName, "") == ptr.Deref(c.Spec.VolumeAttributesClassName, "")
}

// phaseOf a volume. claim is the one its claimRef names, nil if there is none.
func phaseOf(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) corev1.PersistentVolumePhase {
	r := v.Spec.ClaimRef
	switch {
	case r == nil || r.UID == "":
		return corev1.VolumeAvailable
	case claim == nil || claim.UID != r.UID:
		if v.Status.Phase == corev1.VolumeFailed {
			return corev1.VolumeFailed
		}
		return corev1.VolumeReleased
	}
	return corev1.VolumeBound
}

// defaultOf the classes: the youngest that is marked, then by name.
func defaultOf(all []*storagev1.StorageClass) *storagev1.StorageClass {
	var best *storagev1.StorageClass
	for _, s := range all {
		if s.Annotations[defaultClass] != "true" {
			continue
		}
		if best == nil || s.CreationTimestamp.After(best.CreationTimestamp.Time) || s.CreationTimestamp.Equal(&best.CreationTimestamp) && s.Name < best.Name {
			best = s
		}
	}
	return best
}

// waits says whether a class binds its claims only once a pod needs them.
func waits(s *storagev1.StorageClass) bool {
	return s != nil && ptr.Deref(s.VolumeBindingMode, storagev1.VolumeBindingImmediate) == storagev1.VolumeBindingWaitForFirstConsumer
}

// localVolume for a claim: a folder of one node.
func localVolume(c *corev1.PersistentVolumeClaim, s *storagev1.StorageClass, node, path string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name: volumeName(c), Annotations: map[string]string{volumehelpers.AnnDynamicallyProvisioned: s.Provisioner, boundByUs: "yes"},
			Finalizers: []string{volumeFinalizer},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: c.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   c.Spec.AccessModes,
			ClaimRef:                      refTo(c),
			StorageClassName:              s.Name,
			VolumeMode:                    c.Spec.VolumeMode,
			MountOptions:                  s.MountOptions,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: ptr.To(corev1.HostPathDirectoryOrCreate)}},
			PersistentVolumeReclaimPolicy: ptr.Deref(s.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete),
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchFields: []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
			}}}},
		},
	}
}

func volumeName(c *corev1.PersistentVolumeClaim) string { return "pvc-" + string(c.UID) }

func refTo(c *corev1.PersistentVolumeClaim) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: c.Namespace, Name: c.Name, UID: c.UID, ResourceVersion: c.ResourceVersion}
}

// nodeOf a local volume, "" if it is not bound to one.
func nodeOf(v *corev1.PersistentVolume) string {
	if v.Spec.NodeAffinity != nil && v.Spec.NodeAffinity.Required != nil {
		for _, t := range v.Spec.NodeAffinity.Required.NodeSelectorTerms {
			for _, f := range t.MatchFields {
				if f.Key == metav1.ObjectNameField && len(f.Values) == 1 {
					return f.Values[0]
				}
			}
		}
	}
	return ""
}

// inUse says whether a pod that has a node refers to a claim.
func inUse(c *corev1.PersistentVolumeClaim, pods []*corev1.Pod) bool {
	return slices.ContainsFunc(pods, func(p *corev1.Pod) bool {
		return p.Spec.NodeName != "" && slices.Contains(ClaimsOf(p), c.Name)
	})
}

// ClaimsOf a pod, by name, generic ephemeral ones too.
func ClaimsOf(p *corev1.Pod) []string {
	var names []string
	for i := range p.Spec.Volumes {
		switch v := &p.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			names = append(names, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			names = append(names, p.Name+"-"+v.Name)
		}
	}
	return names
}
