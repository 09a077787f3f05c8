package fairness

import (
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

const accountPrefix = "system:serviceaccount:"

// match returns the first schema that a request belongs to. There is one always:
// what nothing matches belongs to the last of the mandatory ones.
func (p *plan) match(u *request.User, i *request.Info) *schema {
	for n := range p.schemas {
		if slices.ContainsFunc(p.schemas[n].rules, func(r flowcontrolv1.PolicyRulesWithSubjects) bool { return applies(&r, u, i) }) {
			return &p.schemas[n]
		}
	}
	return &p.schemas[len(p.schemas)-1]
}

// flow of a request within its schema.
func (s *schema) flow(u *request.User, i *request.Info) string {
	switch s.by {
	case flowcontrolv1.FlowDistinguisherMethodByUserType:
		return u.Name
	case flowcontrolv1.FlowDistinguisherMethodByNamespaceType:
		return i.Namespace
	}
	return ""
}

func applies(r *flowcontrolv1.PolicyRulesWithSubjects, u *request.User, i *request.Info) bool {
	if !slices.ContainsFunc(r.Subjects, func(s flowcontrolv1.Subject) bool { return isSubject(&s, u) }) {
		return false
	}
	if i.IsResource {
		return slices.ContainsFunc(r.ResourceRules, func(r flowcontrolv1.ResourcePolicyRule) bool { return asksResource(&r, i) })
	}
	return slices.ContainsFunc(r.NonResourceRules, func(r flowcontrolv1.NonResourcePolicyRule) bool { return asksPath(&r, i) })
}

func isSubject(s *flowcontrolv1.Subject, u *request.User) bool {
	switch {
	case s.User != nil:
		return s.User.Name == "*" || s.User.Name == u.Name
	case s.Group != nil:
		return s.Group.Name == "*" || u.InGroup(s.Group.Name)
	case s.ServiceAccount != nil:
		namespace, name, ok := strings.Cut(strings.TrimPrefix(u.Name, accountPrefix), ":")
		return ok && strings.HasPrefix(u.Name, accountPrefix) && namespace == s.ServiceAccount.Namespace &&
			(s.ServiceAccount.Name == "*" || s.ServiceAccount.Name == name)
	}
	return false
}

func asksResource(r *flowcontrolv1.ResourcePolicyRule, i *request.Info) bool {
	if !has(r.Verbs, i.Verb) || !has(r.APIGroups, i.Group) {
		return false
	}
	resource := i.Resource
	if i.Subresource != "" {
		resource += "/" + i.Subresource
	}
	if !has(r.Resources, resource) {
		return false
	}
	if i.Namespace == "" || i.Resource == "namespaces" {
		return r.ClusterScope
	}
	return has(r.Namespaces, i.Namespace)
}

func asksPath(r *flowcontrolv1.NonResourcePolicyRule, i *request.Info) bool {
	return has(r.Verbs, i.Verb) && slices.ContainsFunc(r.NonResourceURLs, func(url string) bool {
		if prefix, ok := strings.CutSuffix(url, "*"); ok {
			return strings.HasPrefix(i.Path, prefix)
		}
		return url == i.Path
	})
}

func has(list []string, s string) bool {
	return slices.Contains(list, s) || len(list) == 1 && list[0] == "*"
}
