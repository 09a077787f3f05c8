package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/proa-dev/proa/internal/apiserver/auth"
)

// RBACEscalation keeps users from granting, by a role or a binding, what they do
// not have themselves, unless they hold the verbs escalate or bind.
type RBACEscalation struct {
	RBAC       *auth.RBAC
	Authorizer auth.Authorizer
}

// Name implements Plugin.
func (*RBACEscalation) Name() string { return "RBACEscalation" }

// Validate implements Validator.
func (p *RBACEscalation) Validate(ctx context.Context, w *Write) error {
	if w.User == nil || w.Object == nil || w.Subresource != "" || w.Operation != Create && w.Operation != Update {
		return nil
	}
	switch o := w.Object.(type) {
	case *rbacv1.ClusterRole:
		old, _ := w.Old.(*rbacv1.ClusterRole)
		if old != nil && equality.Semantic.DeepEqual(old.Rules, o.Rules) && equality.Semantic.DeepEqual(old.AggregationRule, o.AggregationRule) {
			return nil
		}
		rules := o.Rules
		if o.AggregationRule != nil && (old == nil || !equality.Semantic.DeepEqual(old.AggregationRule, o.AggregationRule)) {
			// an aggregated role may come to hold anything
			rules = []rbacv1.PolicyRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}}, {Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}}
		}
		return p.check(ctx, w, "escalate", "clusterroles", o.Name, rules)
	case *rbacv1.Role:
		if old, ok := w.Old.(*rbacv1.Role); ok && equality.Semantic.DeepEqual(old.Rules, o.Rules) {
			return nil
		}
		return p.check(ctx, w, "escalate", "roles", o.Name, o.Rules)
	case *rbacv1.ClusterRoleBinding:
		if old, ok := w.Old.(*rbacv1.ClusterRoleBinding); ok && sameBinding(old.RoleRef, o.RoleRef, old.Subjects, o.Subjects) {
			return nil
		}
		return p.binding(ctx, w, o.RoleRef)
	case *rbacv1.RoleBinding:
		if old, ok := w.Old.(*rbacv1.RoleBinding); ok && sameBinding(old.RoleRef, o.RoleRef, old.Subjects, o.Subjects) {
			return nil
		}
		return p.binding(ctx, w, o.RoleRef)
	}
	return nil
}

func sameBinding(a, b rbacv1.RoleRef, s, t []rbacv1.Subject) bool {
	return a == b && equality.Semantic.DeepEqual(s, t)
}

func (p *RBACEscalation) binding(ctx context.Context, w *Write, ref rbacv1.RoleRef) error {
	resource := "roles"
	if ref.Kind == "ClusterRole" {
		resource = "clusterroles"
	}
	rules, found := p.RBAC.RoleRules(ref, w.Namespace)
	if !found && !p.may(ctx, w, "bind", resource, ref.Name) {
		return apierrors.NewNotFound(rbacv1.Resource(strings.ToLower(ref.Kind)), ref.Name)
	}
	return p.check(ctx, w, "bind", resource, ref.Name, rules)
}

func (p *RBACEscalation) check(ctx context.Context, w *Write, verb, resource, name string, wanted []rbacv1.PolicyRule) error {
	if w.User.InGroup("system:masters") || p.may(ctx, w, verb, resource, name) {
		return nil
	}
	missing := auth.Uncovered(p.RBAC.Rules(w.User, w.Namespace), wanted)
	if len(missing) == 0 {
		return nil
	}
	lines := make([]string, len(missing))
	for i, m := range missing {
		b, _ := json.Marshal(m)
		lines[i] = string(b)
	}
	sort.Strings(lines)
	return apierrors.NewForbidden(w.Kind.GroupResource(), w.Object.GetName(),
		fmt.Errorf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s", w.User.Name, w.User.Groups, strings.Join(lines, "\n")))
}

func (p *RBACEscalation) may(ctx context.Context, w *Write, verb, resource, name string) bool {
	d, _, err := p.Authorizer.Authorize(ctx, w.User, auth.Attributes{
		Verb: verb, Group: rbacv1.GroupName, Version: "v1", Resource: resource, Name: name, Namespace: w.Namespace, IsResource: true,
	})
	return err == nil && d == auth.Allow
}
