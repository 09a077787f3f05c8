package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	celtypes "github.com/google/cel-go/common/types"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	plugin "k8s.io/apiserver/pkg/admission/plugin/cel"

	"github.com/proa-dev/proa/internal/apiserver/audit"
)

// What webhooks and policies write to the audit record.

// place of a webhook among those that are called.
type place struct {
	mutating     bool
	round, index int
}

// name of an annotation about what was done at a place.
func (p place) name(of string) string {
	return fmt.Sprintf("%s.admission.k8s.io/round_%d_index_%d", of, p.round, p.index)
}

func annotate(ctx context.Context, name, value string) {
	if rec := audit.From(ctx); rec != nil && audit.Qualified(name) {
		rec.Annotate(name, value)
	}
}

// auditAnswer records what a webhook wants recorded.
func auditAnswer(ctx context.Context, x *webhook, said map[string]string) {
	for key, value := range said {
		annotate(ctx, x.Name+"/"+key, value)
	}
}

// auditMutation records that a mutating webhook was asked, and whether it changed anything.
func auditMutation(ctx context.Context, x *webhook, at place, changed bool) {
	rec := audit.From(ctx)
	if !rec.Wants(audit.Metadata) {
		return
	}
	text, _ := json.Marshal(struct {
		Configuration string `json:"configuration"`
		Webhook       string `json:"webhook"`
		Mutated       bool   `json:"mutated"`
	}{x.of, x.Name, changed})
	rec.Annotate(at.name("mutation.webhook"), string(text))
}

// auditPatch records the patch of a mutating webhook where objects are recorded.
func auditPatch(ctx context.Context, x *webhook, at place, patch []byte) {
	rec := audit.From(ctx)
	if !rec.Wants(audit.Request) {
		return
	}
	text, err := json.Marshal(struct {
		Configuration string          `json:"configuration"`
		Webhook       string          `json:"webhook"`
		Patch         json.RawMessage `json:"patch"`
		Type          string          `json:"patchType"`
	}{x.of, x.Name, patch, "JSONPatch"})
	if err == nil {
		rec.AnnotateAt(audit.Request, at.name("patch.webhook"), string(text))
	}
}

// auditOpen records that a webhook could not be asked and the write went on.
func auditOpen(ctx context.Context, x *webhook, at place) {
	of := "failed-open.validating.webhook"
	if at.mutating {
		of = "failed-open.mutation.webhook"
	}
	audit.Annotate(ctx, at.name(of), x.Name)
}

// auditFailure records a validation that failed, as a binding wants it.
func auditFailure(ctx context.Context, policy string, b *admissionv1.ValidatingAdmissionPolicyBinding, d decision) {
	rec := audit.From(ctx)
	if !rec.Wants(audit.Metadata) {
		return
	}
	type failure struct {
		Message string                         `json:"message"`
		Policy  string                         `json:"policy"`
		Binding string                         `json:"binding"`
		Index   int                            `json:"expressionIndex"`
		Actions []admissionv1.ValidationAction `json:"validationActions"`
	}
	text, _ := json.Marshal([]failure{{d.message, policy, b.Name, d.index, b.Spec.ValidationActions}})
	rec.Annotate("validation.policy.admission.k8s.io/validation_failure", string(text))
}

// annotations that a policy makes through its bindings and parameters: key → values.
type annotations map[string][]string

// longest value of an annotation.
const longest = 10 << 10

// add what the expressions of a policy gave. Nothing and null are left out.
func (a annotations) add(of []admissionv1.AuditAnnotation, results []plugin.EvaluationResult) error {
	var failed []error
	for n, r := range results {
		if r.Error != nil {
			failed = append(failed, r.Error)
			continue
		}
		if r.EvalResult == nil || r.EvalResult.Type() == celtypes.NullType {
			continue
		}
		text, ok := r.EvalResult.Value().(string)
		if !ok {
			failed = append(failed, fmt.Errorf("valueExpression '%v' resulted in unsupported return type: %v. Return type must be either string or null.", of[n].ValueExpression, r.EvalResult.Type()))
			continue
		}
		text = strings.TrimSpace(text)
		text = text[:min(len(text), longest)]
		if key := of[n].Key; text != "" && !slices.Contains(a[key], text) {
			a[key] = append(a[key], text)
		}
	}
	return errors.Join(failed...)
}

// publish them in the audit record, under the name of the policy.
func (a annotations) publish(ctx context.Context, policy string) {
	for key, values := range a {
		annotate(ctx, policy+"/"+key, strings.Join(values, ", "))
	}
}
