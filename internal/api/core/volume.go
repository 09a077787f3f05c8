package core

import (
	"path"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func persistentVolumeKind() *api.Kind {
	spec, st := corev1.PersistentVolumeSpec{}.SwaggerDoc(), corev1.PersistentVolumeStatus{}.SwaggerDoc()
	return &api.Kind{
		GroupVersionKind: gvk("PersistentVolume"),
		Resource:         "persistentvolumes",
		ShortNames:       []string{"pv"},
		Cluster:          true,
		New:              func() api.Object { return &corev1.PersistentVolume{} },
		NewList:          func() runtime.Object { return &corev1.PersistentVolumeList{} },
		Default:          api.Of(defaultPersistentVolume),
		Reset:            api.Resets(resetPersistentVolume),
		Validate:         checks(validatePersistentVolume),
		Warn:             api.Warns(warnPersistentVolume),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Capacity", "string", spec["capacity"]),
			table.Col("Access Modes", "string", spec["accessModes"]),
			table.Col("Reclaim Policy", "string", spec["persistentVolumeReclaimPolicy"]),
			table.Col("Status", "string", st["phase"]),
			table.Col("Claim", "string", spec["claimRef"]),
			table.Col("StorageClass", "string", "StorageClass of the pv"),
			table.Col("VolumeAttributesClass", "string", "VolumeAttributesClass of the pv"),
			table.Col("Reason", "string", st["reason"]),
			table.Age(),
			table.Wide("VolumeMode", "string", spec["volumeMode"]),
		},
		Row:          api.Rows(persistentVolumeRow),
		Subresources: []api.Subresource{status()},
	}
}

func defaultPersistentVolume(v *corev1.PersistentVolume) {
	s := &v.Spec
	defaults.Zero(&v.Status.Phase, corev1.VolumePending)
	defaults.Zero(&s.PersistentVolumeReclaimPolicy, corev1.PersistentVolumeReclaimRetain)
	defaults.Ptr(&s.VolumeMode, corev1.PersistentVolumeFilesystem)
	roundUp(s.Capacity)
	if s.HostPath != nil {
		defaults.Ptr(&s.HostPath.Type, corev1.HostPathUnset)
	}
	if s.RBD != nil {
		defaults.Zero(&s.RBD.RBDPool, "rbd")
		defaults.Zero(&s.RBD.RadosUser, "admin")
		defaults.Zero(&s.RBD.Keyring, "/etc/ceph/keyring")
	}
	if s.ISCSI != nil {
		defaults.Zero(&s.ISCSI.ISCSIInterface, "default")
	}
	defaultAzureDisk(s.AzureDisk)
	if s.ScaleIO != nil {
		defaults.Zero(&s.ScaleIO.StorageMode, "ThinProvisioned")
		defaults.Zero(&s.ScaleIO.FSType, "xfs")
	}
}

// When the phase last changed is noted here, unless the client says it.
func resetPersistentVolume(v, old *corev1.PersistentVolume, sub string) {
	now := metav1.Now()
	switch {
	case old == nil:
		v.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending, LastPhaseTransitionTime: &now}
	case sub != "status":
		v.Status = old.Status
	default:
		v.Spec = old.Spec
		was := old.Status.LastPhaseTransitionTime
		if v.Status.Phase == old.Status.Phase && v.Status.LastPhaseTransitionTime == nil {
			v.Status.LastPhaseTransitionTime = was
		} else if t := v.Status.LastPhaseTransitionTime; v.Status.Phase != old.Status.Phase && (t == nil || t.Equal(was)) {
			v.Status.LastPhaseTransitionTime = &now
		}
	}
}

