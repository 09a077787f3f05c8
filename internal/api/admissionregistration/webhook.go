package admissionregistration

import (
	"fmt"
	"net/url"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func webhookColumns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		table.Name(),
		table.Col("Webhooks", "integer", "Webhooks indicates the number of webhooks registered in this configuration"),
		table.Age(),
	}
}

func validatingWebhooks() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("ValidatingWebhookConfiguration"),
		Resource:         "validatingwebhookconfigurations",
		New:              func() api.Object { return &admissionv1.ValidatingWebhookConfiguration{} },
		NewList:          func() runtime.Object { return &admissionv1.ValidatingWebhookConfigurationList{} },
		Default: api.Of(func(c *admissionv1.ValidatingWebhookConfiguration) {
			for i := range c.Webhooks {
				h := &c.Webhooks[i]
				defaultHook(&h.FailurePolicy, &h.MatchPolicy, &h.NamespaceSelector, &h.ObjectSelector, &h.TimeoutSeconds, h.Rules, h.ClientConfig.Service)
			}
		}),
		Reset: reset.Spec(func(c *admissionv1.ValidatingWebhookConfiguration) *[]admissionv1.ValidatingWebhook {
			return &c.Webhooks
		}),
		Validate: api.Validates(func(c, old *admissionv1.ValidatingWebhookConfiguration, _ string) field.ErrorList {
			var was []hook
			if old != nil {
				was = validatingHooks(old.Webhooks)
			}
			return webhooks(validatingHooks(c.Webhooks), was)
		}),
		Columns: webhookColumns(),
		Row: api.Rows(func(c *admissionv1.ValidatingWebhookConfiguration) []any {
			return []any{c.Name, int64(len(c.Webhooks)), table.AgeOf(c)}
		}),
	}
}

func mutatingWebhooks() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("MutatingWebhookConfiguration"),
		Resource:         "mutatingwebhookconfigurations",
		New:              func() api.Object { return &admissionv1.MutatingWebhookConfiguration{} },
		NewList:          func() runtime.Object { return &admissionv1.MutatingWebhookConfigurationList{} },
		Default: api.Of(func(c *admissionv1.MutatingWebhookConfiguration) {
			for i := range c.Webhooks {
				h := &c.Webhooks[i]
				defaultHook(&h.FailurePolicy, &h.MatchPolicy, &h.NamespaceSelector, &h.ObjectSelector, &h.TimeoutSeconds, h.Rules, h.ClientConfig.Service)
				defaults.Ptr(&h.ReinvocationPolicy, admissionv1.NeverReinvocationPolicy)
			}
		}),
		Reset: reset.Spec(func(c *admissionv1.MutatingWebhookConfiguration) *[]admissionv1.MutatingWebhook { return &c.Webhooks }),
		Validate: api.Validates(func(c, old *admissionv1.MutatingWebhookConfiguration, _ string) field.ErrorList {
			var was []hook
			if old != nil {
				was = mutatingHooks(old.Webhooks)
			}
			return webhooks(mutatingHooks(c.Webhooks), was)
		}),
		Columns: webhookColumns(),
		Row: api.Rows(func(c *admissionv1.MutatingWebhookConfiguration) []any {
			return []any{c.Name, int64(len(c.Webhooks)), table.AgeOf(c)}
		}),
	}
}

func defaultHook(failure **admissionv1.FailurePolicyType, match **admissionv1.MatchPolicyType, namespaces, objects **metav1.LabelSelector,
	timeout **int32, rules []admissionv1.RuleWithOperations, service *admissionv1.ServiceReference) {
	defaults.Ptr(failure, admissionv1.Fail)
	defaults.Ptr(match, admissionv1.Equivalent)
	defaults.Ptr(namespaces, metav1.LabelSelector{})
	defaults.Ptr(objects, metav1.LabelSelector{})
	defaults.Ptr(timeout, 10)
	for i := range rules {
		defaults.Ptr(&rules[i].Scope, admissionv1.AllScopes)
	}
	if service != nil {
		defaults.Ptr(&service.Port, 443)
	}
}

