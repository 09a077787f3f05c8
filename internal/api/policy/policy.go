// Package policy describes PodDisruptionBudget of policy/v1. Eviction is a
// subresource of pods.
package policy

import (
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

// Kinds of the group.
func Kinds() []*api.Kind {
	return []*api.Kind{{
		GroupVersionKind: policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"),
		Resource:         "poddisruptionbudgets",
		ShortNames:       []string{"pdb"},
		New:              func() api.Object { return &policyv1.PodDisruptionBudget{} },
		NewList:          func() runtime.Object { return &policyv1.PodDisruptionBudgetList{} },
		Reset: reset.SpecStatus(func(b *policyv1.PodDisruptionBudget) (*policyv1.PodDisruptionBudgetSpec, *policyv1.PodDisruptionBudgetStatus) {
			return &b.Spec, &b.Status
		}),
		Validate:     api.Validates(validateBudget),
		StrictUpdate: true,
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Min Available", "string", "The minimum number of pods that must be available."),
			table.Col("Max Unavailable", "string", "The maximum number of pods that may be unavailable."),
			table.Col("Allowed Disruptions", "integer", "Calculated number of pods that may be disrupted at this time."),
			table.Age(),
		},
		Row: api.Rows(func(b *policyv1.PodDisruptionBudget) []any {
			return []any{b.Name, cell(b.Spec.MinAvailable), cell(b.Spec.MaxUnavailable), int64(b.Status.DisruptionsAllowed), table.AgeOf(b)}
		}),
		Subresources: []api.Subresource{{Name: "status"}},
	}}
}

func cell(v *intstr.IntOrString) string {
	if v == nil {
		return "N/A"
	}
	return v.String()
}

func validateBudget(b, old *policyv1.PodDisruptionBudget, sub string) field.ErrorList {
	var e validate.Errs
	if sub == "status" {
		p, s := validate.Root("status"), &b.Status
		e.Add(metavalidation.ValidateConditions(s.Conditions, p.Child("conditions").Field())...)
		validate.NotBelowZero(&e, s.DisruptionsAllowed, p.Child("disruptionsAllowed"))
		validate.NotBelowZero(&e, s.CurrentHealthy, p.Child("currentHealthy"))
		validate.NotBelowZero(&e, s.DesiredHealthy, p.Child("desiredHealthy"))
		validate.NotBelowZero(&e, s.ExpectedPods, p.Child("expectedPods"))
		return e.List()
	}
	p, s := validate.Root("spec"), &b.Spec
	if s.MinAvailable != nil && s.MaxUnavailable != nil {
		e.Invalid(p, *s, "minAvailable and maxUnavailable cannot be both set")
	}
	amount(&e, s.MinAvailable, p.Child("minAvailable"))
	amount(&e, s.MaxUnavailable, p.Child("maxUnavailable"))
	if old == nil {
		validate.Selector(&e, s.Selector, p.Child("selector"))
	} else {
		validate.SelectorUpdate(&e, s.Selector, old.Spec.Selector, p.Child("selector"))
	}
	if u := s.UnhealthyPodEvictionPolicy; u != nil {
		validate.OneOf(&e, p.Child("unhealthyPodEvictionPolicy"), *u, policyv1.AlwaysAllow, policyv1.IfHealthyBudget)
	}
	return e.List()
}

func amount(e *validate.Errs, v *intstr.IntOrString, p *validate.Path) {
	if v != nil {
		validate.CountOrPercent(e, *v, p)
		validate.NotAbove100Percent(e, *v, p)
	}
}
