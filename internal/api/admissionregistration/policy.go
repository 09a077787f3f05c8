package admissionregistration

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/validate"
)

const (
	maxAuditAnnotations = 20
	maxAuditExpression  = 5 * 1024 // bytes
)

func defaultPolicy(failure **admissionv1.FailurePolicyType, match *admissionv1.MatchResources) {
	defaults.Ptr(failure, admissionv1.Fail)
	defaultMatch(match)
}

func defaultMatch(m *admissionv1.MatchResources) {
	if m == nil {
		return
	}
	defaults.Ptr(&m.MatchPolicy, admissionv1.Equivalent)
	defaults.Ptr(&m.NamespaceSelector, metav1.LabelSelector{})
	defaults.Ptr(&m.ObjectSelector, metav1.LabelSelector{})
	for _, rules := range [][]admissionv1.NamedRuleWithOperations{m.ResourceRules, m.ExcludeResourceRules} {
		for i := range rules {
			defaults.Ptr(&rules[i].Scope, admissionv1.AllScopes)
		}
	}
}

func validateValidatingPolicy(p, old *admissionv1.ValidatingAdmissionPolicy, sub string) field.ErrorList {
	var e validate.Errs
	if sub == "status" {
		at := validate.Root("status")
		if t := p.Status.TypeChecking; t != nil {
			for i, w := range t.ExpressionWarnings {
				warning := at.Child("typeChecking").Child("expressionWarnings").Index(i)
				if w.Warning == "" {
					e.Required(warning.Child("warning"), "")
				}
				if strings.TrimSpace(w.FieldRef) == "" {
					e.Required(warning.Child("fieldRef"), "")
				}
			}
		}
		e.Add(metavalidation.ValidateConditions(p.Status.Conditions, at.Child("conditions").Field())...)
		return e.List()
	}
	at, s := validate.Root("spec"), &p.Spec
	var was []admissionv1.MatchCondition
	if old != nil {
		was = old.Spec.MatchConditions
	}
	policy(&e, s.FailurePolicy, s.ParamKind, s.MatchConstraints, s.MatchConditions, was, old != nil, at)
	variables(&e, s.Variables, at.Child("variables"))
	if len(s.Validations) == 0 && len(s.AuditAnnotations) == 0 {
		e.Required(at.Child("validations"), "validations or auditAnnotations must contain at least one item")
		e.Required(at.Child("auditAnnotations"), "validations or auditAnnotations must contain at least one item")
		return e.List()
	}
	for i := range s.Validations {
		rule(&e, &s.Validations[i], at.Child("validations").Index(i))
	}
	annotations(&e, p.Name, s.AuditAnnotations, at.Child("auditAnnotations"))
	return e.List()
}

// policy checks what validating and mutating policies have in common.
func policy(e *validate.Errs, failure *admissionv1.FailurePolicyType, kind *admissionv1.ParamKind, match *admissionv1.MatchResources,
	conditions, was []admissionv1.MatchCondition, update bool, p *validate.Path) {
	if failure == nil {
		e.Required(p.Child("failurePolicy"), "")
	} else {
		validate.OneOf(e, p.Child("failurePolicy"), *failure, admissionv1.Fail, admissionv1.Ignore)
	}
	if kind != nil {
		paramKind(e, kind, p.Child("paramKind"))
	}
	at := p.Child("matchConstraints")
	if match == nil {
		e.Required(at, "")
	} else {
		matchResources(e, match, at)
		if len(match.ResourceRules) == 0 { // they tell the types
			e.Required(at.Child("resourceRules"), "")
		}
	}
	matchConditions(e, conditions, was, update, p.Child("matchConditions"))
}

func paramKind(e *validate.Errs, k *admissionv1.ParamKind, p *validate.Path) {
	at := p.Child("apiVersion")
	if k.APIVersion == "" {
		e.Required(at, "")
	} else if gv, err := schema.ParseGroupVersion(k.APIVersion); err != nil {
		e.Invalid(at, k.APIVersion, err.Error())
	} else {
		if why := validate.Subdomain(gv.Group); gv.Group != "" && why != nil {
			e.Invalid(at, gv.Group, strings.Join(why, ","))
		}
		if gv.Version == "" {
			e.Invalid(at, k.APIVersion, "version must be specified")
		} else if why := validate.Label1035(gv.Version); why != nil {
			e.Invalid(at, gv.Version, strings.Join(why, ","))
		}
	}
	if k.Kind == "" {
		e.Required(p.Child("kind"), "")
	} else if why := validate.Label1035(strings.ToLower(k.Kind)); why != nil {
		e.Invalid(p.Child("kind"), k.Kind, "may have mixed case, but should otherwise match: "+strings.Join(why, ","))
	}
}

