package admissionregistration

import (
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"

	"github.com/proa-dev/proa/internal/api/validate"
)

func ruleWithOperations(e *validate.Errs, r *admissionv1.RuleWithOperations, p *validate.Path) {
	at := p.Child("operations")
	if len(r.Operations) == 0 {
		e.Required(at, "")
	}
	if len(r.Operations) > 1 && slices.Contains(r.Operations, admissionv1.OperationAll) {
		e.Invalid(at, r.Operations, "if '*' is present, must not specify other operations")
	}
	for i, o := range r.Operations {
		validate.OneOf(e, at.Index(i), o, admissionv1.OperationAll, admissionv1.Connect, admissionv1.Create, admissionv1.Delete, admissionv1.Update)
	}
	if len(r.APIGroups) == 0 {
		e.Required(p.Child("apiGroups"), "")
	}
	if len(r.APIGroups) > 1 && slices.Contains(r.APIGroups, "*") {
		e.Invalid(p.Child("apiGroups"), r.APIGroups, "if '*' is present, must not specify other API groups")
	}
	if len(r.APIVersions) == 0 {
		e.Required(p.Child("apiVersions"), "")
	}
	if len(r.APIVersions) > 1 && slices.Contains(r.APIVersions, "*") {
		e.Invalid(p.Child("apiVersions"), r.APIVersions, "if '*' is present, must not specify other API versions")
	}
	for i, v := range r.APIVersions {
		if v == "" {
			e.Required(p.Child("apiVersions").Index(i), "")
		}
	}
	resources(e, r.Resources, p.Child("resources"))
	if r.Scope != nil {
		validate.OneOf(e, p.Child("scope"), *r.Scope, admissionv1.AllScopes, admissionv1.ClusterScope, admissionv1.NamespacedScope)
	}
}

// resources are "RESOURCE" or "RESOURCE/SUBRESOURCE", with * for any.
func resources(e *validate.Errs, list []string, p *validate.Path) {
	if len(list) == 0 {
		e.Required(p, "")
	}
	anySub, anyResource := map[string]bool{}, map[string]bool{}
	whole := false
	for i, r := range list {
		if r == "" {
			e.Required(p.Index(i), "")
			continue
		}
		resource, sub, found := strings.Cut(r, "/")
		if !found {
			whole = r != "*"
			continue
		}
		if anySub[resource] {
			e.Invalid(p.Index(i), r, fmt.Sprintf("if '%s/*' is present, must not specify %s", resource, r))
		}
		if anyResource[sub] {
			e.Invalid(p.Index(i), r, fmt.Sprintf("if '*/%s' is present, must not specify %s", sub, r))
		}
		if sub == "*" {
			anySub[resource] = true
		}
		if resource == "*" {
			anyResource[sub] = true
		}
	}
	if len(list) > 1 && slices.Contains(list, "*/*") {
		e.Invalid(p, list, "if '*/*' is present, must not specify other resources")
	}
	if slices.Contains(list, "*") && whole {
		e.Invalid(p, list, "if '*' is present, must not specify other resources without subresources")
	}
}

// matchConditions that are as they were are let be.
func matchConditions(e *validate.Errs, list, old []admissionv1.MatchCondition, update bool, p *validate.Path) {
	const most = 64
	if update && slices.Equal(list, old) {
		return
	}
	if len(list) > most {
		e.TooMany(p, len(list), most)
	}
	seen := map[string]bool{}
	for i, c := range list {
		at := p.Index(i)
		if strings.TrimSpace(c.Expression) == "" {
			e.Required(at.Child("expression"), "")
		}
		if c.Name == "" {
			e.Required(at.Child("name"), "")
			continue
		}
		e.Invalids(at.Child("name"), c.Name, validate.QualifiedName(c.Name))
		if seen[c.Name] {
			e.Duplicate(at.Child("name"), c.Name)
		}
		seen[c.Name] = true
	}
}
