package admission

import (
	"context"
	"fmt"
	"sync"

	"github.com/google/cel-go/cel"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	plugin "k8s.io/apiserver/pkg/admission/plugin/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// Expressions compiles and evaluates the CEL expressions of webhooks and
// policies. The environment is made when the first is compiled.
type Expressions struct {
	Authorizer auth.Authorizer

	once sync.Once
	env  *environment.EnvSet
}

func (e *Expressions) environment() *environment.EnvSet {
	e.once.Do(func() { e.env = environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()) })
	return e.env
}

// compiler for expressions that share variables.
func (e *Expressions) compiler() (*plugin.CompositedCompiler, error) {
	return plugin.NewCompositedCompiler(e.environment())
}

// expression is one with a type that it has to have.
type expression struct {
	name, text string
	types      []*cel.Type
}

func (x *expression) GetName() string          { return x.name }
func (x *expression) GetExpression() string    { return x.text }
func (x *expression) ReturnTypes() []*cel.Type { return x.types }

// conditions compiles match conditions.
func (e *Expressions) conditions(c *plugin.CompositedCompiler, of []admissionv1.MatchCondition, params bool) plugin.ConditionEvaluator {
	all := make([]plugin.ExpressionAccessor, len(of))
	for i := range of {
		all[i] = &expression{name: of[i].Name, text: of[i].Expression, types: []*cel.Type{cel.BoolType}}
	}
	return c.CompileCondition(all, plugin.OptionalVariableDeclarations{HasParams: params, HasAuthorizer: true}, environment.StoredExpressions)
}

// matches evaluates match conditions: one that is false decides; otherwise one
// that fails is an error.
func (e *Expressions) matches(ctx context.Context, c plugin.ConditionEvaluator, of []admissionv1.MatchCondition, v *admission.VersionedAttributes, params runtime.Object) (bool, error) {
	results, _, err := c.ForInput(ctx, v, requestOf(v), plugin.OptionalVariableBindings{VersionedParams: params, Authorizer: e.authorizer()}, nil, celconfig.RuntimeCELCostBudgetMatchConditions)
	if err != nil {
		return false, err
	}
	var failed error
	for i, r := range results {
		switch {
		case r.Error != nil:
			if failed == nil {
				failed = r.Error
			}
		case r.EvalResult == nil:
			failed = fmt.Errorf("match condition %q has no result", of[i].Name)
		case r.EvalResult.Value() == false:
			return false, nil
		}
	}
	return failed == nil, failed
}

// versioned is a write as the library sees it, in a version of its kind.
func versioned(w *Write, k api.Served) (*admission.VersionedAttributes, error) {
	now, err := inVersion(w.Object, k)
	if err != nil {
		return nil, err
	}
	old, err := inVersion(w.Old, k)
	if err != nil {
		return nil, err
	}
	v := &admission.VersionedAttributes{VersionedKind: k.GVK()}
	if now != nil {
		v.VersionedObject = now
	} else if w.Body != nil {
		v.VersionedObject = w.Body
	}
	if old != nil {
		v.VersionedOldObject = old
	}
	asked := w.Kind.GVK()
	resource := asked.GroupVersion().WithResource(w.Kind.Plural())
	v.Attributes = admission.NewAttributesRecord(v.VersionedObject, v.VersionedOldObject, asked, w.Namespace, w.Name,
		resource, w.Subresource, admission.Operation(w.Operation), optionsOf(w), w.DryRun, userInfo(w.User))
	return v, nil
}

// optionsOf a write, with their kind written on them.
func optionsOf(w *Write) runtime.Object {
	if w.Options == nil {
		return nil
	}
	o := w.Options.DeepCopyObject()
	kind := map[Operation]string{Create: "CreateOptions", Update: "UpdateOptions", Delete: "DeleteOptions"}[w.Operation]
	if _, patch := o.(*metav1.PatchOptions); patch {
		kind = "PatchOptions"
	}
	o.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{Group: "meta.k8s.io", Version: "v1", Kind: kind})
	return o
}

func userInfo(u *request.User) user.Info {
	if u == nil {
		return &user.DefaultInfo{}
	}
	return &user.DefaultInfo{Name: u.Name, UID: u.UID, Groups: u.Groups, Extra: u.Extra}
}

// authorizer is ours as the library wants it.
func (e *Expressions) authorizer() authorizer.Authorizer {
	return authorizer.AuthorizerFunc(func(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		if e.Authorizer == nil {
			return authorizer.DecisionAllow, "", nil
		}
		u := &request.User{}
		if i := a.GetUser(); i != nil {
			u = &request.User{Name: i.GetName(), UID: i.GetUID(), Groups: i.GetGroups(), Extra: i.GetExtra()}
		}
		fields, _ := a.GetFieldSelector() // what nobody understands is left out
		labels, _ := a.GetLabelSelector()
		decision, why, err := e.Authorizer.Authorize(ctx, u, auth.Attributes{
			FieldSelector: auth.FieldText(fields), LabelSelector: auth.LabelText(labels),
			Verb: a.GetVerb(), Namespace: a.GetNamespace(), Group: a.GetAPIGroup(), Version: a.GetAPIVersion(), Resource: a.GetResource(),
			Subresource: a.GetSubresource(), Name: a.GetName(), Path: a.GetPath(), IsResource: a.IsResourceRequest(),
		})
		switch decision {
		case auth.Allow:
			return authorizer.DecisionAllow, why, err
		case auth.Deny:
			return authorizer.DecisionDeny, why, err
		}
		return authorizer.DecisionNoOpinion, why, err
	})
}