func matchResources(e *validate.Errs, m *admissionv1.MatchResources, p *validate.Path) {
	if m.MatchPolicy == nil {
		e.Required(p.Child("matchPolicy"), "")
	} else {
		validate.OneOf(e, p.Child("matchPolicy"), *m.MatchPolicy, admissionv1.Equivalent, admissionv1.Exact)
	}
	if m.NamespaceSelector == nil {
		e.Required(p.Child("namespaceSelector"), "")
	}
	validate.Selector(e, m.NamespaceSelector, p.Child("namespaceSelector"))
	if m.ObjectSelector == nil {
		e.Required(p.Child("objectSelector"), "")
	}
	validate.Selector(e, m.ObjectSelector, p.Child("objectSelector"))
	namedRules(e, m.ResourceRules, p.Child("resourceRules"))
	namedRules(e, m.ExcludeResourceRules, p.Child("excludeResourceRules"))
}

func namedRules(e *validate.Errs, rules []admissionv1.NamedRuleWithOperations, p *validate.Path) {
	for i := range rules {
		seen := map[string]bool{}
		for j, name := range rules[i].ResourceNames {
			at := p.Index(i).Child("resourceNames").Index(j)
			e.Invalids(at, name, validate.PathSegmentName(name, false))
			if seen[name] {
				e.Duplicate(at, name)
			}
			seen[name] = true
		}
		ruleWithOperations(e, &rules[i].RuleWithOperations, p.Index(i))
	}
}

func variables(e *validate.Errs, list []admissionv1.Variable, p *validate.Path) {
	identifier := regexp.MustCompile(`^[_a-zA-Z][_a-zA-Z0-9]*$`)
	reserved := []string{"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if",
		"import", "let", "loop", "package", "namespace", "return", "var", "void", "while"}
	for i, v := range list {
		at := p.Index(i)
		if strings.TrimSpace(v.Name) == "" {
			e.Required(at.Child("name"), "name is not specified")
		} else if !identifier.MatchString(v.Name) || slices.Contains(reserved, v.Name) {
			e.Invalid(at.Child("name"), v.Name, "must be a valid CEL identifier")
		}
		if strings.TrimSpace(v.Expression) == "" {
			e.Required(at.Child("expression"), "expression is not specified")
		}
	}
}

func rule(e *validate.Errs, v *admissionv1.Validation, p *validate.Path) {
	blank := func(s string) bool { return s != "" && strings.TrimSpace(s) == "" }
	if strings.TrimSpace(v.Expression) == "" {
		e.Required(p.Child("expression"), "expression is not specified")
	}
	if blank(v.MessageExpression) {
		e.Invalid(p.Child("messageExpression"), v.MessageExpression, "must be non-empty if specified")
	}
	if blank(v.Message) {
		e.Invalid(p.Child("message"), v.Message, "must be non-empty if specified")
	} else if strings.ContainsAny(strings.TrimSpace(v.Message), "\r\n") {
		e.Invalid(p.Child("message"), v.Message, "must not contain line breaks")
	}
	if v.Reason != nil {
		validate.OneOf(e, p.Child("reason"), *v.Reason, metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonRequestEntityTooLarge)
	}
}

func annotations(e *validate.Errs, policy string, list []admissionv1.AuditAnnotation, p *validate.Path) {
	if len(list) > maxAuditAnnotations {
		e.Invalid(p, list, fmt.Sprintf("must not have more than %d auditAnnotations", maxAuditAnnotations))
	}
	seen := map[string]bool{}
	for i, a := range list {
		at := p.Index(i)
		if policy == "" {
			e.Invalid(at.Child("key"), a.Key, "requires metadata.name be non-empty")
		} else {
			key := policy + "/" + a.Key
			e.Invalids(at.Child("key"), key, validate.QualifiedName(key))
		}
		switch n := len(strings.TrimSpace(a.ValueExpression)); {
		case n == 0:
			e.Required(at.Child("valueExpression"), "valueExpression is not specified")
		case n > maxAuditExpression:
			e.Required(at.Child("valueExpression"), fmt.Sprintf("must not exceed %d bytes in length", maxAuditExpression))
		}
		if seen[a.Key] {
			e.Duplicate(at.Child("key"), a.Key)
		}
		seen[a.Key] = true
	}
}

func validateMutatingPolicy(p, old *admissionv1.MutatingAdmissionPolicy, _ string) field.ErrorList {
	var e validate.Errs
	at, s := validate.Root("spec"), &p.Spec
	var was []admissionv1.MatchCondition
	if old != nil {
		was = old.Spec.MatchConditions
	}
	policy(&e, s.FailurePolicy, s.ParamKind, s.MatchConstraints, s.MatchConditions, was, old != nil, at)
	if s.MatchConstraints != nil {
		noDelete(&e, s.MatchConstraints.ResourceRules, at.Child("matchConstraints"))
	}
	variables(&e, s.Variables, at.Child("variables"))
	if len(s.Mutations) == 0 {
		e.Required(at.Child("mutations"), "mutations must contain at least one item")
	}
	for i := range s.Mutations {
		mutation(&e, &s.Mutations[i], at.Child("mutations").Index(i))
	}
	validate.RequiredOneOf(&e, at.Child("reinvocationPolicy"), s.ReinvocationPolicy, admissionv1.IfNeededReinvocationPolicy, admissionv1.NeverReinvocationPolicy)
	return e.List()
}

