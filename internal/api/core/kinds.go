package core

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/validate"
)

// Kinds are all of core/v1, in the order of discovery.
func Kinds() []*api.Kind {
	return []*api.Kind{
		bindingKind(),
		componentStatusKind(),
		configMapKind(),
		endpointsKind(),
		eventKind(),
		limitRangeKind(),
		namespaceKind(),
		nodeKind(),
		persistentVolumeClaimKind(),
		persistentVolumeKind(),
		podKind(),
		podTemplateKind(),
		replicationControllerKind(),
		resourceQuotaKind(),
		secretKind(),
		serviceAccountKind(),
		serviceKind(),
	}
}

func gvk(kind string) schema.GroupVersionKind { return corev1.SchemeGroupVersion.WithKind(kind) }

// status is the subresource of a kind whose status is written apart.
func status() api.Subresource { return api.Subresource{Name: "status"} }

// proxyVerbs are those of the subresources that pass a request on.
func proxyVerbs() []string { return []string{"create", "delete", "get", "patch", "update"} }

// checks makes a Kind.Validate: f, and what core kinds ask of finalizers beyond
// the usual checks of metadata.
func checks[T api.Object](f func(e *validate.Errs, obj, old T, sub string)) func(obj, old api.Object, sub string) field.ErrorList {
	return func(obj, old api.Object, sub string) field.ErrorList {
		var e validate.Errs
		for i, name := range obj.GetFinalizers() {
			if sub == "" {
				KubeFinalizer(&e, name, validate.Root("metadata").Child("finalizers").Index(i))
			}
		}
		was, _ := old.(T)
		f(&e, obj.(T), was, sub)
		return e.List()
	}
}

// KubeFinalizer: a finalizer without a domain is one of Kubernetes' own.
func KubeFinalizer(e *validate.Errs, name string, p *validate.Path) {
	switch name {
	case string(corev1.FinalizerKubernetes), metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents:
		return
	}
	for i := range len(name) {
		if name[i] == '/' {
			return
		}
	}
	e.Invalid(p, name, "name is neither a standard finalizer name nor is it fully qualified")
}

// resetStatus is a Kind.Reset for kinds whose generation does not move: a write
// keeps the old status, a write of the status the old spec, and what is created
// has what first makes of it.
func resetStatus[T api.Object, S, U any](parts func(T) (*S, *U), first func(T)) func(obj, old api.Object, sub string) {
	return func(obj, old api.Object, sub string) {
		spec, status := parts(obj.(T))
		switch {
		case old == nil:
			first(obj.(T))
		case sub == "status":
			was, _ := parts(old.(T))
			*spec = *was
		default:
			_, was := parts(old.(T))
			*status = *was
		}
	}
}
