package flowcontrol

import (
	"fmt"
	"math"
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api/validate"
)

const (
	exempt        = "exempt"
	maxPrecedence = 10000
	maxQueues     = 10 * 1000 * 1000
	maxHashBits   = 60 // of the hash that deals hands of queues
)

func validateFlowSchema(f, _ *flowcontrolv1.FlowSchema, sub string) field.ErrorList {
	var e validate.Errs
	at := validate.Root("status").Child("conditions")
	seen := map[flowcontrolv1.FlowSchemaConditionType]bool{}
	if sub != "status" {
		flowSchemaSpec(&e, f, validate.Root("spec"))
	}
	for i, c := range f.Status.Conditions {
		if seen[c.Type] {
			e.Duplicate(at.Index(i).Child("type"), c.Type)
		}
		seen[c.Type] = true
		if c.Type == "" {
			e.Required(at.Index(i).Child("type"), "")
		}
	}
	return e.List()
}

func flowSchemaSpec(e *validate.Errs, f *flowcontrolv1.FlowSchema, p *validate.Path) {
	s, precedence := &f.Spec, p.Child("matchingPrecedence")
	if s.MatchingPrecedence <= 0 {
		e.Invalid(precedence, s.MatchingPrecedence, "must be a positive value")
	}
	if s.MatchingPrecedence > maxPrecedence {
		e.Invalid(precedence, s.MatchingPrecedence, fmt.Sprintf("must not be greater than %v", maxPrecedence))
	}
	if s.MatchingPrecedence == 1 && f.Name != exempt {
		e.Invalid(precedence, s.MatchingPrecedence, "only the schema named 'exempt' may have matchingPrecedence 1")
	}
	if d := s.DistinguisherMethod; d != nil {
		validate.OneOf(e, p.Child("distinguisherMethod").Child("type"), d.Type,
			flowcontrolv1.FlowDistinguisherMethodByNamespaceType, flowcontrolv1.FlowDistinguisherMethodByUserType)
	}
	if at, name := p.Child("priorityLevelConfiguration").Child("name"), s.PriorityLevelConfiguration.Name; name == "" {
		e.Required(at, "must reference a priority level")
	} else {
		e.Invalids(at, name, validate.Subdomain(name))
	}
	for i := range s.Rules {
		rules(e, &s.Rules[i], p.Child("rules").Index(i))
	}
}

func rules(e *validate.Errs, r *flowcontrolv1.PolicyRulesWithSubjects, p *validate.Path) {
	if len(r.Subjects) == 0 {
		e.Required(p.Child("subjects"), "subjects must contain at least one value")
	}
	for i := range r.Subjects {
		subject(e, &r.Subjects[i], p.Child("subjects").Index(i))
	}
	if len(r.ResourceRules) == 0 && len(r.NonResourceRules) == 0 {
		e.Required(p, "at least one of resourceRules and nonResourceRules has to be non-empty")
	}
	for i := range r.ResourceRules {
		resourceRule(e, &r.ResourceRules[i], p.Child("resourceRules").Index(i))
	}
	for i := range r.NonResourceRules {
		nonResourceRule(e, &r.NonResourceRules[i], p.Child("nonResourceRules").Index(i))
	}
}

func subject(e *validate.Errs, s *flowcontrolv1.Subject, p *validate.Path) {
	account, user, group := flowcontrolv1.SubjectKindServiceAccount, flowcontrolv1.SubjectKindUser, flowcontrolv1.SubjectKindGroup
	if s.Kind != account && s.Kind != user && s.Kind != group {
		validate.NotSupported(e, p.Child("kind"), s.Kind, group, account, user)
		return
	}
	for _, part := range []struct {
		kind  flowcontrolv1.SubjectKind
		name  string
		given bool
	}{{account, "serviceAccount", s.ServiceAccount != nil}, {user, "user", s.User != nil}, {group, "group", s.Group != nil}} {
		if part.kind == s.Kind && !part.given {
			e.Required(p.Child(part.name), fmt.Sprintf("%s is required when subject kind is '%s'", part.name, part.kind))
		}
		if part.kind != s.Kind && part.given {
			e.Forbidden(p.Child(part.name), fmt.Sprintf("%s is forbidden when subject kind is not '%s'", part.name, part.kind))
		}
	}
	switch {
	case s.Kind == account && s.ServiceAccount != nil:
		serviceAccount(e, s.ServiceAccount, p.Child("serviceAccount"))
	case s.Kind == user && s.User != nil && s.User.Name == "":
		e.Required(p.Child("user").Child("name"), "")
	case s.Kind == group && s.Group != nil && s.Group.Name == "":
		e.Required(p.Child("group").Child("name"), "")
	}
}

