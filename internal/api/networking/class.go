package networking

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func ingressClass() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("IngressClass"),
		Resource:         "ingressclasses",
		Cluster:          true,
		New:              func() api.Object { return &networkingv1.IngressClass{} },
		NewList:          func() runtime.Object { return &networkingv1.IngressClassList{} },
		Default: api.Of(func(c *networkingv1.IngressClass) {
			if p := c.Spec.Parameters; p != nil {
				defaults.Ptr(&p.Scope, networkingv1.IngressClassParametersReferenceScopeCluster)
			}
		}),
		Reset:    reset.Spec(func(c *networkingv1.IngressClass) *networkingv1.IngressClassSpec { return &c.Spec }),
		Validate: api.Validates(validateIngressClass),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Controller", "string", "Controller that is responsible for handling this class"),
			table.Col("Parameters", "string", "A reference to a resource with additional parameters"),
			table.Age(),
		},
		Row: api.Rows(func(c *networkingv1.IngressClass) []any {
			name, parameters := c.Name, "<none>"
			if c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true" {
				name += " (default)"
			}
			if p := c.Spec.Parameters; p != nil {
				parameters = p.Kind
				if p.APIGroup != nil {
					parameters += "." + *p.APIGroup
				}
				parameters += "/" + p.Name
			}
			return []any{name, c.Spec.Controller, parameters, table.AgeOf(c)}
		}),
	}
}

func validateIngressClass(c, old *networkingv1.IngressClass, _ string) field.ErrorList {
	const maxController = 250
	var e validate.Errs
	p := validate.Root("spec")
	if old != nil {
		e.Immutable(p.Child("controller"), c.Spec.Controller, old.Spec.Controller)
	}
	if len(c.Spec.Controller) > maxController {
		e.TooLong(p.Child("controller"), maxController)
	}
	e.Add(validation.IsDomainPrefixedPath(p.Child("controller").Field(), c.Spec.Controller)...)
	if c.Spec.Parameters != nil {
		parameters(&e, c.Spec.Parameters, p.Child("parameters"))
	}
	return e.List()
}

func parameters(e *validate.Errs, r *networkingv1.IngressClassParametersReference, p *validate.Path) {
	reference(e, r.APIGroup, r.Kind, r.Name, p)
	if r.Scope == nil {
		e.Required(p.Child("scope"), "")
		return
	}
	at := p.Child("namespace")
	switch *r.Scope {
	case networkingv1.IngressClassParametersReferenceScopeNamespace:
		if r.Namespace == nil {
			e.Required(at, "`parameters.scope` is set to 'Namespace'")
		} else {
			e.Invalids(at, *r.Namespace, validate.Label(*r.Namespace))
		}
	case networkingv1.IngressClassParametersReferenceScopeCluster:
		if r.Namespace != nil {
			e.Forbidden(at, "`parameters.scope` is set to 'Cluster'")
		}
	default:
		validate.NotSupported(e, p.Child("scope"), *r.Scope,
			networkingv1.IngressClassParametersReferenceScopeCluster, networkingv1.IngressClassParametersReferenceScopeNamespace)
	}
}
