package admission

import (
	"context"
	"strings"

	"github.com/google/cel-go/cel"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugin "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// ExpressionCheck refuses webhooks and policies whose CEL expressions do not
// compile. Those that an update leaves as they were are let be.
type ExpressionCheck struct{ Expressions *Expressions }

// Name implements Plugin.
func (*ExpressionCheck) Name() string { return "ExpressionCheck" }

// written is an expression in an object.
type written struct {
	path *field.Path
	expression
	variable bool // others may use it, under its name
	decls    plugin.OptionalVariableDeclarations
}

// Validate implements Validator.
func (p *ExpressionCheck) Validate(_ context.Context, w *Write) error {
	if w.Object == nil || w.Subresource != "" || w.Kind.Kind.Group != admissionv1.GroupName {
		return nil
	}
	all := expressionsIn(w.Object)
	if w.Old != nil && texts(all) == texts(expressionsIn(w.Old)) || len(all) == 0 {
		return nil
	}
	c, err := p.Expressions.compiler()
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	var bad field.ErrorList
	for i := range all {
		x := &all[i]
		var failed *string
		result := plugin.CompilationResult{}
		if x.variable {
			result = c.CompileAndStoreVariable(&x.expression, x.decls, environment.NewExpressions)
		} else {
			result = c.CompileCELExpression(&x.expression, x.decls, environment.NewExpressions)
		}
		if result.Error != nil {
			failed = &result.Error.Detail
		}
		if failed != nil {
			bad = append(bad, field.Invalid(x.path, x.text, *failed))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return apierrors.NewInvalid(w.Kind.Kind.GroupVersionKind.GroupKind(), w.Name, bad)
}

func texts(all []written) string {
	var b strings.Builder
	for _, x := range all {
		b.WriteString(x.text + "\x00")
	}
	return b.String()
}

// expressionsIn an object, variables before those that use them.
func expressionsIn(obj any) (all []written) {
	add := func(p *field.Path, name, text string, decls plugin.OptionalVariableDeclarations, types ...*cel.Type) {
		all = append(all, written{path: p, expression: expression{name, text, types}, decls: decls})
	}
	conditions := func(p *field.Path, of []admissionv1.MatchCondition, decls plugin.OptionalVariableDeclarations) {
		for i, m := range of {
			add(p.Child("matchConditions").Index(i).Child("expression"), m.Name, m.Expression, decls, cel.BoolType)
		}
	}
	variables := func(of []admissionv1.Variable, decls plugin.OptionalVariableDeclarations) {
		for i, v := range of {
			all = append(all, written{
				path: field.NewPath("spec", "variables").Index(i).Child("expression"), variable: true, decls: decls,
				expression: expression{v.Name, v.Expression, []*cel.Type{cel.AnyType, cel.DynType}},
			})
		}
	}
	hook := plugin.OptionalVariableDeclarations{HasAuthorizer: true}
	switch o := obj.(type) {
	case *admissionv1.ValidatingWebhookConfiguration:
		for i := range o.Webhooks {
			conditions(field.NewPath("webhooks").Index(i), o.Webhooks[i].MatchConditions, hook)
		}
	case *admissionv1.MutatingWebhookConfiguration:
		for i := range o.Webhooks {
			conditions(field.NewPath("webhooks").Index(i), o.Webhooks[i].MatchConditions, hook)
		}
	case *admissionv1.ValidatingAdmissionPolicy:
		decls := plugin.OptionalVariableDeclarations{HasParams: o.Spec.ParamKind != nil, HasAuthorizer: true}
		conditions(field.NewPath("spec"), o.Spec.MatchConditions, decls)
		variables(o.Spec.Variables, decls)
		for i, v := range o.Spec.Validations {
			p := field.NewPath("spec", "validations").Index(i)
			add(p.Child("expression"), "", v.Expression, decls, cel.BoolType)
			if v.MessageExpression != "" {
				add(p.Child("messageExpression"), "", v.MessageExpression, plugin.OptionalVariableDeclarations{HasParams: decls.HasParams}, cel.StringType)
			}
		}
		for i, a := range o.Spec.AuditAnnotations {
			add(field.NewPath("spec", "auditAnnotations").Index(i).Child("valueExpression"), a.Key, a.ValueExpression, decls, cel.StringType, cel.NullType)
		}
	case *admissionv1.MutatingAdmissionPolicy:
		decls := plugin.OptionalVariableDeclarations{HasParams: o.Spec.ParamKind != nil, HasAuthorizer: true}
		conditions(field.NewPath("spec"), o.Spec.MatchConditions, decls)
		decls.HasPatchTypes = true
		variables(o.Spec.Variables, decls)
		for i, m := range o.Spec.Mutations {
			p := field.NewPath("spec", "mutations").Index(i)
			if m.ApplyConfiguration != nil {
				add(p.Child("applyConfiguration", "expression"), "", m.ApplyConfiguration.Expression, decls, applyType)
			}
			if m.JSONPatch != nil {
				add(p.Child("jsonPatch", "expression"), "", m.JSONPatch.Expression, decls, patchType)
			}
		}
	}
	return all
}

// What mutations have to be.
var (
	applyType = cel.ObjectType("Object")
	patchType = cel.ListType(cel.ObjectType("JSONPatch"))
)