func serviceAccount(e *validate.Errs, s *flowcontrolv1.ServiceAccountSubject, p *validate.Path) {
	if s.Name == "" {
		e.Required(p.Child("name"), "")
	} else if s.Name != flowcontrolv1.NameAll {
		e.Invalids(p.Child("name"), s.Name, validate.Subdomain(s.Name))
	}
	if s.Namespace == "" {
		e.Required(p.Child("namespace"), "must specify namespace for service account")
	} else {
		e.Invalids(p.Child("namespace"), s.Namespace, validate.Label(s.Namespace))
	}
}

// alone reports whether list has the wildcard, which must be its only member.
func alone(e *validate.Errs, list []string, what string, p *validate.Path) bool {
	if !slices.Contains(list, "*") {
		return false
	}
	if len(list) > 1 {
		e.Invalid(p, list, "if '*' is present, must not specify other "+what)
	}
	return true
}

func verbs(e *validate.Errs, list []string, p *validate.Path) {
	known := []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}
	if len(list) == 0 {
		e.Required(p, "verbs must contain at least one value")
		return
	}
	if alone(e, list, "verbs", p) {
		return
	}
	for _, v := range list {
		if !slices.Contains(known, v) {
			validate.NotSupported(e, p, list, known...)
			return
		}
	}
}

func nonResourceRule(e *validate.Errs, r *flowcontrolv1.NonResourcePolicyRule, p *validate.Path) {
	verbs(e, r.Verbs, p.Child("verbs"))
	at := p.Child("nonResourceURLs")
	if len(r.NonResourceURLs) == 0 {
		e.Required(at, "nonResourceURLs must contain at least one value")
		return
	}
	if alone(e, r.NonResourceURLs, "non-resource URLs", at) {
		return
	}
	for i, path := range r.NonResourceURLs {
		if why := badPath(path); why != "" {
			e.Invalid(at.Index(i), path, why)
		}
	}
}

func badPath(path string) string {
	switch n := strings.Count(path, "*"); {
	case path == "":
		return "must not be empty"
	case path == "/":
		return ""
	case !strings.HasPrefix(path, "/"):
		return "must start with slash"
	case strings.Contains(path, " "):
		return "must not contain white-space"
	case strings.Contains(path, "//"):
		return "must not contain double slash"
	case n > 1 || n == 1 && !strings.HasSuffix(path, "/*"):
		return "wildcard can only do suffix matching"
	}
	return ""
}

func resourceRule(e *validate.Errs, r *flowcontrolv1.ResourcePolicyRule, p *validate.Path) {
	verbs(e, r.Verbs, p.Child("verbs"))
	if len(r.APIGroups) == 0 {
		e.Required(p.Child("apiGroups"), "resource rules must supply at least one api group")
	}
	alone(e, r.APIGroups, "api groups", p.Child("apiGroups"))
	if len(r.Resources) == 0 {
		e.Required(p.Child("resources"), "resource rules must supply at least one resource")
	}
	alone(e, r.Resources, "resources", p.Child("resources"))
	at := p.Child("namespaces")
	if len(r.Namespaces) == 0 && !r.ClusterScope {
		e.Required(at, "resource rules that are not cluster scoped must supply at least one namespace")
		return
	}
	if alone(e, r.Namespaces, "namespaces", at) {
		return
	}
	for i, ns := range r.Namespaces {
		for _, why := range validate.Label(ns) {
			e.Invalid(at.Index(i), ns, "each member of this list must be '*' or a DNS-1123 label; "+why)
		}
	}
}

func validateLevel(l, _ *flowcontrolv1.PriorityLevelConfiguration, sub string) field.ErrorList {
	var e validate.Errs
	if sub != "status" {
		levelSpec(&e, l, validate.Root("spec"))
	}
	at := validate.Root("status").Child("conditions")
	seen := map[flowcontrolv1.PriorityLevelConfigurationConditionType]bool{}
	for i, c := range l.Status.Conditions {
		if seen[c.Type] {
			e.Duplicate(at.Index(i).Child("type"), c.Type)
		}
		seen[c.Type] = true
		if c.Type == "" {
			e.Required(at.Index(i).Child("type"), "")
		}
	}
	return e.List()
}

