package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/cache"
)

// DefaultIngressClass names the default class on ingresses that name none.
type DefaultIngressClass struct {
	Classes cache.Typed[*networkingv1.IngressClass]
}

// Name implements Plugin.
func (*DefaultIngressClass) Name() string { return "DefaultIngressClass" }

// Admit implements Mutator.
func (p *DefaultIngressClass) Admit(_ context.Context, w *Write) error {
	ing, ok := w.Object.(*networkingv1.Ingress)
	if !ok || w.Operation != Create || w.Subresource != "" || ing.Spec.IngressClassName != nil {
		return nil
	}
	if _, old := ing.Annotations[networkingv1beta1ClassAnnotation]; old {
		return nil
	}
	var found *networkingv1.IngressClass
	p.Classes.Each("", func(c *networkingv1.IngressClass) bool {
		if c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true" && newer(found, c) {
			found = c
		}
		return true
	})
	if found != nil {
		ing.Spec.IngressClassName = &found.Name
	}
	return nil
}

const networkingv1beta1ClassAnnotation = "kubernetes.io/ingress.class"

// newer: of several defaults the youngest counts, of those of one age the first by name.
func newer[T interface {
	comparable
	metav1.Object
}](have, c T) bool {
	var none T
	if have == none {
		return true
	}
	h, n := have.GetCreationTimestamp(), c.GetCreationTimestamp()
	return h.Before(&n)
}

// DefaultStorageClass names the default class on volume claims that name none.
type DefaultStorageClass struct {
	Classes cache.Typed[*storagev1.StorageClass]
}

// Name implements Plugin.
func (*DefaultStorageClass) Name() string { return "DefaultStorageClass" }

const (
	defaultStorageClass     = "storageclass.kubernetes.io/is-default-class"
	defaultStorageClassBeta = "storageclass.beta.kubernetes.io/is-default-class"
)

// Admit implements Mutator.
func (p *DefaultStorageClass) Admit(_ context.Context, w *Write) error {
	pvc, ok := w.Object.(*corev1.PersistentVolumeClaim)
	if !ok || w.Operation != Create || w.Subresource != "" || pvc.Spec.StorageClassName != nil {
		return nil
	}
	if _, old := pvc.Annotations[corev1.BetaStorageClassAnnotation]; old {
		return nil
	}
	var found *storagev1.StorageClass
	p.Classes.Each("", func(c *storagev1.StorageClass) bool {
		if (c.Annotations[defaultStorageClass] == "true" || c.Annotations[defaultStorageClassBeta] == "true") && newer(found, c) {
			found = c
		}
		return true
	})
	if found != nil {
		pvc.Spec.StorageClassName = &found.Name
	}
	return nil
}

// StorageProtection marks volumes and claims so that neither goes away while in
// use; the protection controllers take the finalizers off.
type StorageProtection struct{}

// Name implements Plugin.
func (StorageProtection) Name() string { return "StorageObjectInUseProtection" }

// Admit implements Mutator.
func (StorageProtection) Admit(_ context.Context, w *Write) error {
	if w.Operation != Create || w.Subresource != "" {
		return nil
	}
	finalizer := ""
	switch w.Object.(type) {
	case *corev1.PersistentVolumeClaim:
		finalizer = "kubernetes.io/pvc-protection"
	case *corev1.PersistentVolume:
		finalizer = "kubernetes.io/pv-protection"
	case *storagev1.VolumeAttributesClass:
		finalizer = "kubernetes.io/vac-protection"
	default:
		return nil
	}
	have := w.Object.GetFinalizers()
	for _, f := range have {
		if f == finalizer {
			return nil
		}
	}
	w.Object.SetFinalizers(append(have, finalizer))
	return nil
}
