// Package policy holds the roles and bindings that every Kubernetes cluster
// starts with, under the names and with the rules of v1.36, and how a cluster's
// own copies are brought up to date without undoing what its owner added.
package policy

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
)

// role in short form. A rule is "VERBS | GROUPS | RESOURCES [| NAMES]", or
// "VERBS | PATHS" for what is no resource; "core" is the group "".
type role struct {
	name, namespace string
	rules           []string
	aggregatesTo    string // names of roles that collect this one
	collects        string
}

type binding struct {
	name, namespace string
	role            string // "Role/NAME" in a namespace, else a cluster role's name
	subjects        []string
}

const (
	autoUpdate  = "rbac.authorization.kubernetes.io/autoupdate"
	aggregateTo = "rbac.authorization.k8s.io/aggregate-to-"
)

// Objects are all bootstrap roles and bindings, roles first. They are new copies.
func Objects() []api.Object {
	var all []api.Object
	cluster := slices.Concat(userRoles(), systemRoles(), controllerRoles())
	for _, r := range cluster {
		all = append(all, clusterRole(r, cluster))
	}
	for _, r := range namespacedRoles() {
		all = append(all, &rbacv1.Role{ObjectMeta: meta(r.name, r.namespace), Rules: rules(r)})
	}
	for _, r := range controllerRoles() {
		sa := strings.TrimPrefix(r.name, "system:controller:")
		all = append(all, bind(binding{name: r.name, role: r.name, subjects: []string{"sa:kube-system:" + sa}}))
	}
	for _, b := range bindings() {
		all = append(all, bind(b))
	}
	return all
}

func meta(name, namespace string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: name, Namespace: namespace,
		Labels:      map[string]string{"kubernetes.io/bootstrapping": "rbac-defaults"},
		Annotations: map[string]string{autoUpdate: "true"},
	}
}

// clusterRole is complete from the start: what it collects is in its rules
// already, before the aggregation controller has run.
func clusterRole(r role, all []role) *rbacv1.ClusterRole {
	c := &rbacv1.ClusterRole{ObjectMeta: meta(r.name, "")}
	for _, to := range strings.Fields(r.aggregatesTo) {
		c.Labels[aggregateTo+to] = "true"
	}
	c.Rules = collected(r, all)
	if r.collects != "" {
		c.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
			{MatchLabels: map[string]string{aggregateTo + r.collects: "true"}},
		}}
	}
	return c
}

func collected(r role, all []role) []rbacv1.PolicyRule {
	if r.collects == "" {
		return rules(r)
	}
	var out []rbacv1.PolicyRule
	for _, part := range all {
		if slices.Contains(strings.Fields(part.aggregatesTo), r.collects) {
			out = append(out, collected(part, all)...)
		}
	}
	return out
}

func rules(r role) []rbacv1.PolicyRule {
	out := make([]rbacv1.PolicyRule, 0, len(r.rules))
	for _, text := range r.rules {
		part := strings.Split(text, " | ")
		p := rbacv1.PolicyRule{Verbs: strings.Fields(part[0])}
		if len(part) == 2 {
			p.NonResourceURLs = strings.Fields(part[1])
		} else {
			p.APIGroups, p.Resources = strings.Fields(part[1]), strings.Fields(part[2])
			for i, g := range p.APIGroups {
				if g == "core" {
					p.APIGroups[i] = ""
				}
			}
		}
		if len(part) == 4 {
			p.ResourceNames = strings.Fields(part[3])
		}
		out = append(out, p)
	}
	return out
}

func bind(b binding) api.Object {
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: b.role}
	if name, ok := strings.CutPrefix(b.role, "Role/"); ok {
		ref.Kind, ref.Name = "Role", name
	}
	var subjects []rbacv1.Subject
	for _, s := range b.subjects {
		kind, name, _ := strings.Cut(s, ":")
		switch kind {
		case "user":
			subjects = append(subjects, rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: name})
		case "group":
			subjects = append(subjects, rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: name})
		case "sa":
			ns, sa, _ := strings.Cut(name, ":")
			subjects = append(subjects, rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: sa})
		}
	}
	if b.namespace == "" {
		return &rbacv1.ClusterRoleBinding{ObjectMeta: meta(b.name, ""), RoleRef: ref, Subjects: subjects}
	}
	return &rbacv1.RoleBinding{ObjectMeta: meta(b.name, b.namespace), RoleRef: ref, Subjects: subjects}
}

// Merge brings an existing bootstrap object up to date: rules and subjects that
// are missing are added, nothing is taken away. It returns nil when there is
// nothing to do, or when the owner has set the autoupdate annotation to false.
// A binding whose role differs cannot be changed and is left alone.
func Merge(existing, wanted api.Object) api.Object {
	if existing.GetAnnotations()[autoUpdate] != "true" {
		return nil
	}
	out := existing.DeepCopyObject().(api.Object)
	changed := false
	switch w := wanted.(type) {
	case *rbacv1.ClusterRole:
		o := out.(*rbacv1.ClusterRole)
		for k, v := range w.Labels {
			if o.Labels[k] != v {
				metav1.SetMetaDataLabel(&o.ObjectMeta, k, v)
				changed = true
			}
		}
		if w.AggregationRule != nil {
			if o.AggregationRule == nil {
				o.AggregationRule, changed = w.AggregationRule, true
			}
			break // the controller keeps the rules
		}
		o.Rules, changed = addRules(o.Rules, w.Rules, changed)
	case *rbacv1.Role:
		o := out.(*rbacv1.Role)
		o.Rules, changed = addRules(o.Rules, w.Rules, changed)
	case *rbacv1.ClusterRoleBinding:
		o := out.(*rbacv1.ClusterRoleBinding)
		if o.RoleRef == w.RoleRef {
			o.Subjects, changed = addSubjects(o.Subjects, w.Subjects)
		}
	case *rbacv1.RoleBinding:
		o := out.(*rbacv1.RoleBinding)
		if o.RoleRef == w.RoleRef {
			o.Subjects, changed = addSubjects(o.Subjects, w.Subjects)
		}
	}
	if !changed {
		return nil
	}
	return out
}

func addRules(have, want []rbacv1.PolicyRule, changed bool) ([]rbacv1.PolicyRule, bool) {
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(h, w) }) {
			have, changed = append(have, w), true
		}
	}
	return have, changed
}

func addSubjects(have, want []rbacv1.Subject) ([]rbacv1.Subject, bool) {
	changed := false
	for _, w := range want {
		if !slices.Contains(have, w) {
			have, changed = append(have, w), true
		}
	}
	return have, changed
}

// NodeRules are what the Node authoriser starts from: those of system:node.
func NodeRules() []rbacv1.PolicyRule {
	for _, r := range systemRoles() {
		if r.name == "system:node" {
			return rules(r)
		}
	}
	return nil
}
