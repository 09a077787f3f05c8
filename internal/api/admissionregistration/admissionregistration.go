// Package admissionregistration describes the kinds of
// admissionregistration.k8s.io/v1: webhook configurations, and admission
// policies with their bindings. That the CEL expressions of policies compile is
// not checked here but by the admission that evaluates them.
package admissionregistration

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
)

// Kinds of the group.
func Kinds() []*api.Kind {
	all := []*api.Kind{mutatingPolicy(), mutatingBinding(), mutatingWebhooks(), validatingPolicy(), validatingBinding(), validatingWebhooks()}
	for _, k := range all {
		k.Cluster = true
		k.Categories = []string{"api-extensions"}
		k.StrictUpdate = true
	}
	return all
}

func gvk(kind string) schema.GroupVersionKind { return admissionv1.SchemeGroupVersion.WithKind(kind) }

// columns of a table whose second and third column count or name something.
func columns(second, third metav1.TableColumnDefinition) []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{table.Name(), second, third, table.Age()}
}

func validatingPolicy() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("ValidatingAdmissionPolicy"),
		Stored:           []api.Shape{api.StoredAlike(gvk("ValidatingAdmissionPolicy"), "v1beta1")},
		Resource:         "validatingadmissionpolicies",
		New:              func() api.Object { return &admissionv1.ValidatingAdmissionPolicy{} },
		NewList:          func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyList{} },
		Default: api.Of(func(p *admissionv1.ValidatingAdmissionPolicy) {
			defaultPolicy(&p.Spec.FailurePolicy, p.Spec.MatchConstraints)
		}),
		Reset: api.Resets(func(p, old *admissionv1.ValidatingAdmissionPolicy, sub string) {
			switch {
			case old == nil:
				p.Status = admissionv1.ValidatingAdmissionPolicyStatus{}
				p.Generation = 1
			case sub == "status":
				p.Spec = old.Spec
				metav1.ResetObjectMetaForStatus(&p.ObjectMeta, &old.ObjectMeta)
			default:
				p.Status = old.Status
				reset.Generation(p, old, reset.Differ(p.Spec, old.Spec))
			}
		}),
		Validate: api.Validates(validateValidatingPolicy),
		Columns: columns(
			table.Col("Validations", "integer", "Validations indicates the number of validation rules defined in this configuration"),
			table.Col("ParamKind", "string", "ParamKind specifies the kind of resources used to parameterize this policy")),
		Row: api.Rows(func(p *admissionv1.ValidatingAdmissionPolicy) []any {
			return []any{p.Name, int64(len(p.Spec.Validations)), paramKindCell(p.Spec.ParamKind), table.AgeOf(p)}
		}),
		Subresources: []api.Subresource{{Name: "status"}},
	}
}

func validatingBinding() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("ValidatingAdmissionPolicyBinding"),
		Stored:           []api.Shape{api.StoredAlike(gvk("ValidatingAdmissionPolicyBinding"), "v1beta1")},
		Resource:         "validatingadmissionpolicybindings",
		New:              func() api.Object { return &admissionv1.ValidatingAdmissionPolicyBinding{} },
		NewList:          func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyBindingList{} },
		Default:          api.Of(func(b *admissionv1.ValidatingAdmissionPolicyBinding) { defaultMatch(b.Spec.MatchResources) }),
		Reset: reset.Spec(func(b *admissionv1.ValidatingAdmissionPolicyBinding) *admissionv1.ValidatingAdmissionPolicyBindingSpec {
			return &b.Spec
		}),
		Validate: api.Validates(validateValidatingBinding),
		Columns: columns(
			table.Col("PolicyName", "string", "PolicyName indicates the policy definition which the policy binding binded to"),
			table.Col("ParamRef", "string", "ParamRef indicates the param resource which sets the configuration param")),
		Row: api.Rows(func(b *admissionv1.ValidatingAdmissionPolicyBinding) []any {
			return []any{b.Name, b.Spec.PolicyName, paramRefCell(b.Spec.ParamRef), table.AgeOf(b)}
		}),
	}
}

func mutatingPolicy() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("MutatingAdmissionPolicy"),
		Stored:           []api.Shape{api.StoredAlike(gvk("MutatingAdmissionPolicy"), "v1beta1")},
		Resource:         "mutatingadmissionpolicies",
		New:              func() api.Object { return &admissionv1.MutatingAdmissionPolicy{} },
		NewList:          func() runtime.Object { return &admissionv1.MutatingAdmissionPolicyList{} },
		Default: api.Of(func(p *admissionv1.MutatingAdmissionPolicy) {
			defaultPolicy(&p.Spec.FailurePolicy, p.Spec.MatchConstraints)
		}),
		Reset: reset.Spec(func(p *admissionv1.MutatingAdmissionPolicy) *admissionv1.MutatingAdmissionPolicySpec {
			return &p.Spec
		}),
		Validate: api.Validates(validateMutatingPolicy),
		Columns: columns(
			table.Col("Mutations", "integer", "Mutation indicates the number of mutations rules defined in this configuration"),
			table.Col("ParamKind", "string", "ParamKind specifies the kind of resources used to parameterize this policy")),
		Row: api.Rows(func(p *admissionv1.MutatingAdmissionPolicy) []any {
			return []any{p.Name, int64(len(p.Spec.Mutations)), paramKindCell(p.Spec.ParamKind), table.AgeOf(p)}
		}),
	}
}

func mutatingBinding() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("MutatingAdmissionPolicyBinding"),
		Stored:           []api.Shape{api.StoredAlike(gvk("MutatingAdmissionPolicyBinding"), "v1beta1")},
		Resource:         "mutatingadmissionpolicybindings",
		New:              func() api.Object { return &admissionv1.MutatingAdmissionPolicyBinding{} },
		NewList:          func() runtime.Object { return &admissionv1.MutatingAdmissionPolicyBindingList{} },
		Default:          api.Of(func(b *admissionv1.MutatingAdmissionPolicyBinding) { defaultMatch(b.Spec.MatchResources) }),
		Reset: reset.Spec(func(b *admissionv1.MutatingAdmissionPolicyBinding) *admissionv1.MutatingAdmissionPolicyBindingSpec {
			return &b.Spec
		}),
		Validate: api.Validates(validateMutatingBinding),
		Columns: columns(
			table.Col("PolicyName", "string", "PolicyName indicates the policy definition which the policy binding binded to"),
			table.Col("ParamRef", "string", "ParamRef indicates the param resource which sets the configuration param")),
		Row: api.Rows(func(b *admissionv1.MutatingAdmissionPolicyBinding) []any {
			return []any{b.Name, b.Spec.PolicyName, paramRefCell(b.Spec.ParamRef), table.AgeOf(b)}
		}),
	}
}

func paramKindCell(k *admissionv1.ParamKind) string {
	if k == nil {
		return "<unset>"
	}
	return k.APIVersion + "/" + k.Kind
}

func paramRefCell(r *admissionv1.ParamRef) string {
	switch {
	case r == nil || r.Name == "" && r.Selector == nil:
		return "<unset>"
	case r.Name == "":
		return r.Selector.String()
	case r.Namespace == "": // it may be of a cluster-scoped kind
		return "*/" + r.Name
	}
	return r.Namespace + "/" + r.Name
}
