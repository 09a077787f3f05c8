package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/cache"
)

// NamespaceLifecycle refuses to create in a namespace that is not there or on
// its way out, and to delete the namespaces that the cluster itself lives in.
type NamespaceLifecycle struct {
	Namespaces cache.Typed[*corev1.Namespace]
}

// Name implements Plugin.
func (*NamespaceLifecycle) Name() string { return "NamespaceLifecycle" }

var immortal = map[string]bool{metav1.NamespaceDefault: true, metav1.NamespaceSystem: true, metav1.NamespacePublic: true}

// Validate implements Validator.
func (p *NamespaceLifecycle) Validate(_ context.Context, w *Write) error {
	if w.Operation == Delete && w.Subresource == "" && immortal[w.Name] && isKind(w, "", "Namespace") {
		return apierrors.NewForbidden(w.Kind.GroupResource(), w.Name, fmt.Errorf("this namespace may not be deleted"))
	}
	return nil
}

// Admit implements Mutator: it changes nothing, but has to speak before plugins
// that would find the namespace's other objects missing.
func (p *NamespaceLifecycle) Admit(_ context.Context, w *Write) error {
	if w.Namespace == "" || w.Operation != Create || isKind(w, "", "Namespace") || isReview(w) {
		return nil
	}
	ns, ok := p.Namespaces.Get("", w.Namespace)
	if !ok {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, w.Namespace)
	}
	if ns.Status.Phase != corev1.NamespaceTerminating && ns.DeletionTimestamp == nil {
		return nil
	}
	err := apierrors.NewForbidden(w.Kind.GroupResource(), w.Name,
		fmt.Errorf("unable to create new content in namespace %s because it is being terminated", w.Namespace))
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type: corev1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", w.Namespace), Field: "metadata.namespace",
	})
	return err
}

// isReview: access may be asked about in a namespace that is not there yet.
func isReview(w *Write) bool { return w.Kind.Kind.Group == "authorization.k8s.io" }

func isKind(w *Write, group, kind string) bool {
	return w.Kind.Kind != nil && w.Kind.Kind.Group == group && w.Kind.Kind.GroupVersionKind.Kind == kind
}