func validatePersistentVolume(e *validate.Errs, v, old *corev1.PersistentVolume, sub string) {
	if sub == "status" {
		return
	}
	var was *corev1.PersistentVolumeSpec
	if old != nil {
		was = &old.Spec
	}
	volumeSpec(e, &v.Spec, was, v.Name, validate.Root("spec"))
	if _, ok := v.Annotations[corev1.MountOptionAnnotation]; ok && !mountsWithOptions(&v.Spec) {
		e.Forbidden(validate.Root("metadata").Child("annotations").Child(corev1.MountOptionAnnotation), "may not specify mount options for this volume type")
	}
	if old == nil {
		return
	}
	source := v.Spec.PersistentVolumeSource
	if n, o := source.CSI, old.Spec.CSI; n != nil && o != nil && o.ControllerExpandSecretRef == nil && n.ControllerExpandSecretRef != nil {
		csi := *n // this one may be added
		csi.ControllerExpandSecretRef = nil
		source.CSI = &csi
	}
	if !apiequality.Semantic.DeepEqual(source, old.Spec.PersistentVolumeSource) {
		e.Forbidden(validate.Root("spec").Child("persistentvolumesource"), "spec.persistentvolumesource is immutable after creation\n"+diff.Diff(old.Spec.PersistentVolumeSource, source))
	}
	e.Immutable(validate.Root("volumeMode"), v.Spec.VolumeMode, old.Spec.VolumeMode)
	if old.Spec.NodeAffinity != nil && !apiequality.Semantic.DeepEqual(renamed(v.Spec.NodeAffinity, old.Spec.NodeAffinity), old.Spec.NodeAffinity) {
		e.Invalid(validate.Root("nodeAffinity"), v.Spec.NodeAffinity, validate.IsImmutable+", except for updating from beta label to GA")
	}
	if old.Spec.VolumeAttributesClassName != nil && v.Spec.VolumeAttributesClassName == nil {
		e.Forbidden(validate.Root("spec").Child("volumeAttributesClassName"), "update from non-nil value to nil is forbidden")
	}
}

// renamed gives back the beta names of labels where only the name has changed.
func renamed(a, old *corev1.VolumeNodeAffinity) *corev1.VolumeNodeAffinity {
	if a == nil || a.Required == nil || old.Required == nil || len(a.Required.NodeSelectorTerms) != len(old.Required.NodeSelectorTerms) {
		return a
	}
	stable := map[string]string{
		corev1.LabelFailureDomainBetaZone:   corev1.LabelTopologyZone,
		corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
		"beta.kubernetes.io/os":             corev1.LabelOSStable,
		"beta.kubernetes.io/arch":           corev1.LabelArchStable,
		corev1.LabelInstanceType:            corev1.LabelInstanceTypeStable,
	}
	a = a.DeepCopy()
	for i := range a.Required.NodeSelectorTerms {
		now, was := a.Required.NodeSelectorTerms[i].MatchExpressions, old.Required.NodeSelectorTerms[i].MatchExpressions
		for j := range now {
			if j < len(was) && stable[was[j].Key] == now[j].Key {
				now[j].Key = was[j].Key
			}
		}
	}
	return a
}

func mountsWithOptions(s *corev1.PersistentVolumeSpec) bool {
	return s.GCEPersistentDisk != nil || s.AWSElasticBlockStore != nil || s.Glusterfs != nil || s.NFS != nil || s.RBD != nil ||
		s.Quobyte != nil || s.ISCSI != nil || s.Cinder != nil || s.CephFS != nil || s.AzureFile != nil || s.VsphereVolume != nil ||
		s.AzureDisk != nil || s.PhotonPersistentDisk != nil
}

