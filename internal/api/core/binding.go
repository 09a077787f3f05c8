package core

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func bindingKind() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("Binding"),
		Resource:         "bindings",
		Verbs:            []string{"create"},
		Virtual:          true,
		New:              func() api.Object { return &corev1.Binding{} },
		NewList:          func() runtime.Object { return &metav1.List{} },
		Validate:         checks(func(e *validate.Errs, b, _ *corev1.Binding, _ string) { ValidateBinding(e, b) }),
	}
}

// ValidateBinding checks the body that binds a pod to a node.
func ValidateBinding(e *validate.Errs, b *corev1.Binding) {
	at := validate.Root("target")
	if k := b.Target.Kind; k != "" && k != "Node" {
		validate.NotSupported(e, at.Child("kind"), k, "Node", "<empty>")
	}
	required(e, b.Target.Name, at.Child("name"))
}

// componentStatusKind was once what the health of the control plane was read
// from. It can only be read, and nobody writes any: there are no components.
func componentStatusKind() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("ComponentStatus"),
		Resource:         "componentstatuses",
		ShortNames:       []string{"cs"},
		Cluster:          true,
		Verbs:            []string{"get", "list"},
		Deprecated:       "v1 ComponentStatus is deprecated in v1.19+",
		New:              func() api.Object { return &corev1.ComponentStatus{} },
		NewList:          func() runtime.Object { return &corev1.ComponentStatusList{} },
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Status", "string", "Status of the component conditions"),
			table.Col("Message", "string", "Message of the component conditions"),
			table.Col("Error", "string", "Error of the component conditions"),
		},
		Row: api.Rows(func(c *corev1.ComponentStatus) []any {
			for _, cond := range c.Conditions {
				if cond.Type == corev1.ComponentHealthy {
					status := "Unhealthy"
					if cond.Status == corev1.ConditionTrue {
						status = "Healthy"
					}
					return []any{c.Name, status, cond.Message, cond.Error}
				}
			}
			return []any{c.Name, "Unknown", "", ""}
		}),
	}
}
