package admission

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	celtypes "github.com/google/cel-go/common/types"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	plugin "k8s.io/apiserver/pkg/admission/plugin/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
)

// policies is what both kinds of policies need.
type policies struct {
	Policies, Bindings cache.Reader
	Namespaces         cache.Typed[*corev1.Namespace]
	Params             params
	Expressions        *Expressions
}

// ValidatingPolicies applies ValidatingAdmissionPolicies through their bindings.
type ValidatingPolicies struct{ policies }

// Name implements Plugin.
func (*ValidatingPolicies) Name() string { return "ValidatingAdmissionPolicy" }

// validatingPolicy is a policy ready to be evaluated.
type validatingPolicy struct {
	*admissionv1.ValidatingAdmissionPolicy
	criteria criteria
	program  func() (*validations, error)
}

// validations are a policy's expressions, compiled.
type validations struct {
	conditions, checks, messages, audit plugin.ConditionEvaluator
	variables                           *plugin.CompositedCompiler
}

func (p *ValidatingPolicies) prepare(i *cache.Item) *validatingPolicy {
	made, _ := i.Remember("policy", func() (any, error) {
		o := i.Object.(*admissionv1.ValidatingAdmissionPolicy)
		v := &validatingPolicy{ValidatingAdmissionPolicy: o}
		if o.Spec.MatchConstraints != nil {
			v.criteria = policyCriteria(o.Spec.MatchConstraints)
		}
		v.program = sync.OnceValues(func() (*validations, error) { return p.compile(o) })
		return v, nil
	})
	return made.(*validatingPolicy)
}

// variables that later expressions may use.
func variables(c *plugin.CompositedCompiler, of []admissionv1.Variable, decls plugin.OptionalVariableDeclarations) {
	all := make([]plugin.NamedExpressionAccessor, len(of))
	for i, v := range of {
		all[i] = &expression{v.Name, v.Expression, []*cel.Type{cel.AnyType, cel.DynType}}
	}
	c.CompileAndStoreVariables(all, decls, environment.StoredExpressions)
}

func (p *ValidatingPolicies) compile(o *admissionv1.ValidatingAdmissionPolicy) (*validations, error) {
	c, err := p.Expressions.compiler()
	if err != nil {
		return nil, err
	}
	decls := plugin.OptionalVariableDeclarations{HasParams: o.Spec.ParamKind != nil, HasAuthorizer: true}
	plain := plugin.OptionalVariableDeclarations{HasParams: decls.HasParams}
	variables(c, o.Spec.Variables, decls)
	var checks, messages, audit []plugin.ExpressionAccessor
	for _, v := range o.Spec.Validations {
		checks = append(checks, &expression{"", v.Expression, []*cel.Type{cel.BoolType}})
		if v.MessageExpression == "" {
			messages = append(messages, nil)
			continue
		}
		messages = append(messages, &expression{"", v.MessageExpression, []*cel.Type{cel.StringType}})
	}
	for _, a := range o.Spec.AuditAnnotations {
		audit = append(audit, &expression{a.Key, a.ValueExpression, []*cel.Type{cel.StringType, cel.NullType}})
	}
	v := &validations{variables: c}
	if len(o.Spec.MatchConditions) > 0 {
		v.conditions = p.Expressions.conditions(c, o.Spec.MatchConditions, decls.HasParams)
	}
	v.checks = c.CompileCondition(checks, decls, environment.StoredExpressions)
	v.messages = c.CompileCondition(messages, plain, environment.StoredExpressions)
	v.audit = c.CompileCondition(audit, decls, environment.StoredExpressions)
	return v, nil
}

// decision is one validation that failed.
type decision struct {
	message string
	reason  metav1.StatusReason
	index   int // of the validation
}

// Validate implements Validator.
func (p *ValidatingPolicies) Validate(ctx context.Context, w *Write) error {
	s := p.Policies.Snapshot()
	if s.Len() == 0 || exempt(w) {
		return nil
	}
	var denied error
	s.Ascend("", "", "", func(i *cache.Item) bool {
		v := p.prepare(i)
		k, ok, err := v.criteria.match(w, p.Namespaces)
		if err != nil {
			denied = p.misconfigured(w, v, "", "failed to configure policy", err)
		} else if ok {
			denied = p.through(ctx, v, k, w)
		}
		return denied == nil
	})
	return denied
}

