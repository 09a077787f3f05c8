// Package storagemigration describes StorageVersionMigration of
// storagemigration.k8s.io/v1beta1 (KEP-4192). Upstream serves it when asked to;
// here it is always there.
package storagemigration

import (
	migrationv1beta1 "k8s.io/api/storagemigration/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

// Kinds of the group.
func Kinds() []*api.Kind {
	return []*api.Kind{{
		GroupVersionKind: migrationv1beta1.SchemeGroupVersion.WithKind("StorageVersionMigration"),
		Resource:         "storageversionmigrations",
		Cluster:          true,
		StrictUpdate:     true,
		New:              func() api.Object { return &migrationv1beta1.StorageVersionMigration{} },
		NewList:          func() runtime.Object { return &migrationv1beta1.StorageVersionMigrationList{} },
		Reset: reset.Status(func(m *migrationv1beta1.StorageVersionMigration) (*migrationv1beta1.StorageVersionMigrationSpec, *migrationv1beta1.StorageVersionMigrationStatus) {
			return &m.Spec, &m.Status
		}),
		Validate: api.Validates(validateMigration),
		Columns: []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
			table.Col("Resource", "string", "GroupResource to migrate"),
			table.Col("Status", "string", "Status of the migration"),
		},
		Row: api.Rows(func(m *migrationv1beta1.StorageVersionMigration) []any {
			return []any{m.Name, m.Spec.Resource.String(), phase(m)}
		}),
		Subresources: []api.Subresource{{Name: "status"}},
	}}
}

// phase is the last of the conditions that is true.
func phase(m *migrationv1beta1.StorageVersionMigration) string {
	is := "Unknown"
	for _, c := range m.Status.Conditions {
		switch migrationv1beta1.MigrationConditionType(c.Type) {
		case migrationv1beta1.MigrationRunning, migrationv1beta1.MigrationSucceeded, migrationv1beta1.MigrationFailed:
			if c.Status == metav1.ConditionTrue {
				is = c.Type
			}
		}
	}
	return is
}

func validateMigration(m, old *migrationv1beta1.StorageVersionMigration, sub string) field.ErrorList {
	var e validate.Errs
	if sub == "status" {
		validateStatus(&e, &m.Status, &old.Status)
		return e.List()
	}
	p, r := validate.Root("spec").Child("resource"), &m.Spec.Resource
	if r.Resource == "" {
		e.Required(p.Child("resource"), "resource is required to be set")
	} else {
		e.Invalids(p.Child("resource"), r.Resource, validation.IsDNS1035Label(r.Resource))
	}
	if r.Group != "" {
		e.Invalids(p.Child("group"), r.Group, validate.Subdomain(r.Group))
	}
	if old != nil {
		e.Immutable(validate.Root("spec"), m.Spec, old.Spec)
	}
	return e.List()
}

func validateStatus(e *validate.Errs, s, old *migrationv1beta1.StorageVersionMigrationStatus) {
	p := validate.Root("status")
	if rv := s.ResourceVersion; rv != "" {
		if _, err := resourceversion.CompareResourceVersion(rv, rv); err != nil {
			e.Invalid(p.Child("resourceVersion"), rv, err.Error())
		}
	}
	at := p.Child("conditions")
	e.Add(metavalidation.ValidateConditions(s.Conditions, at.Field())...)
	if old.ResourceVersion != "" && old.ResourceVersion != s.ResourceVersion {
		e.Invalid(p.Child("resourceVersion"), s.ResourceVersion, "field is immutable")
	}
	is := func(s *migrationv1beta1.StorageVersionMigrationStatus, c migrationv1beta1.MigrationConditionType) bool {
		return meta.IsStatusConditionTrue(s.Conditions, string(c))
	}
	if is(s, migrationv1beta1.MigrationSucceeded) && is(s, migrationv1beta1.MigrationFailed) {
		e.Invalid(at, s.Conditions, "Both success and failed conditions cannot be true at the same time")
	}
	if is(old, migrationv1beta1.MigrationSucceeded) && !is(s, migrationv1beta1.MigrationSucceeded) {
		e.Invalid(at, s.Conditions, "Success condition cannot be set to false once it is true")
	}
	if is(old, migrationv1beta1.MigrationFailed) && !is(s, migrationv1beta1.MigrationFailed) {
		e.Invalid(at, s.Conditions, "Failed condition cannot be set to false once it is true")
	}
}
