package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"google.golang.org/protobuf/types/known/structpb"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	plugin "k8s.io/apiserver/pkg/admission/plugin/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/mutation"
	"k8s.io/apiserver/pkg/cel/mutation/dynamic"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/cache"
)

// MutatingPolicies applies MutatingAdmissionPolicies through their bindings.
type MutatingPolicies struct {
	policies
	// Merge applies a configuration to an object of a served version as
	// server-side apply would, without owners.
	Merge func(k api.Served, obj api.Object, config *unstructured.Unstructured) (map[string]any, error)
}

// Name implements Plugin.
func (*MutatingPolicies) Name() string { return "MutatingAdmissionPolicy" }

type mutatingPolicy struct {
	*admissionv1.MutatingAdmissionPolicy
	criteria criteria
	program  func() (*mutations, error)
}

type mutations struct {
	conditions plugin.ConditionEvaluator
	steps      []plugin.MutatingEvaluator
	variables  *plugin.CompositedCompiler
}

func (p *MutatingPolicies) prepare(i *cache.Item) *mutatingPolicy {
	made, _ := i.Remember("policy", func() (any, error) {
		o := i.Object.(*admissionv1.MutatingAdmissionPolicy)
		m := &mutatingPolicy{MutatingAdmissionPolicy: o}
		if o.Spec.MatchConstraints != nil {
			m.criteria = policyCriteria(o.Spec.MatchConstraints)
		}
		m.program = sync.OnceValues(func() (*mutations, error) { return p.compile(o) })
		return m, nil
	})
	return made.(*mutatingPolicy)
}

func (p *MutatingPolicies) compile(o *admissionv1.MutatingAdmissionPolicy) (*mutations, error) {
	c, err := p.Expressions.compiler()
	if err != nil {
		return nil, err
	}
	decls := plugin.OptionalVariableDeclarations{HasParams: o.Spec.ParamKind != nil, HasAuthorizer: true, HasPatchTypes: true}
	variables(c, o.Spec.Variables, decls)
	m := &mutations{variables: c}
	if len(o.Spec.MatchConditions) > 0 {
		m.conditions = p.Expressions.conditions(c, o.Spec.MatchConditions, decls.HasParams)
	}
	for _, step := range o.Spec.Mutations {
		x := &expression{}
		switch {
		case step.ApplyConfiguration != nil:
			x.text, x.types = step.ApplyConfiguration.Expression, []*cel.Type{applyType}
		case step.JSONPatch != nil:
			x.text, x.types = step.JSONPatch.Expression, []*cel.Type{patchType}
		}
		e := c.CompileMutatingEvaluator(x, decls, environment.StoredExpressions)
		if bad := e.CompilationErrors(); len(bad) > 0 {
			return nil, errors.Join(bad...)
		}
		m.steps = append(m.steps, e)
	}
	return m, nil
}

// Admit implements Mutator.
func (p *MutatingPolicies) Admit(ctx context.Context, w *Write) error {
	s := p.Policies.Snapshot()
	if s.Len() == 0 || w.Object == nil || exempt(w) {
		return nil
	}
	var all []*mutatingPolicy
	s.Ascend("", "", "", func(i *cache.Item) bool { all = append(all, p.prepare(i)); return true })
	changed := map[*mutatingPolicy]int{} // how many changes a policy has seen
	changes := 0
	round := func(again bool) error {
		for _, m := range all {
			if at, seen := changed[m]; again && (!seen || m.Spec.ReinvocationPolicy != admissionv1.IfNeededReinvocationPolicy || at == changes) {
				continue
			}
			did, ran, err := p.through(ctx, m, w)
			if err != nil {
				return err
			}
			if did {
				changes++
			}
			if ran {
				changed[m] = changes
			}
		}
		return nil
	}
	if err := round(false); err != nil || changes == 0 {
		return err
	}
	return round(true)
}

// through applies a policy by all of its bindings.
func (p *MutatingPolicies) through(ctx context.Context, m *mutatingPolicy, w *Write) (changed, ran bool, failed error) {
	fail := func(binding string, err error) {
		if m.Spec.FailurePolicy == nil || *m.Spec.FailurePolicy != admissionv1.Ignore {
			failed = deny(w, "MutatingAdmissionPolicy", m.Name, binding, decision{message: err.Error()})
		}
	}
	k, ok, err := m.criteria.match(w, p.Namespaces)
	if err != nil {
		fail("", err)
		return false, false, failed
	}
	if !ok {
		return false, false, nil
	}
	p.Bindings.Snapshot().Ascend("", "", "", func(i *cache.Item) bool {
		b := i.Object.(*admissionv1.MutatingAdmissionPolicyBinding)
		if b.Spec.PolicyName != m.Name {
			return true
		}
		if b.Spec.MatchResources != nil {
			c := bindingCriteria(b.Spec.MatchResources)
			if _, ok, err := c.match(w, p.Namespaces); err != nil || !ok {
				if err != nil {
					fail(b.Name, err)
				}
				return failed == nil
			}
		}
		found, err := p.Params.of(m.Spec.ParamKind, b.Spec.ParamRef, w.Namespace)
		if err != nil {
			fail(b.Name, fmt.Errorf("failed to configure binding: %w", err))
			return failed == nil
		}
		for _, param := range found {
			did, err := p.mutate(ctx, m, k, w, param)
			if err != nil {
				fail(b.Name, err)
				return failed == nil
			}
			changed, ran = changed || did, true
		}
		return true
	})
	return changed, ran, failed
}

