// Package coordination describes Lease of coordination.k8s.io/v1.
package coordination

import (
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

// Kinds of the group.
func Kinds() []*api.Kind {
	return []*api.Kind{{
		GroupVersionKind: coordinationv1.SchemeGroupVersion.WithKind("Lease"),
		Resource:         "leases",
		New:              func() api.Object { return &coordinationv1.Lease{} },
		NewList:          func() runtime.Object { return &coordinationv1.LeaseList{} },
		Reset:            api.Resets(resetLease),
		Validate:         api.Validates(validateLease),
		CreateOnUpdate:   true,
		StrictUpdate:     true,
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Holder", "string", coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"]),
			table.Age(),
		},
		Row: api.Rows(func(l *coordinationv1.Lease) []any {
			holder := ""
			if l.Spec.HolderIdentity != nil {
				holder = *l.Spec.HolderIdentity
			}
			return []any{l.Name, holder, table.AgeOf(l)}
		}),
	}}
}

// resetLease drops the fields of coordinated leader election (KEP-4355), whose
// gate is off in 1.36, unless the lease has them already.
func resetLease(l, old *coordinationv1.Lease, _ string) {
	if old == nil || old.Spec.Strategy == nil {
		l.Spec.Strategy = nil
	}
	if old == nil || old.Spec.PreferredHolder == nil {
		l.Spec.PreferredHolder = nil
	}
}

func validateLease(l, _ *coordinationv1.Lease, _ string) field.ErrorList {
	var e validate.Errs
	p, s := validate.Root("spec"), &l.Spec
	if n := s.LeaseDurationSeconds; n != nil && *n <= 0 {
		e.Invalid(p.Child("leaseDurationSeconds"), *n, "must be greater than 0")
	}
	if n := s.LeaseTransitions; n != nil && *n < 0 {
		e.Invalid(p.Child("leaseTransitions"), *n, "must be greater than or equal to 0")
	}
	if s.Strategy != nil {
		at := p.Child("strategy").Child("strategy")
		if strings.Contains(string(*s.Strategy), "/") {
			e.Invalids(at, *s.Strategy, validate.QualifiedName(string(*s.Strategy)))
		} else {
			validate.OneOf(&e, at, *s.Strategy, coordinationv1.OldestEmulationVersion)
		}
	}
	if s.PreferredHolder != nil && *s.PreferredHolder != "" && (s.Strategy == nil || *s.Strategy == "") {
		e.Forbidden(p.Child("preferredHolder"), "may only be specified if `strategy` is defined")
	}
	return e.List()
}
