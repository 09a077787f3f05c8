package admission

import (
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
)

func onMaps() *admissionv1.MatchResources {
	return &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: onConfigMaps[0]}}}
}

func TestValidatingPolicies(t *testing.T) {
	deny := admissionv1.DenyAction
	policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: meta("", "limit"), Spec: admissionv1.ValidatingAdmissionPolicySpec{
		ParamKind:        &admissionv1.ParamKind{APIVersion: "v1", Kind: "ConfigMap"},
		MatchConstraints: onMaps(),
		MatchConditions:  []admissionv1.MatchCondition{{Name: "others", Expression: "object.metadata.name != 'param'"}},
		Variables:        []admissionv1.Variable{{Name: "n", Expression: "has(object.data) ? object.data.size() : 0"}},
		Validations: []admissionv1.Validation{{
			Expression: "variables.n <= int(params.data.max)", MessageExpression: "'at most ' + params.data.max + ' in ' + namespaceObject.metadata.name",
		}},
	}}
	binding := func(actions ...admissionv1.ValidationAction) *admissionv1.ValidatingAdmissionPolicyBinding {
		return &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: meta("", "here"), Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: "limit", ValidationActions: actions, ParamRef: &admissionv1.ParamRef{Name: "param", ParameterNotFoundAction: &deny},
		}}
	}
	param := &corev1.ConfigMap{ObjectMeta: meta("ns", "param"), Data: map[string]string{"max": "1"}}
	two := aMap(map[string]string{"a": "", "b": ""})

	w := newWorld(t, base(policy, binding(admissionv1.Deny), param)...)
	if err := w.create(aMap(map[string]string{"a": ""})); err != nil {
		t.Error(err)
	}
	w.refused(w.create(two), apierrors.IsInvalid, "ValidatingAdmissionPolicy 'limit' with binding 'here' denied request: at most 1 in ns")

	w = newWorld(t, base(policy, binding(admissionv1.Warn), param)...)
	if err := w.create(two); err != nil || len(w.warnings) != 1 || w.warnings[0] != "Validation failed for ValidatingAdmissionPolicy 'limit' with binding 'here': at most 1 in ns" {
		t.Error(err, w.warnings)
	}
	w = newWorld(t, base(policy, binding(admissionv1.Deny))...)
	w.refused(w.create(two), apierrors.IsInvalid, "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction")
}

func TestMutatingPolicies(t *testing.T) {
	policy := &admissionv1.MutatingAdmissionPolicy{ObjectMeta: meta("", "mark"), Spec: admissionv1.MutatingAdmissionPolicySpec{
		MatchConstraints:   onMaps(),
		ReinvocationPolicy: admissionv1.NeverReinvocationPolicy,
		FailurePolicy:      ptr.To(admissionv1.Fail),
		Mutations: []admissionv1.Mutation{
			{PatchType: admissionv1.PatchTypeApplyConfiguration, ApplyConfiguration: &admissionv1.ApplyConfiguration{
				Expression: `Object{metadata: Object.metadata{labels: {"seen": "yes"}}, data: {"x": object.data.a + "!"}}`}},
			{PatchType: admissionv1.PatchTypeJSONPatch, JSONPatch: &admissionv1.JSONPatch{
				Expression: `[JSONPatch{op: "add", path: "/data/y", value: object.data.x}]`}},
		},
	}}
	binding := &admissionv1.MutatingAdmissionPolicyBinding{ObjectMeta: meta("", "here"), Spec: admissionv1.MutatingAdmissionPolicyBindingSpec{PolicyName: "mark"}}
	w := newWorld(t, base(policy, binding)...)
	c := aMap(map[string]string{"a": "1"})
	if err := w.create(c); err != nil {
		t.Fatal(err)
	}
	if c.Labels["seen"] != "yes" || c.Data["a"] != "1" || c.Data["x"] != "1!" || c.Data["y"] != "1!" || c.Kind != "" {
		t.Errorf("became %+v", c)
	}
	w.refused(w.create(aMap(nil)), apierrors.IsInvalid, "MutatingAdmissionPolicy 'mark' with binding 'here' denied request")
}