// through applies a policy by all of its bindings.
func (p *ValidatingPolicies) through(ctx context.Context, v *validatingPolicy, k api.Served, w *Write) (denied error) {
	var attr *admission.VersionedAttributes
	said := annotations{}
	defer func() { said.publish(ctx, v.Name) }()
	p.Bindings.Snapshot().Ascend("", "", "", func(i *cache.Item) bool {
		b := i.Object.(*admissionv1.ValidatingAdmissionPolicyBinding)
		if b.Spec.PolicyName != v.Name {
			return true
		}
		if b.Spec.MatchResources != nil {
			c := bindingCriteria(b.Spec.MatchResources)
			if _, ok, err := c.match(w, p.Namespaces); err != nil {
				denied = p.misconfigured(w, v, b.Name, "failed to configure binding", err)
				return denied == nil
			} else if !ok {
				return true
			}
		}
		found, err := p.Params.of(v.Spec.ParamKind, b.Spec.ParamRef, w.Namespace)
		if err != nil {
			denied = p.misconfigured(w, v, b.Name, "failed to configure binding", err)
			return denied == nil
		}
		if attr == nil {
			if attr, err = versioned(w, k); err != nil {
				denied = p.misconfigured(w, v, b.Name, "failed to configure binding", fmt.Errorf("failed to convert object version: %w", err))
				return denied == nil
			}
		}
		for _, param := range found {
			failed, unsaid := p.evaluate(ctx, v, attr, w, param, said)
			for _, d := range failed {
				if denied = p.act(ctx, v, b, w, d); denied != nil {
					return false
				}
			}
			if unsaid != nil { // whatever the binding does with validations
				denied = deny(w, "ValidatingAdmissionPolicy", v.Name, b.Name, decision{message: unsaid.Error()})
				return false
			}
		}
		return true
	})
	return denied
}

// bindingCriteria are those of a binding: without rules it takes all.
func bindingCriteria(m *admissionv1.MatchResources) criteria {
	c := policyCriteria(m)
	if len(c.rules) == 0 {
		all := []string{"*"}
		c.rules = []admissionv1.RuleWithOperations{{
			Operations: []admissionv1.OperationType{admissionv1.OperationAll},
			Rule:       admissionv1.Rule{APIGroups: all, APIVersions: all, Resources: []string{"*/*"}},
		}}
	}
	return c
}

// misconfigured is the error that a policy cannot be applied, unless it fails open.
func (p *ValidatingPolicies) misconfigured(w *Write, v *validatingPolicy, binding, what string, err error) error {
	if v.Spec.FailurePolicy != nil && *v.Spec.FailurePolicy == admissionv1.Ignore {
		return nil
	}
	return deny(w, "ValidatingAdmissionPolicy", v.Name, binding, decision{message: fmt.Sprintf("%s: %v", what, err)})
}

// act on a failed validation as the binding says.
func (p *ValidatingPolicies) act(ctx context.Context, v *validatingPolicy, b *admissionv1.ValidatingAdmissionPolicyBinding, w *Write, d decision) error {
	var denied error
	for _, a := range b.Spec.ValidationActions {
		switch a {
		case admissionv1.Deny:
			denied = deny(w, "ValidatingAdmissionPolicy", v.Name, b.Name, d)
		case admissionv1.Audit:
			auditFailure(ctx, v.Name, b, d)
		case admissionv1.Warn:
			request.Warn(ctx, fmt.Sprintf("Validation failed for ValidatingAdmissionPolicy '%s' with binding '%s': %s", v.Name, b.Name, d.message))
		}
	}
	return denied
}

