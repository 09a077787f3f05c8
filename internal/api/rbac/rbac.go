// Package rbac describes the kinds of rbac.authorization.k8s.io/v1: roles and
// their bindings, of a namespace and of the cluster. That nobody grants more
// than they have is checked by the API server, which knows who asks.
package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/validate"
)

// Kinds of the group.
func Kinds() []*api.Kind {
	return []*api.Kind{clusterRoleBinding(), clusterRole(), roleBinding(), role()}
}

func gvk(kind string) schema.GroupVersionKind { return rbacv1.SchemeGroupVersion.WithKind(kind) }

func role() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("Role"),
		Resource:         "roles",
		New:              func() api.Object { return &rbacv1.Role{} },
		NewList:          func() runtime.Object { return &rbacv1.RoleList{} },
		ValidName:        validate.PathSegmentName,
		CreateOnUpdate:   true,
		Validate: api.Validates(func(r, _ *rbacv1.Role, _ string) field.ErrorList {
			var e validate.Errs
			rules(&e, r.Rules, true)
			return e.List()
		}),
	}
}

func clusterRole() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("ClusterRole"),
		Resource:         "clusterroles",
		Cluster:          true,
		New:              func() api.Object { return &rbacv1.ClusterRole{} },
		NewList:          func() runtime.Object { return &rbacv1.ClusterRoleList{} },
		ValidName:        validate.PathSegmentName,
		CreateOnUpdate:   true,
		Validate:         api.Validates(validateClusterRole),
	}
}

func rules(e *validate.Errs, rules []rbacv1.PolicyRule, namespaced bool) {
	for i := range rules {
		rule(e, &rules[i], namespaced, validate.Root("rules").Index(i))
	}
}

func rule(e *validate.Errs, r *rbacv1.PolicyRule, namespaced bool, p *validate.Path) {
	if len(r.Verbs) == 0 {
		e.Required(p.Child("verbs"), "verbs must contain at least one value")
	}
	if len(r.NonResourceURLs) > 0 {
		at := p.Child("nonResourceURLs")
		if namespaced {
			e.Invalid(at, r.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs")
		}
		if len(r.APIGroups) > 0 || len(r.Resources) > 0 || len(r.ResourceNames) > 0 {
			e.Invalid(at, r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs")
		}
		return
	}
	if len(r.APIGroups) == 0 {
		e.Required(p.Child("apiGroups"), "resource rules must supply at least one api group")
	}
	if len(r.Resources) == 0 {
		e.Required(p.Child("resources"), "resource rules must supply at least one resource")
	}
}

func validateClusterRole(r, old *rbacv1.ClusterRole, _ string) field.ErrorList {
	var e validate.Errs
	rules(&e, r.Rules, false)
	if r.AggregationRule == nil {
		return e.List()
	}
	p := validate.Root("aggregationRule").Child("clusterRoleSelectors")
	selectors := r.AggregationRule.ClusterRoleSelectors
	if len(selectors) == 0 {
		e.Required(p, "at least one clusterRoleSelector required if aggregationRule is non-nil")
	}
	var was *metav1.LabelSelector // a selector with bad values that was let in
	if old != nil && old.AggregationRule != nil {
		for i := range old.AggregationRule.ClusterRoleSelectors {
			var bad validate.Errs
			if validate.Selector(&bad, &old.AggregationRule.ClusterRoleSelectors[i], p); bad.Len() > 0 {
				was = &old.AggregationRule.ClusterRoleSelectors[i]
			}
		}
	}
	for i := range selectors {
		validate.SelectorUpdate(&e, &selectors[i], was, p.Index(i))
		if _, err := metav1.LabelSelectorAsSelector(&selectors[i]); err != nil {
			e.Invalid(p.Index(i), selectors[i], "invalid label selector.")
		}
	}
	return e.List()
}