func volumeSpec(e *validate.Errs, s, old *corev1.PersistentVolumeSpec, name string, p *validate.Path) {
	if len(s.AccessModes) == 0 {
		e.Required(p.Child("accessModes"), "")
	}
	accessModes(e, s.AccessModes, p.Child("accessModes"))
	at := p.Child("capacity")
	if len(s.Capacity) == 0 {
		e.Required(at, "")
	}
	if _, ok := s.Capacity[corev1.ResourceStorage]; !ok || len(s.Capacity) > 1 {
		validate.NotSupported(e, at, s.Capacity, corev1.ResourceStorage)
	}
	for k, q := range s.Capacity {
		basicQuantity(e, q, at.Key(string(k)))
		positiveQuantity(e, q, at.Key(string(k)))
	}
	reclaim := p.Child("persistentVolumeReclaimPolicy")
	if s.PersistentVolumeReclaimPolicy != "" {
		validate.OneOf(e, reclaim, s.PersistentVolumeReclaimPolicy, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)
	}
	if a := s.NodeAffinity; a != nil {
		at := p.Child("nodeAffinity").Child("required")
		if a.Required == nil {
			e.Required(at, "must specify required node constraints")
		} else {
			var found, before validate.Errs
			nodeSelector(&found, a.Required, at)
			if old != nil && old.NodeAffinity != nil && old.NodeAffinity.Required != nil && found.Len() > 0 {
				nodeSelector(&before, old.NodeAffinity.Required, at)
			}
			if before.Len() == 0 {
				e.Add(found.List()...)
			}
		}
	}
	volumeDisk(e, s, name, p)
	if s.HostPath != nil && path.Clean(s.HostPath.Path) == "/" && s.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		e.Forbidden(reclaim, "may not be 'recycle' for a hostPath mount of '/'")
	}
	subdomain(e, s.StorageClassName, p.Child("storageClassName"))
	if s.VolumeMode != nil {
		validate.OneOf(e, p.Child("volumeMode"), *s.VolumeMode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
	}
	if class := s.VolumeAttributesClassName; class != nil {
		if *class == "" {
			e.Required(p.Child("volumeAttributesClassName"), "an empty string is disallowed")
		} else {
			requiredSubdomain(e, *class, p.Child("volumeAttributesClassName"))
		}
		if s.CSI == nil {
			e.Required(p.Child("csi"), "has to be specified when using volumeAttributesClassName")
		}
	}
}

func warnPersistentVolume(v, _ *corev1.PersistentVolume) []string {
	w, s := warner{}, &v.Spec
	if s.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		w.addf("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.")
	}
	if s.NodeAffinity != nil && s.NodeAffinity.Required != nil {
		for i := range s.NodeAffinity.Required.NodeSelectorTerms {
			w.nodeTerm(&s.NodeAffinity.Required.NodeSelectorTerms[i], false, field.NewPath("spec", "nodeAffinity", "required", "nodeSelectorTerms").Index(i))
		}
	}
	for _, d := range []struct {
		used      bool
		name, why string
	}{
		{s.CephFS != nil, "cephfs", "deprecated in v1.28, non-functional in v1.31+"},
		{s.PhotonPersistentDisk != nil, "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"},
		{s.ScaleIO != nil, "scaleIO", "deprecated in v1.16, non-functional in v1.22+"},
		{s.StorageOS != nil, "storageOS", "deprecated in v1.22, non-functional in v1.25+"},
		{s.Glusterfs != nil, "glusterfs", "deprecated in v1.25, non-functional in v1.26+"},
		{s.RBD != nil, "rbd", "deprecated in v1.28, non-functional in v1.31+"},
	} {
		if d.used {
			w.addf("spec.%s: %s", d.name, d.why)
		}
	}
	return w.list
}

func persistentVolumeRow(v *corev1.PersistentVolume) []any {
	claim := ""
	if r := v.Spec.ClaimRef; r != nil {
		claim = r.Namespace + "/" + r.Name
	}
	phase := string(v.Status.Phase)
	if v.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	class, ok := v.Annotations[corev1.BetaStorageClassAnnotation]
	if !ok {
		class = v.Spec.StorageClassName
	}
	size := v.Spec.Capacity[corev1.ResourceStorage]
	return []any{v.Name, size.String(), shortModes(v.Spec.AccessModes), string(v.Spec.PersistentVolumeReclaimPolicy), phase, claim, class,
		table.Text(v.Spec.VolumeAttributesClassName), v.Status.Reason, table.AgeOf(v), table.Text(v.Spec.VolumeMode)}
}

// shortModes: "RWO,ROX", in this order.
func shortModes(modes []corev1.PersistentVolumeAccessMode) string {
	text := ""
	for _, m := range []struct {
		mode  corev1.PersistentVolumeAccessMode
		short string
	}{{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"}} {
		for _, has := range modes {
			if has == m.mode {
				if text != "" {
					text += ","
				}
				text += m.short
				break
			}
		}
	}
	return text
}
