package admission

import (
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/errors"

	"github.com/proa-dev/proa/internal/api"
)

// FuzzPolicy lets policies with any expressions judge and change pods. One that is
// refused when it is written is not used.
func FuzzPolicy(f *testing.F) {
	for _, s := range []struct{ expression, message, variable, mutation string }{
		{"object.spec.containers.all(c, c.image.startsWith('x'))", "'got ' + object.metadata.name", "size(object.spec.containers)", "Object{metadata: Object.metadata{labels: {'a': 'b'}}}"},
		{"variables.v > 1 || request.operation == 'CREATE'", "", "object.spec.containers.size()", "Object{spec: Object.spec{priority: 3}}"},
		{"has(object.metadata.labels) && object.metadata.labels['a'] == namespaceObject.metadata.name", "string(variables.v)", "1", "Object{}"},
		{"authorizer.group('').resource('pods').namespace('x').check('get').allowed()", "'no'", "oldObject == null", "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c', image: 'y'}]}}"},
		{"object.?spec.?nodeName.orValue('') == ''", "dyn(1)", "[1, 2].map(x, x * 2)", "Object{spec: Object.spec{nodeSelector: {'a': string(variables.v)}}}"},
		{"request.userInfo.groups.exists(g, g == 'system:masters')", "'a' + request.name", "object.metadata.annotations.size()", "Object{metadata: Object.metadata{annotations: {'k': 'v'}}}"},
	} {
		f.Add(s.expression, s.message, s.variable, s.mutation)
	}
	f.Fuzz(func(t *testing.T, expression, message, variable, mutation string) {
		match := &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{"*"}, Rule: admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
		}}}}
		variables := []admissionv1.Variable{{Name: "v", Expression: variable}}
		fail := admissionv1.Fail
		judge := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: meta("", "judge"), Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: match, Variables: variables, FailurePolicy: &fail,
			Validations:      []admissionv1.Validation{{Expression: expression, MessageExpression: message}},
			AuditAnnotations: []admissionv1.AuditAnnotation{{Key: "k", ValueExpression: message}},
		}}
		change := &admissionv1.MutatingAdmissionPolicy{ObjectMeta: meta("", "change"), Spec: admissionv1.MutatingAdmissionPolicySpec{
			MatchConstraints: match, Variables: variables, FailurePolicy: &fail, ReinvocationPolicy: admissionv1.IfNeededReinvocationPolicy,
			Mutations: []admissionv1.Mutation{{PatchType: admissionv1.PatchTypeApplyConfiguration, ApplyConfiguration: &admissionv1.ApplyConfiguration{Expression: mutation}}},
		}}
		empty := newWorld(t, base()...)
		objects := base()
		for _, p := range []api.Object{judge, change} {
			k, _ := empty.Catalog.Type(p)
			k.Default(p)
			if len(k.Validate(p, nil, "")) > 0 || empty.write(Create, p, nil, nil) != nil {
				continue
			}
			objects = append(objects, p)
		}
		objects = append(objects,
			&admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: meta("", "judge"), Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: "judge", ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny, admissionv1.Audit}}},
			&admissionv1.MutatingAdmissionPolicyBinding{ObjectMeta: meta("", "change"), Spec: admissionv1.MutatingAdmissionPolicyBindingSpec{PolicyName: "change"}})
		w := newWorld(t, objects...)
		if err := w.create(aPod()); err != nil && errors.IsInternalError(err) {
			t.Errorf("a fault of the server: %v", err)
		}
	})
}
