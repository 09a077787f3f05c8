package core

import (
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

func persistentVolumeClaimKind() *api.Kind {
	spec, st := corev1.PersistentVolumeClaimSpec{}.SwaggerDoc(), corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()
	return &api.Kind{
		GroupVersionKind: gvk("PersistentVolumeClaim"),
		Resource:         "persistentvolumeclaims",
		ShortNames:       []string{"pvc"},
		New:              func() api.Object { return &corev1.PersistentVolumeClaim{} },
		NewList:          func() runtime.Object { return &corev1.PersistentVolumeClaimList{} },
		Default: api.Of(func(c *corev1.PersistentVolumeClaim) {
			defaults.Zero(&c.Status.Phase, corev1.ClaimPending)
			DefaultPersistentVolumeClaimSpec(&c.Spec)
			roundUp(c.Status.Capacity)
			roundUp(c.Status.AllocatedResources)
		}),
		Reset:    api.Resets(resetClaim),
		Validate: checks(validateClaim),
		Warn:     api.Warns(warnClaim),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Status", "string", st["phase"]),
			table.Col("Volume", "string", spec["volumeName"]),
			table.Col("Capacity", "string", st["capacity"]),
			table.Col("Access Modes", "string", st["accessModes"]),
			table.Col("StorageClass", "string", "StorageClass of the pvc"),
			table.Col("VolumeAttributesClass", "string", "VolumeAttributesClass of the pvc"),
			table.Age(),
			table.Wide("VolumeMode", "string", spec["volumeMode"]),
		},
		Row:          api.Rows(claimRow),
		Subresources: []api.Subresource{status()},
	}
}

func resetClaim(c, old *corev1.PersistentVolumeClaim, sub string) {
	if sub == "status" {
		c.Spec = old.Spec
		return
	}
	s := &c.Spec
	used := false
	if old == nil {
		// The phase is the default's, as everything starts pending.
		c.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
	} else {
		c.Status = old.Status
		used = old.Spec.DataSource != nil || old.Spec.DataSourceRef != nil
	}
	// Sources in other namespaces are off in v1.36.
	if r := s.DataSourceRef; r != nil && r.Namespace != nil && *r.Namespace != "" && (old == nil || old.Spec.DataSourceRef == nil) {
		s.DataSourceRef = nil
	}
	// dataSource has always ignored what it does not know; dataSourceRef refuses it.
	if d := s.DataSource; d != nil && !used && s.DataSourceRef == nil {
		group := ""
		if d.APIGroup != nil {
			group = *d.APIGroup
		}
		if !(d.Kind == "PersistentVolumeClaim" && group == "") && !(d.Kind == "VolumeSnapshot" && group == "snapshot.storage.k8s.io") {
			s.DataSource = nil
		}
	}
	bothSources(s)
}

// bothSources fills in dataSource from dataSourceRef, or the other way round.
func bothSources(s *corev1.PersistentVolumeClaimSpec) {
	if d := s.DataSource; d != nil && s.DataSourceRef == nil {
		s.DataSourceRef = &corev1.TypedObjectReference{APIGroup: d.APIGroup, Kind: d.Kind, Name: d.Name}
	} else if r := s.DataSourceRef; r != nil && d == nil && (r.Namespace == nil || *r.Namespace == "") {
		s.DataSource = &corev1.TypedLocalObjectReference{APIGroup: r.APIGroup, Kind: r.Kind, Name: r.Name}
	}
}

func validateClaim(e *validate.Errs, c, old *corev1.PersistentVolumeClaim, sub string) {
	if sub == "status" {
		claimStatus(e, c)
		return
	}
	var was *corev1.PersistentVolumeClaimSpec
	if old != nil {
		was = &old.Spec
	}
	claimSpec(e, &c.Spec, was, validate.Root("spec"))
	if old != nil {
		claimUpdate(e, c, old)
	}
}