// hook is what both kinds of webhooks are checked for: a mutating webhook, whose
// last field the validating ones lack.
type hook = admissionv1.MutatingWebhook

func mutatingHooks(list []admissionv1.MutatingWebhook) []hook { return list }

func validatingHooks(list []admissionv1.ValidatingWebhook) []hook {
	out := make([]hook, len(list))
	for i, h := range list {
		out[i] = hook{Name: h.Name, ClientConfig: h.ClientConfig, Rules: h.Rules, FailurePolicy: h.FailurePolicy, MatchPolicy: h.MatchPolicy,
			NamespaceSelector: h.NamespaceSelector, ObjectSelector: h.ObjectSelector, SideEffects: h.SideEffects,
			TimeoutSeconds: h.TimeoutSeconds, AdmissionReviewVersions: h.AdmissionReviewVersions, MatchConditions: h.MatchConditions}
	}
	return out
}

// lenient says what an update need not mend, for it was so before.
type lenient struct{ sideEffects, versions, names, values bool }

func leniency(old []hook) lenient {
	var l lenient
	seen := map[string]bool{}
	for i := range old {
		h := &old[i]
		if s := h.SideEffects; s == nil || *s != admissionv1.SideEffectClassNone && *s != admissionv1.SideEffectClassNoneOnDryRun {
			l.sideEffects = true
		}
		l.versions = l.versions || len(h.AdmissionReviewVersions) > 0 && !anyAccepted(h.AdmissionReviewVersions)
		l.names = l.names || h.Name != "" && seen[h.Name]
		seen[h.Name] = true
		var e validate.Errs
		validate.Selector(&e, h.NamespaceSelector, validate.Root(""))
		validate.Selector(&e, h.ObjectSelector, validate.Root(""))
		l.values = l.values || e.Len() > 0
	}
	return l
}

func anyAccepted(versions []string) bool {
	for _, v := range versions {
		if v == "v1" || v == "v1beta1" {
			return true
		}
	}
	return false
}

func webhooks(list, old []hook) field.ErrorList {
	var e validate.Errs
	allow := leniency(old)
	seen := map[string]bool{}
	for i := range list {
		p, h := validate.Root("webhooks").Index(i), &list[i]
		webhook(&e, h, allow, p)
		if i < len(old) && len(list) == len(old) {
			matchConditions(&e, h.MatchConditions, old[i].MatchConditions, true, p.Child("matchConditions"))
		} else {
			matchConditions(&e, h.MatchConditions, nil, false, p.Child("matchConditions"))
		}
		reviewVersions(&e, h.AdmissionReviewVersions, allow.versions, p.Child("admissionReviewVersions"))
		if h.Name != "" && seen[h.Name] && !allow.names {
			e.Duplicate(p.Child("name"), h.Name)
		}
		seen[h.Name] = true
	}
	return e.List()
}

func webhook(e *validate.Errs, h *hook, allow lenient, p *validate.Path) {
	e.Add(validation.IsFullyQualifiedName(p.Child("name").Field(), h.Name)...)
	for i := range h.Rules {
		ruleWithOperations(e, &h.Rules[i], p.Child("rules").Index(i))
	}
	if h.FailurePolicy != nil {
		validate.OneOf(e, p.Child("failurePolicy"), *h.FailurePolicy, admissionv1.Fail, admissionv1.Ignore)
	}
	if h.MatchPolicy != nil {
		validate.OneOf(e, p.Child("matchPolicy"), *h.MatchPolicy, admissionv1.Equivalent, admissionv1.Exact)
	}
	effects := []admissionv1.SideEffectClass{admissionv1.SideEffectClassNone, admissionv1.SideEffectClassNoneOnDryRun}
	if allow.sideEffects {
		effects = append(effects, admissionv1.SideEffectClassSome, admissionv1.SideEffectClassUnknown)
	}
	if h.SideEffects == nil {
		e.Required(p.Child("sideEffects"), "must specify one of "+join(effects))
	} else {
		validate.OneOf(e, p.Child("sideEffects"), *h.SideEffects, effects...)
	}
	if n := h.TimeoutSeconds; n != nil && (*n > 30 || *n < 1) {
		e.Invalid(p.Child("timeoutSeconds"), *n, "the timeout value must be between 1 and 30 seconds")
	}
	hookSelector(e, h.NamespaceSelector, allow, p.Child("namespaceSelector"))
	hookSelector(e, h.ObjectSelector, allow, p.Child("objectSelector"))
	if h.ReinvocationPolicy != nil {
		validate.OneOf(e, p.Child("reinvocationPolicy"), *h.ReinvocationPolicy, admissionv1.IfNeededReinvocationPolicy, admissionv1.NeverReinvocationPolicy)
	}
	c, at := &h.ClientConfig, p.Child("clientConfig")
	switch {
	case (c.URL == nil) == (c.Service == nil):
		e.Required(at, "exactly one of url or service is required")
	case c.URL != nil:
		webhookURL(e, *c.URL, at.Child("url"))
	default:
		webhookService(e, c.Service, at.Child("service"))
	}
}

