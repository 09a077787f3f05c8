package core

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func namespaceKind() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("Namespace"),
		Resource:         "namespaces",
		ShortNames:       []string{"ns"},
		Cluster:          true,
		Verbs:            []string{"create", "delete", "get", "list", "patch", "update", "watch"},
		New:              func() api.Object { return &corev1.Namespace{} },
		NewList:          func() runtime.Object { return &corev1.NamespaceList{} },
		Default:          api.Of(defaultNamespace),
		Reset:            api.Resets(resetNamespace),
		Validate:         checks(validateNamespace),
		ValidName:        validate.LabelName,
		Columns:          []metav1.TableColumnDefinition{table.Name(), table.Col("Status", "string", "The status of the namespace"), table.Age()},
		Row: api.Rows(func(n *corev1.Namespace) []any {
			return []any{n.Name, string(n.Status.Phase), table.AgeOf(n)}
		}),
		Fields: api.FieldsOf(func(n *corev1.Namespace) fields.Set {
			return fields.Set{"status.phase": string(n.Status.Phase)}
		}),
		Subresources: []api.Subresource{{Name: "finalize", Verbs: []string{"update"}}, status()},
	}
}

func defaultNamespace(n *corev1.Namespace) {
	if n.Name != "" && n.Labels[corev1.LabelMetadataName] != n.Name {
		nameLabel(n)
	}
	defaults.Zero(&n.Status.Phase, corev1.NamespaceActive)
}

func nameLabel(n *corev1.Namespace) {
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelMetadataName] = n.Name
}

// The finalizer "kubernetes" of the spec, which only the subresource finalize
// takes away, keeps a namespace until all that is in it has gone.
func resetNamespace(n, old *corev1.Namespace, sub string) {
	switch {
	case old == nil:
		n.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
		nameLabel(n) // a generated name was not there yet when defaults were made
		for _, f := range n.Spec.Finalizers {
			if f == corev1.FinalizerKubernetes {
				return
			}
		}
		n.Spec.Finalizers = append(n.Spec.Finalizers, corev1.FinalizerKubernetes)
	case sub == "status":
		n.Spec = old.Spec
	case sub == "finalize":
		n.Status = old.Status
	default:
		n.Spec.Finalizers = old.Spec.Finalizers
		n.Status = old.Status
	}
}

func validateNamespace(e *validate.Errs, n, old *corev1.Namespace, sub string) {
	if sub == "status" {
		at := validate.Root("status").Child("Phase")
		if n.DeletionTimestamp.IsZero() && n.Status.Phase != corev1.NamespaceActive {
			e.Invalid(at, n.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty")
		} else if !n.DeletionTimestamp.IsZero() && n.Status.Phase != corev1.NamespaceTerminating {
			e.Invalid(at, n.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")
		}
		return
	}
	at := validate.Root("spec").Child("finalizers")
	for i, f := range n.Spec.Finalizers {
		if sub == "finalize" {
			at = validate.Root("spec").Child("finalizers").Index(i)
		}
		validate.LabelKey(e, string(f), at)
		KubeFinalizer(e, string(f), at)
	}
}
