package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/api/validate"
)

// claimSpec checks what a claim asks for; it is in templates of claims too.
func claimSpec(e *validate.Errs, s, old *corev1.PersistentVolumeClaimSpec, p *validate.Path) {
	if len(s.AccessModes) == 0 {
		e.Required(p.Child("accessModes"), "at least 1 access mode is required")
	}
	if s.Selector != nil {
		if old != nil {
			validate.SelectorUpdate(e, s.Selector, old.Selector, p.Child("selector"))
		} else {
			validate.Selector(e, s.Selector, p.Child("selector"))
		}
	}
	accessModes(e, s.AccessModes, p.Child("accessModes"))

	at := p.Child("resources").Key(string(corev1.ResourceStorage))
	if size, ok := s.Resources.Requests[corev1.ResourceStorage]; !ok {
		e.Required(at, "")
	} else if size.Sign() <= 0 {
		positiveQuantity(e, size, at)
	} else {
		resourceQuantity(e, corev1.ResourceStorage, size, at)
	}
	if s.StorageClassName != nil {
		subdomain(e, *s.StorageClassName, p.Child("storageClassName"))
	}
	if s.VolumeMode != nil {
		validate.OneOf(e, p.Child("volumeMode"), *s.VolumeMode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
	}
	anyGroup := old != nil && (old.DataSource != nil && old.DataSource.APIGroup != nil || old.DataSourceRef != nil && old.DataSourceRef.APIGroup != nil)
	if d := s.DataSource; d != nil {
		dataSource(e, d.Name, d.Kind, d.APIGroup, anyGroup, p.Child("dataSource"))
	}
	if d := s.DataSourceRef; d != nil {
		at := p.Child("dataSourceRef")
		dataSource(e, d.Name, d.Kind, d.APIGroup, anyGroup, at)
		foreign := d.Namespace != nil && *d.Namespace != ""
		if foreign {
			label(e, *d.Namespace, at.Child("namespace"))
		}
		if s.DataSource != nil && foreign {
			e.Invalid(p, p.Child("dataSource").Field(), "may not be specified when dataSourceRef.namespace is specified")
		} else if s.DataSource != nil && (s.DataSource.Kind != d.Kind || s.DataSource.Name != d.Name || !samePtr(s.DataSource.APIGroup, d.APIGroup)) {
			e.Invalid(p, p.Child("dataSource").Field(), "must match dataSourceRef")
		}
	}
	if s.VolumeAttributesClassName != nil {
		subdomain(e, *s.VolumeAttributesClassName, p.Child("volumeAttributesClassName"))
	}
}

func samePtr[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}

func accessModes(e *validate.Errs, modes []corev1.PersistentVolumeAccessMode, p *validate.Path) {
	single, other := false, false
	for _, m := range modes {
		n := e.Len()
		validate.OneOf(e, p, m, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)
		single = single || m == corev1.ReadWriteOncePod
		other = other || m != corev1.ReadWriteOncePod && e.Len() == n
	}
	if single && other {
		e.Forbidden(p, "may not use ReadWriteOncePod with other access modes")
	}
}

func dataSource(e *validate.Errs, name, kind string, group *string, anyGroup bool, p *validate.Path) {
	required(e, name, p.Child("name"))
	required(e, kind, p.Child("kind"))
	if (group == nil || *group == "") && kind != "PersistentVolumeClaim" {
		e.Invalid(p, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup")
	}
	if group != nil && !anyGroup {
		subdomain(e, *group, p.Child("apiGroup"))
	}
}
