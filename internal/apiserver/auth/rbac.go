package auth

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
)

// RBAC allows what roles allow, through bindings, as the rbac.authorization.k8s.io
// API defines it. Bindings are looked up by subject in an index that is made
// anew when a role or a binding has changed, so a request costs what its own
// user's bindings cost.
type RBAC struct {
	roles           cache.Typed[*rbacv1.Role]
	bindings        cache.Typed[*rbacv1.RoleBinding]
	clusterRoles    cache.Typed[*rbacv1.ClusterRole]
	clusterBindings cache.Typed[*rbacv1.ClusterRoleBinding]
	index           atomic.Pointer[rbacIndex]
}

type rbacIndex struct {
	of     [4]int64 // the sets' last changes
	grants map[rbacv1.Subject][]grant
}

// grant is one binding's rules for one subject.
type grant struct {
	namespace string // "" = everywhere
	rules     []rbacv1.PolicyRule
	binding   string // `RoleBinding "x/ns"`, for the reason
	role      string
}

// NewRBAC reads roles and bindings from the cache.
func NewRBAC(roles, bindings, clusterRoles, clusterBindings cache.Reader) *RBAC {
	return &RBAC{
		roles:           cache.Typed[*rbacv1.Role]{Reader: roles},
		bindings:        cache.Typed[*rbacv1.RoleBinding]{Reader: bindings},
		clusterRoles:    cache.Typed[*rbacv1.ClusterRole]{Reader: clusterRoles},
		clusterBindings: cache.Typed[*rbacv1.ClusterRoleBinding]{Reader: clusterBindings},
	}
}

// Authorize implements Authorizer. Members of system:masters may do everything.
func (r *RBAC) Authorize(_ context.Context, u *request.User, a Attributes) (Decision, string, error) {
	if u.InGroup(request.Masters) {
		return Allow, "", nil
	}
	why := ""
	r.visit(u, a.Namespace, func(s rbacv1.Subject, g grant) bool {
		for i := range g.rules {
			if ruleAllows(&g.rules[i], &a) {
				why = fmt.Sprintf("RBAC: allowed by %s of %s to %s", g.binding, g.role, subjectText(s))
				return false
			}
		}
		return true
	})
	if why != "" {
		return Allow, why, nil
	}
	return NoOpinion, "", nil
}

// Rules that a user has in a namespace ("" = only those that hold everywhere).
func (r *RBAC) Rules(u *request.User, namespace string) []rbacv1.PolicyRule {
	if u.InGroup(request.Masters) {
		return everything()
	}
	var all []rbacv1.PolicyRule
	r.visit(u, namespace, func(_ rbacv1.Subject, g grant) bool {
		all = append(all, g.rules...)
		return true
	})
	return all
}

// RulesFor implements RuleLister.
func (r *RBAC) RulesFor(_ context.Context, u *request.User, namespace string) ([]rbacv1.PolicyRule, bool, error) {
	return r.Rules(u, namespace), false, nil
}

// RoleRules of what a binding in a namespace refers to; ok false when it is not there.
func (r *RBAC) RoleRules(ref rbacv1.RoleRef, namespace string) (rules []rbacv1.PolicyRule, ok bool) {
	if ref.Kind == "ClusterRole" {
		if role, found := r.clusterRoles.Get("", ref.Name); found {
			return role.Rules, true
		}
		return nil, false
	}
	if role, found := r.roles.Get(namespace, ref.Name); found {
		return role.Rules, true
	}
	return nil, false
}

func (r *RBAC) visit(u *request.User, namespace string, f func(rbacv1.Subject, grant) bool) {
	idx := r.current()
	one := func(s rbacv1.Subject) bool {
		for _, g := range idx.grants[s] {
			if (g.namespace == "" || g.namespace == namespace) && !f(s, g) {
				return false
			}
		}
		return true
	}
	if !one(rbacv1.Subject{Kind: rbacv1.UserKind, Name: u.Name}) {
		return
	}
	if ns, name, ok := ServiceAccountOf(u.Name); ok && !one(rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: name}) {
		return
	}
	for _, g := range u.Groups {
		if !one(rbacv1.Subject{Kind: rbacv1.GroupKind, Name: g}) {
			return
		}
	}
}

// current returns the index, made anew if anything it was made of has changed.
// Two requests may make it at the same time; both results are good.
func (r *RBAC) current() *rbacIndex {
	of := [4]int64{r.roles.Changed(), r.bindings.Changed(), r.clusterRoles.Changed(), r.clusterBindings.Changed()}
	if idx := r.index.Load(); idx != nil && idx.of == of {
		return idx
	}
	idx := &rbacIndex{of: of, grants: map[rbacv1.Subject][]grant{}}
	r.clusterBindings.Each("", func(b *rbacv1.ClusterRoleBinding) bool {
		idx.add(r, fmt.Sprintf("ClusterRoleBinding %q", b.Name), "", b.RoleRef, b.Subjects)
		return true
	})
	r.bindings.Each("", func(b *rbacv1.RoleBinding) bool {
		idx.add(r, fmt.Sprintf("RoleBinding %q", b.Name+"/"+b.Namespace), b.Namespace, b.RoleRef, b.Subjects)
		return true
	})
	r.index.Store(idx)
	return idx
}

func (x *rbacIndex) add(r *RBAC, binding, namespace string, ref rbacv1.RoleRef, subjects []rbacv1.Subject) {
	rules, ok := r.RoleRules(ref, namespace)
	if !ok {
		return
	}
	g := grant{namespace: namespace, rules: rules, binding: binding, role: fmt.Sprintf("%s %q", ref.Kind, ref.Name)}
	for _, s := range subjects {
		s.APIGroup = ""
		switch {
		case s.Kind == rbacv1.ServiceAccountKind && s.Namespace == "":
			s.Namespace = namespace
		case s.Kind != rbacv1.ServiceAccountKind:
			s.Namespace = ""
		}
		x.grants[s] = append(x.grants[s], g)
	}
}

func subjectText(s rbacv1.Subject) string {
	if s.Kind == rbacv1.ServiceAccountKind {
		return fmt.Sprintf("%s %q", s.Kind, s.Name+"/"+s.Namespace)
	}
	return fmt.Sprintf("%s %q", s.Kind, s.Name)
}

func ruleAllows(p *rbacv1.PolicyRule, a *Attributes) bool {
	if !has(p.Verbs, a.Verb) {
		return false
	}
	if !a.IsResource {
		return pathMatches(p.NonResourceURLs, a.Path)
	}
	return has(p.APIGroups, a.Group) && resourceMatches(p.Resources, a.Resource, a.Subresource) &&
		(len(p.ResourceNames) == 0 || slices.Contains(p.ResourceNames, a.Name))
}

func has(list []string, s string) bool {
	for _, l := range list {
		if l == "*" || l == s {
			return true
		}
	}
	return false
}

// resourceMatches knows "pods", "pods/log", "*/log" and "*".
func resourceMatches(list []string, resource, sub string) bool {
	for _, l := range list {
		if l == "*" || (sub == "" && l == resource) {
			return true
		}
		if sub != "" {
			if r, s, ok := strings.Cut(l, "/"); ok && s == sub && (r == "*" || r == resource) {
				return true
			}
		}
	}
	return false
}

// pathMatches knows whole paths, "*", and a trailing * as in "/healthz/*".
func pathMatches(list []string, path string) bool {
	for _, l := range list {
		if l == "*" || l == path {
			return true
		}
		if prefix, ok := strings.CutSuffix(l, "*"); ok && strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}