// noDelete refuses the operation that has no object to change.
func noDelete(e *validate.Errs, rules []admissionv1.NamedRuleWithOperations, p *validate.Path) {
	for i := range rules {
		for _, o := range rules[i].Operations {
			validate.OneOf(e, p.Child("resourceRules").Child("operations"), o,
				admissionv1.OperationAll, admissionv1.Connect, admissionv1.Create, admissionv1.Update)
		}
	}
}

func mutation(e *validate.Errs, m *admissionv1.Mutation, p *validate.Path) {
	apply, patch := p.Child("applyConfiguration"), p.Child("jsonPatch")
	switch m.PatchType {
	case "":
		e.Required(p.Child("patchType"), "")
	case admissionv1.PatchTypeJSONPatch:
		if m.JSONPatch == nil {
			e.Required(patch, "must be specified when patchType is JSONPatch")
		} else if strings.TrimSpace(m.JSONPatch.Expression) == "" {
			e.Required(patch.Child("expression"), "")
		}
		if m.ApplyConfiguration != nil {
			e.Invalid(apply, "{applyConfiguration}", "must not be specified when patchType is JSONPatch")
		}
	case admissionv1.PatchTypeApplyConfiguration:
		if m.ApplyConfiguration == nil {
			e.Required(apply, "must be specified when patchType is ApplyConfiguration")
		} else if strings.TrimSpace(m.ApplyConfiguration.Expression) == "" {
			e.Required(apply.Child("expression"), "")
		}
		if m.JSONPatch != nil {
			e.Invalid(patch, "{jsonPatch}", "must not be specified when patchType is ApplyConfiguration")
		}
	default:
		validate.NotSupported(e, p.Child("patchType"), m.PatchType, admissionv1.PatchTypeApplyConfiguration, admissionv1.PatchTypeJSONPatch)
	}
}

func validateValidatingBinding(b, _ *admissionv1.ValidatingAdmissionPolicyBinding, _ string) field.ErrorList {
	var e validate.Errs
	p, s := validate.Root("spec"), &b.Spec
	binding(&e, s.PolicyName, s.ParamRef, s.MatchResources, p)
	at := p.Child("validationActions")
	seen := map[admissionv1.ValidationAction]bool{}
	for i, a := range s.ValidationActions {
		validate.OneOf(&e, at.Index(i), a, admissionv1.Audit, admissionv1.Deny, admissionv1.Warn)
		if seen[a] {
			e.Duplicate(at.Index(i), a)
		}
		seen[a] = true
	}
	if seen[admissionv1.Deny] && seen[admissionv1.Warn] {
		e.Invalid(at, s.ValidationActions, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)")
	}
	if len(seen) == 0 {
		e.Required(at, "at least one validation action is required")
	}
	return e.List()
}

func validateMutatingBinding(b, _ *admissionv1.MutatingAdmissionPolicyBinding, _ string) field.ErrorList {
	var e validate.Errs
	p, s := validate.Root("spec"), &b.Spec
	binding(&e, s.PolicyName, s.ParamRef, s.MatchResources, p)
	if s.MatchResources != nil {
		noDelete(&e, s.MatchResources.ResourceRules, p.Child("matchResources"))
	}
	return e.List()
}

func binding(e *validate.Errs, policy string, ref *admissionv1.ParamRef, match *admissionv1.MatchResources, p *validate.Path) {
	if policy == "" {
		e.Required(p.Child("policyName"), "")
	} else {
		e.Invalids(p.Child("policyName"), policy, validate.Subdomain(policy))
	}
	if ref != nil {
		paramRef(e, ref, p.Child("paramRef"))
	}
	if match != nil {
		matchResources(e, match, p.Child("matchResources"))
	}
}

func paramRef(e *validate.Errs, r *admissionv1.ParamRef, p *validate.Path) {
	const exclusive = "name and selector are mutually exclusive"
	if r.Name != "" {
		e.Invalids(p.Child("name"), r.Name, validate.PathSegmentName(r.Name, false))
		if r.Selector != nil {
			e.Forbidden(p.Child("name"), exclusive)
		}
	}
	if r.Selector != nil {
		validate.Selector(e, r.Selector, p.Child("selector"))
		if r.Name != "" {
			e.Forbidden(p.Child("selector"), exclusive)
		}
	}
	if r.Name == "" && r.Selector == nil {
		e.Required(p, "one of name or selector must be specified")
	}
	if a := r.ParameterNotFoundAction; a == nil || *a == "" {
		e.Required(p.Child("parameterNotFoundAction"), "")
	} else {
		validate.OneOf(e, p.Child("parameterNotFoundAction"), *a, admissionv1.DenyAction, admissionv1.AllowAction)
	}
}