// claimUpdate: a claim stays as it is, but for its volume, which is set once,
// and once bound for its size, which grows, and its class of attributes.
func claimUpdate(e *validate.Errs, c, old *corev1.PersistentVolumeClaim) {
	now, was := c.Spec.DeepCopy(), old.Spec.DeepCopy()
	bothSources(was)
	if was.VolumeName == "" {
		was.VolumeName = now.VolumeName
	}
	const beta = corev1.BetaStorageClassAnnotation
	class, hadClass := old.Annotations[beta]
	newClass, hasClass := c.Annotations[beta]
	if hadClass && was.StorageClassName == nil && now.StorageClassName != nil && *now.StorageClassName == class && (!hasClass || newClass == class) {
		now.StorageClassName = nil
	} else {
		if class != newClass {
			e.Invalid(validate.Root("metadata").Child("annotations").Child(beta), newClass, validate.IsImmutable)
		}
		if now.StorageClassName != nil && was.StorageClassName == nil && (!hadClass || *now.StorageClassName == class) {
			now.StorageClassName = nil
		}
	}
	if c.Status.Phase == corev1.ClaimBound {
		if now.Resources.Requests != nil {
			now.Resources.Requests[corev1.ResourceStorage] = was.Resources.Requests[corev1.ResourceStorage]
		}
		now.VolumeAttributesClassName = was.VolumeAttributesClassName
	}
	spec := validate.Root("spec")
	if !apiequality.Semantic.DeepEqual(now, was) {
		e.Forbidden(spec, "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n"+diff.Diff(*was, *now))
	}
	size, before := c.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	// A growth that failed may be taken back, down to what is there (KEP-1790).
	if has := old.Status.Capacity[corev1.ResourceStorage]; size.Cmp(before) < 0 && size.Cmp(has) <= 0 {
		e.Forbidden(spec.Child("resources").Child("requests").Child("storage"), "field can not be less than status.capacity")
	}
	e.Immutable(validate.Root("volumeMode"), c.Spec.VolumeMode, old.Spec.VolumeMode)
	if old.Status.CurrentVolumeAttributesClassName != nil && !samePtr(c.Spec.VolumeAttributesClassName, old.Spec.VolumeAttributesClassName) {
		at := spec.Child("volumeAttributesClassName")
		if n := c.Spec.VolumeAttributesClassName; n == nil {
			e.Forbidden(at, "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil")
		} else if *n == "" {
			e.Forbidden(at, "update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil")
		}
	}
}

func claimStatus(e *validate.Errs, c *corev1.PersistentVolumeClaim) {
	at := validate.Root("status")
	if len(c.Spec.AccessModes) == 0 {
		e.Required(validate.Root("Spec").Child("accessModes"), "")
	}
	for name, q := range c.Status.Capacity {
		basicQuantity(e, q, at.Child("capacity").Key(string(name)))
	}
	for name, v := range c.Status.AllocatedResourceStatuses {
		p := at.Child("allocatedResourceStatuses")
		claimResource(e, name, p)
		switch v {
		case corev1.PersistentVolumeClaimControllerResizeInProgress, corev1.PersistentVolumeClaimControllerResizeInfeasible,
			corev1.PersistentVolumeClaimNodeResizePending, corev1.PersistentVolumeClaimNodeResizeInProgress, corev1.PersistentVolumeClaimNodeResizeInfeasible:
		default:
			validate.NotSupported(e, p, name, corev1.PersistentVolumeClaimControllerResizeInProgress, corev1.PersistentVolumeClaimControllerResizeInfeasible,
				corev1.PersistentVolumeClaimNodeResizeInProgress, corev1.PersistentVolumeClaimNodeResizeInfeasible, corev1.PersistentVolumeClaimNodeResizePending)
		}
	}
	for name, q := range c.Status.AllocatedResources {
		p, n := at.Child("allocatedResources"), e.Len()
		if claimResource(e, name, p); e.Len() > n {
			continue
		}
		if basicQuantity(e, q, p.Key(string(name))); e.Len() == n {
			resourceQuantity(e, corev1.ResourceStorage, q, p.Key(string(name)))
		}
	}
}

func claimResource(e *validate.Errs, name corev1.ResourceName, p *validate.Path) {
	if why := validate.QualifiedName(string(name)); why != nil {
		e.Invalids(p, string(name), why)
	} else if isNative(name) && name != corev1.ResourceStorage {
		validate.NotSupported(e, p, string(name), corev1.ResourceStorage)
	}
}

func warnClaim(c, _ *corev1.PersistentVolumeClaim) []string {
	w := warner{}
	if _, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		w.addf(`metadata.annotations[%s]: deprecated since v1.8; use "storageClassName" attribute instead`, corev1.BetaStorageClassAnnotation)
	}
	w.claim(field.NewPath("spec"), &c.Spec)
	return w.list
}

func claimRow(c *corev1.PersistentVolumeClaim) []any {
	phase := string(c.Status.Phase)
	if c.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	capacity, modes := "", ""
	if c.Spec.VolumeName != "" {
		size := c.Status.Capacity[corev1.ResourceStorage]
		capacity, modes = size.String(), shortModes(c.Status.AccessModes)
	}
	class, ok := c.Annotations[corev1.BetaStorageClassAnnotation]
	if !ok && c.Spec.StorageClassName != nil {
		class = *c.Spec.StorageClassName
	}
	return []any{c.Name, phase, c.Spec.VolumeName, capacity, modes, class, table.Text(c.Spec.VolumeAttributesClassName), table.AgeOf(c), table.Text(c.Spec.VolumeMode)}
}
