package rbac

import (
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func roleBinding() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("RoleBinding"),
		Resource:         "rolebindings",
		New:              func() api.Object { return &rbacv1.RoleBinding{} },
		NewList:          func() runtime.Object { return &rbacv1.RoleBindingList{} },
		ValidName:        validate.PathSegmentName,
		CreateOnUpdate:   true,
		Default:          api.Of(func(b *rbacv1.RoleBinding) { defaultBinding(&b.RoleRef, b.Subjects) }),
		Validate: api.Validates(func(b, old *rbacv1.RoleBinding, _ string) field.ErrorList {
			var was *rbacv1.RoleRef
			if old != nil {
				was = &old.RoleRef
			}
			return binding(b.RoleRef, was, b.Subjects, true)
		}),
		Columns: columns(rbacv1.RoleBinding{}.SwaggerDoc()["roleRef"], "roleBinding"),
		Row:     api.Rows(func(b *rbacv1.RoleBinding) []any { return row(b, b.RoleRef, b.Subjects) }),
	}
}

func clusterRoleBinding() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("ClusterRoleBinding"),
		Resource:         "clusterrolebindings",
		Cluster:          true,
		New:              func() api.Object { return &rbacv1.ClusterRoleBinding{} },
		NewList:          func() runtime.Object { return &rbacv1.ClusterRoleBindingList{} },
		ValidName:        validate.PathSegmentName,
		CreateOnUpdate:   true,
		Default:          api.Of(func(b *rbacv1.ClusterRoleBinding) { defaultBinding(&b.RoleRef, b.Subjects) }),
		Validate: api.Validates(func(b, old *rbacv1.ClusterRoleBinding, _ string) field.ErrorList {
			var was *rbacv1.RoleRef
			if old != nil {
				was = &old.RoleRef
			}
			return binding(b.RoleRef, was, b.Subjects, false)
		}),
		Columns: columns(rbacv1.ClusterRoleBinding{}.SwaggerDoc()["roleRef"], "clusterRoleBinding"),
		Row:     api.Rows(func(b *rbacv1.ClusterRoleBinding) []any { return row(b, b.RoleRef, b.Subjects) }),
	}
}

func columns(roleDoc, kind string) []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		table.Name(),
		table.Col("Role", "string", roleDoc),
		table.Age(),
		table.Wide("Users", "string", "Users in the "+kind),
		table.Wide("Groups", "string", "Groups in the "+kind),
		table.Wide("ServiceAccounts", "string", "ServiceAccounts in the "+kind),
	}
}

func row(obj metav1.Object, role rbacv1.RoleRef, subjects []rbacv1.Subject) []any {
	var users, groups, accounts []string
	for _, s := range subjects {
		switch s.Kind {
		case rbacv1.UserKind:
			users = append(users, s.Name)
		case rbacv1.GroupKind:
			groups = append(groups, s.Name)
		case rbacv1.ServiceAccountKind:
			accounts = append(accounts, s.Namespace+"/"+s.Name)
		}
	}
	return []any{obj.GetName(), role.Kind + "/" + role.Name, table.AgeOf(obj),
		strings.Join(users, ", "), strings.Join(groups, ", "), strings.Join(accounts, ", ")}
}

func defaultBinding(role *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	defaults.Zero(&role.APIGroup, rbacv1.GroupName)
	for i := range subjects {
		if s := &subjects[i]; s.Kind == rbacv1.UserKind || s.Kind == rbacv1.GroupKind {
			defaults.Zero(&s.APIGroup, rbacv1.GroupName)
		}
	}
}

func binding(role rbacv1.RoleRef, was *rbacv1.RoleRef, subjects []rbacv1.Subject, namespaced bool) field.ErrorList {
	var e validate.Errs
	p := validate.Root("roleRef")
	validate.OneOf(&e, p.Child("apiGroup"), role.APIGroup, rbacv1.GroupName)
	if namespaced {
		validate.OneOf(&e, p.Child("kind"), role.Kind, "Role", "ClusterRole")
	} else {
		validate.OneOf(&e, p.Child("kind"), role.Kind, "ClusterRole")
	}
	if role.Name == "" {
		e.Required(p.Child("name"), "")
	} else {
		e.Invalids(p.Child("name"), role.Name, validate.PathSegmentName(role.Name, false))
	}
	for i := range subjects {
		subject(&e, &subjects[i], namespaced, validate.Root("subjects").Index(i))
	}
	if was != nil && *was != role {
		e.Invalid(p, role, "cannot change roleRef")
	}
	return e.List()
}

func subject(e *validate.Errs, s *rbacv1.Subject, namespaced bool, p *validate.Path) {
	if s.Name == "" {
		e.Required(p.Child("name"), "")
	}
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		if s.Name != "" {
			e.Invalids(p.Child("name"), s.Name, validate.Subdomain(s.Name))
		}
		if s.APIGroup != "" {
			validate.NotSupported(e, p.Child("apiGroup"), s.APIGroup, "")
		}
		if !namespaced && s.Namespace == "" {
			e.Required(p.Child("namespace"), "")
		}
	case rbacv1.UserKind, rbacv1.GroupKind:
		validate.OneOf(e, p.Child("apiGroup"), s.APIGroup, rbacv1.GroupName)
	default:
		validate.NotSupported(e, p.Child("kind"), s.Kind, rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind)
	}
}