func levelSpec(e *validate.Errs, l *flowcontrolv1.PriorityLevelConfiguration, p *validate.Path) {
	const zeroShares = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares"
	if _, ok := l.Annotations[zeroShares]; ok {
		e.Forbidden(validate.Root("metadata").Child("annotations"), "annotation '"+zeroShares+"' is forbidden")
	}
	s := &l.Spec
	if (l.Name == exempt) != (s.Type == flowcontrolv1.PriorityLevelEnablementExempt) {
		e.Invalid(p.Child("type"), s.Type, "must be 'Exempt' if and only if `name` is 'exempt'")
	}
	switch s.Type {
	case flowcontrolv1.PriorityLevelEnablementExempt:
		if s.Limited != nil {
			e.Forbidden(p.Child("limited"), "must be nil if the type is not Limited")
		}
		if s.Exempt != nil {
			shares(e, s.Exempt.NominalConcurrencyShares, s.Exempt.LendablePercent, p.Child("exempt"))
		}
	case flowcontrolv1.PriorityLevelEnablementLimited:
		if s.Exempt != nil {
			e.Forbidden(p.Child("exempt"), "must be nil if the type is Limited")
		}
		if s.Limited == nil {
			e.Required(p.Child("limited"), "must not be empty when type is Limited")
		} else {
			limited(e, s.Limited, p.Child("limited"))
		}
	default:
		validate.RequiredOneOf(e, p.Child("type"), s.Type, flowcontrolv1.PriorityLevelEnablementExempt, flowcontrolv1.PriorityLevelEnablementLimited)
	}
}

func shares(e *validate.Errs, nominal, lendable *int32, p *validate.Path) {
	if nominal != nil && *nominal < 0 {
		e.Invalid(p.Child("nominalConcurrencyShares"), *nominal, "must be a non-negative integer")
	}
	if lendable != nil && (*lendable < 0 || *lendable > 100) {
		e.Invalid(p.Child("lendablePercent"), *lendable, "must be between 0 and 100, inclusive")
	}
}

func limited(e *validate.Errs, l *flowcontrolv1.LimitedPriorityLevelConfiguration, p *validate.Path) {
	shares(e, l.NominalConcurrencyShares, l.LendablePercent, p)
	if n := l.BorrowingLimitPercent; n != nil && *n < 0 {
		e.Invalid(p.Child("borrowingLimitPercent"), *n, "if specified, must be a non-negative integer")
	}
	at, r := p.Child("limitResponse"), &l.LimitResponse
	switch r.Type {
	case flowcontrolv1.LimitResponseTypeReject:
		if r.Queuing != nil {
			e.Forbidden(at.Child("queuing"), "must be nil if limited.limitResponse.type is not Limited")
		}
	case flowcontrolv1.LimitResponseTypeQueue:
		if r.Queuing == nil {
			e.Required(at.Child("queuing"), "must not be empty if limited.limitResponse.type is Limited")
		} else {
			queuing(e, r.Queuing, at.Child("queuing"))
		}
	default:
		validate.RequiredOneOf(e, at.Child("type"), r.Type, flowcontrolv1.LimitResponseTypeQueue, flowcontrolv1.LimitResponseTypeReject)
	}
}

func queuing(e *validate.Errs, q *flowcontrolv1.QueuingConfiguration, p *validate.Path) {
	if q.QueueLengthLimit <= 0 {
		e.Invalid(p.Child("queueLengthLimit"), q.QueueLengthLimit, "must be positive")
	}
	if q.Queues <= 0 {
		e.Invalid(p.Child("queues"), q.Queues, "must be positive")
	} else if q.Queues > maxQueues {
		e.Invalid(p.Child("queues"), q.Queues, fmt.Sprintf("must not be greater than %d", maxQueues))
	}
	// A hand is dealt from the bits of one hash.
	bits := int(math.Ceil(math.Log2(float64(q.Queues)) * float64(q.HandSize)))
	switch {
	case q.HandSize <= 0:
		e.Invalid(p.Child("handSize"), q.HandSize, "must be positive")
	case q.HandSize > q.Queues:
		e.Invalid(p.Child("handSize"), q.HandSize, fmt.Sprintf("should not be greater than queues (%d)", q.Queues))
	case bits > maxHashBits:
		e.Invalid(p.Child("handSize"), q.HandSize,
			fmt.Sprintf("required entropy bits of deckSize %d and handSize %d should not be greater than %d", q.Queues, q.HandSize, maxHashBits))
	}
}