func hookSelector(e *validate.Errs, s *metav1.LabelSelector, allow lenient, p *validate.Path) {
	if allow.values {
		validate.SelectorUpdate(e, s, s, p)
	} else {
		validate.Selector(e, s, p)
	}
}

func reviewVersions(e *validate.Errs, versions []string, anyVersion bool, p *validate.Path) {
	if len(versions) == 0 {
		e.Required(p, "must specify one of v1, v1beta1")
		return
	}
	seen := map[string]bool{}
	for i, v := range versions {
		if seen[v] {
			e.Invalid(p.Index(i), v, "duplicate version")
			continue
		}
		seen[v] = true
		e.Invalids(p.Index(i), v, validate.Label1035(v))
	}
	if !anyVersion && !anyAccepted(versions) {
		e.Invalid(p, versions, "must include at least one of v1, v1beta1")
	}
}

func webhookURL(e *validate.Errs, text string, p *validate.Path) {
	const form = "; desired format: https://host[/path]"
	u, err := url.Parse(text)
	if err != nil {
		e.Required(p, "url must be a valid URL: "+err.Error()+form)
		return
	}
	if u.Scheme != "https" {
		e.Invalid(p, u.Scheme, "'https' is the only allowed URL scheme"+form)
	}
	if u.Host == "" {
		e.Invalid(p, u.Host, "host must be specified"+form)
	}
	if u.User != nil {
		e.Invalid(p, u.User.String(), "user information is not permitted in the URL")
	}
	if u.Fragment != "" {
		e.Invalid(p, u.Fragment, "fragments are not permitted in the URL")
	}
	if u.RawQuery != "" {
		e.Invalid(p, u.RawQuery, "query parameters are not permitted in the URL")
	}
}

func webhookService(e *validate.Errs, s *admissionv1.ServiceReference, p *validate.Path) {
	if s.Name == "" {
		e.Required(p.Child("name"), "")
	}
	if s.Namespace == "" {
		e.Required(p.Child("namespace"), "")
	}
	port := int32(443)
	if s.Port != nil {
		port = *s.Port
	}
	if why := validation.IsValidPortNum(int(port)); why != nil {
		e.Invalid(p.Child("port"), port, "port is not valid: "+strings.Join(why, ", "))
	}
	if s.Path == nil || *s.Path == "" || *s.Path == "/" {
		return
	}
	path, at := *s.Path, p.Child("path")
	if path == "//" {
		e.Invalid(at, path, "segment[0] may not be empty")
		return
	}
	if !strings.HasPrefix(path, "/") {
		e.Invalid(at, path, "must start with a '/'")
	}
	for i, step := range strings.Split(strings.TrimSuffix(path[1:], "/"), "/") {
		if step == "" {
			e.Invalid(at, path, fmt.Sprintf("segment[%d] may not be empty", i))
			continue
		}
		for _, why := range validate.Subdomain(step) {
			e.Invalid(at, path, fmt.Sprintf("segment[%d]: %v", i, why))
		}
	}
}

func join(effects []admissionv1.SideEffectClass) string {
	text := make([]string, len(effects))
	for i, e := range effects {
		text[i] = string(e)
	}
	return strings.Join(text, ", ")
}
