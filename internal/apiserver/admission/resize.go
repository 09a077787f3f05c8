package admission

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/proa-dev/proa/internal/cache"
)

// VolumeClaimResize lets a claim grow only if its storage class allows it.
type VolumeClaimResize struct {
	Classes cache.Typed[*storagev1.StorageClass]
}

// Name implements Plugin.
func (*VolumeClaimResize) Name() string { return "PersistentVolumeClaimResize" }

// Validate implements Validator.
func (p *VolumeClaimResize) Validate(_ context.Context, w *Write) error {
	now, ok := w.Object.(*corev1.PersistentVolumeClaim)
	old, was := w.Old.(*corev1.PersistentVolumeClaim)
	if !ok || !was || w.Operation != Update || w.Subresource != "" {
		return nil
	}
	size, before := now.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	if size.Cmp(before) <= 0 {
		return nil
	}
	refuse := func(why string) error {
		return apierrors.NewForbidden(w.Kind.GroupResource(), now.Name, errors.New(why))
	}
	if old.Status.Phase != corev1.ClaimBound {
		return refuse("Only bound persistent volume claims can be expanded")
	}
	if name := now.Spec.StorageClassName; name != nil && *name != "" {
		if class, ok := p.Classes.Get("", *name); ok && class.AllowVolumeExpansion != nil && *class.AllowVolumeExpansion {
			return nil
		}
	}
	return refuse("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize")
}