func deny(w *Write, kind, policy, binding string, d decision) error {
	by := fmt.Sprintf("%s '%s'", kind, policy)
	if binding != "" {
		by += fmt.Sprintf(" with binding '%s'", binding)
	}
	text := by + " denied request: " + d.message
	err := apierrors.NewForbidden(w.Kind.Kind.GroupResource(), w.Name, errors.New(text))
	if d.reason == "" {
		d.reason = metav1.StatusReasonInvalid
	}
	err.ErrStatus.Reason = d.reason
	err.ErrStatus.Code = map[metav1.StatusReason]int32{
		metav1.StatusReasonForbidden: http.StatusForbidden, metav1.StatusReasonUnauthorized: http.StatusUnauthorized,
		metav1.StatusReasonRequestEntityTooLarge: http.StatusRequestEntityTooLarge,
	}[d.reason]
	if err.ErrStatus.Code == 0 {
		err.ErrStatus.Code = http.StatusUnprocessableEntity
	}
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: text})
	return err
}

// namespaceOf a write as expressions see it; nil for what is in none.
func (p *policies) namespaceOf(w *Write) *corev1.Namespace {
	if w.Namespace == "" || isKind(w, "", "Namespace") {
		return nil
	}
	ns, ok := p.Namespaces.Get("", w.Namespace)
	if !ok {
		return nil
	}
	return plugin.CreateNamespaceObject(ns)
}

// evaluate a policy with one parameter and return what failed. What it has to say
// for the audit record is added to said; unsaid is why it could not be.
func (p *ValidatingPolicies) evaluate(ctx context.Context, v *validatingPolicy, attr *admission.VersionedAttributes, w *Write, param runtime.Object, said annotations) (failed []decision, unsaid error) {
	open := v.Spec.FailurePolicy != nil && *v.Spec.FailurePolicy == admissionv1.Ignore
	fail := func(err error) ([]decision, error) {
		if open {
			return nil, nil
		}
		return []decision{{message: err.Error()}}, nil
	}
	c, err := v.program()
	if err != nil {
		return fail(err)
	}
	ctx = c.variables.CreateContext(ctx)
	if c.conditions != nil {
		ok, err := p.Expressions.matches(ctx, c.conditions, v.Spec.MatchConditions, attr, param)
		if err != nil {
			return fail(err)
		}
		if !ok {
			return nil, nil
		}
	}
	asked, ns := requestOf(attr), p.namespaceOf(w)
	bound := plugin.OptionalVariableBindings{VersionedParams: param, Authorizer: p.Expressions.authorizer()}
	results, left, err := c.checks.ForInput(ctx, attr, asked, bound, ns, celconfig.RuntimeCELCostBudget)
	if err != nil {
		return fail(err)
	}
	var messages []plugin.EvaluationResult
	for n, r := range results {
		switch {
		case r.Error != nil:
			if !open {
				failed = append(failed, decision{message: r.Error.Error(), index: n})
			}
			continue
		case r.EvalResult == celtypes.True:
			continue
		}
		if messages == nil {
			if messages, _, err = c.messages.ForInput(ctx, attr, asked, plugin.OptionalVariableBindings{VersionedParams: param}, ns, left); err != nil {
				return fail(fmt.Errorf("failed messageExpression: %w", err))
			}
		}
		rule := v.Spec.Validations[n]
		d := decision{message: messageOf(&rule, messages, n), index: n}
		if rule.Reason != nil {
			d.reason = *rule.Reason
		}
		failed = append(failed, d)
	}
	if len(v.Spec.AuditAnnotations) > 0 {
		results, _, err := c.audit.ForInput(ctx, attr, asked, plugin.OptionalVariableBindings{VersionedParams: param}, ns, celconfig.RuntimeCELCostBudget)
		if err == nil {
			err = said.add(v.Spec.AuditAnnotations, results)
		}
		if !open {
			unsaid = err
		}
	}
	return failed, unsaid
}

// messageOf a failed validation: computed, given, or the expression itself.
func messageOf(rule *admissionv1.Validation, computed []plugin.EvaluationResult, n int) string {
	if n < len(computed) && computed[n].Error == nil && computed[n].EvalResult != nil {
		if text, ok := computed[n].EvalResult.Value().(string); ok {
			text = strings.TrimSpace(text)
			if text != "" && len(text) <= celconfig.MaxEvaluatedMessageExpressionSizeBytes && !strings.Contains(text, "\n") {
				return text
			}
		}
	}
	if text := strings.TrimSpace(rule.Message); text != "" {
		return text
	}
	return "failed expression: " + strings.TrimSpace(rule.Expression)
}