// mutate by one policy with one parameter: all of its steps, or none.
func (p *MutatingPolicies) mutate(ctx context.Context, m *mutatingPolicy, k api.Served, w *Write, param runtime.Object) (bool, error) {
	c, err := m.program()
	if err != nil {
		return false, err
	}
	attr, err := versioned(w, k)
	if err != nil {
		return false, err
	}
	if c.conditions != nil {
		ok, err := p.Expressions.matches(c.variables.CreateContext(ctx), c.conditions, m.Spec.MatchConditions, attr, param)
		if err != nil || !ok {
			return false, err
		}
	}
	bound := plugin.OptionalVariableBindings{VersionedParams: param, Authorizer: p.Expressions.authorizer()}
	before, err := json.Marshal(attr.VersionedObject)
	if err != nil {
		return false, err
	}
	now := before
	for n, step := range c.steps {
		r, _, err := step.ForInput(c.variables.CreateContext(ctx), attr, requestOf(attr), bound, p.namespaceOf(w), celconfig.RuntimeCELCostBudget)
		if err == nil {
			err = r.Error
		}
		if err != nil {
			return false, err
		}
		if m.Spec.Mutations[n].JSONPatch != nil {
			now, err = patchBy(now, r.EvalResult)
		} else {
			now, err = p.mergeBy(k, attr.VersionedObject.(api.Object), r.EvalResult)
		}
		if err != nil {
			return false, err
		}
		obj := attr.VersionedObject.DeepCopyObject().(api.Object)
		reflect.ValueOf(obj).Elem().SetZero()
		if err := decodeInto(now, obj); err != nil {
			return false, err
		}
		attr.VersionedObject = obj
	}
	if jsonpatch.Equal(before, now) {
		return false, nil
	}
	obj, err := toHub(attr.VersionedObject.(api.Object), k, w)
	if err != nil {
		return false, err
	}
	replace(w, obj)
	return true, nil
}

// patchBy applies the JSON patch that an expression made.
func patchBy(doc []byte, v ref.Val) ([]byte, error) {
	list, ok := v.(traits.Lister)
	if !ok {
		return nil, fmt.Errorf("type mismatch: JSONPatchType.expression should evaluate to array")
	}
	var p jsonpatch.Patch
	raw := func(text string) *json.RawMessage { m := json.RawMessage(text); return &m }
	for it := list.Iterator(); it.HasNext().Value() == true; {
		one, err := it.Next().ConvertToNative(reflect.TypeFor[*mutation.JSONPatchVal]())
		if err != nil {
			return nil, fmt.Errorf("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch: %w", err)
		}
		op := one.(*mutation.JSONPatchVal)
		out := jsonpatch.Operation{"op": raw(strconv.Quote(op.Op)), "path": raw(strconv.Quote(op.Path))}
		if op.From != "" {
			out["from"] = raw(strconv.Quote(op.From))
		}
		if op.Val != nil {
			if o, ok := op.Val.(*dynamic.ObjectVal); ok {
				if err := o.CheckTypeNamesMatchFieldPathNames(); err != nil {
					return nil, fmt.Errorf("type mismatch: %w", err)
				}
			}
			native, err := op.Val.ConvertToNative(reflect.TypeFor[*structpb.Value]())
			if err != nil {
				return nil, fmt.Errorf("JSONPath valueExpression evaluated to a type that could not marshal to JSON: %w", err)
			}
			text, err := json.Marshal(native)
			if err != nil {
				return nil, err
			}
			out["value"] = raw(string(text))
		}
		p = append(p, out)
	}
	out, err := p.Apply(doc)
	if errors.Is(err, jsonpatch.ErrTestFailed) {
		return doc, nil
	}
	return out, err
}

// mergeBy applies the configuration that an expression made.
func (p *MutatingPolicies) mergeBy(k api.Served, obj api.Object, v ref.Val) ([]byte, error) {
	o, ok := v.(*dynamic.ObjectVal)
	if !ok {
		return nil, fmt.Errorf("unsupported return type from ApplyConfiguration expression: %v", v.Type())
	}
	if err := o.CheckTypeNamesMatchFieldPathNames(); err != nil {
		return nil, fmt.Errorf("type mismatch: %w", err)
	}
	fields, ok := o.Value().(map[string]any)
	if !ok {
		return nil, fmt.Errorf("invalid return type: %T", v)
	}
	config := &unstructured.Unstructured{Object: fields}
	config.SetGroupVersionKind(k.GVK())
	if p.Merge == nil {
		return nil, errors.New("this server does not merge configurations")
	}
	merged, err := p.Merge(k, obj, config)
	if err != nil {
		return nil, fmt.Errorf("error applying patch: %w", err)
	}
	return json.Marshal(merged)
}
