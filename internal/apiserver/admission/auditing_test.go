package admission

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	review "k8s.io/api/admission/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/audit"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// annotated admits a creation and returns what is written down of it.
func (w *world) annotated(level string, obj api.Object) (map[string]string, error) {
	w.t.Helper()
	dir := w.t.TempDir()
	o := audit.Defaults()
	o.PolicyFile, o.Log.Path = filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	if err := os.WriteFile(o.PolicyFile, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: "+level+"}]\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	l, err := o.Open(slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	r, user := httptest.NewRequest("POST", "/", nil), &request.User{Name: "ann"}
	rec := l.Begin(r)
	rec.Decide(r, user, &request.Info{Verb: "create"}, false)
	k, _ := w.Catalog.Type(obj)
	a := &Write{Operation: Create, Kind: api.Served{Kind: k}, Namespace: obj.GetNamespace(), Name: obj.GetName(), Object: obj, User: user}
	ctx := audit.With(context.Background(), rec)
	if err = w.chain.Admit(ctx, a); err == nil {
		err = w.chain.Validate(ctx, a)
	}
	rec.End()
	text, _ := os.ReadFile(o.Log.Path)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	var e struct{ Annotations map[string]string }
	if bad := json.Unmarshal([]byte(lines[len(lines)-1]), &e); bad != nil {
		w.t.Fatal(bad)
	}
	return e.Annotations, err
}

func (w *world) expect(got, want map[string]string) {
	w.t.Helper()
	for k, v := range want {
		if got[k] != v {
			w.t.Errorf("%s:\ngot  %s\nwant %s", k, got[k], v)
		}
	}
	for k, v := range got {
		if _, ok := want[k]; !ok && !strings.HasPrefix(k, "apiserver.latency.k8s.io/") { // of requests that took long
			w.t.Errorf("and %s: %s", k, v)
		}
	}
}

func TestPolicyAnnotations(t *testing.T) {
	policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: meta("", "limit.example.org"), Spec: admissionv1.ValidatingAdmissionPolicySpec{
		ParamKind:        &admissionv1.ParamKind{APIVersion: "v1", Kind: "ConfigMap"},
		MatchConstraints: onMaps(),
		MatchConditions:  []admissionv1.MatchCondition{{Name: "others", Expression: "!has(object.metadata.labels)"}},
		Validations:      []admissionv1.Validation{{Expression: "true"}, {Expression: "object.data.size() < 2", Message: "too many"}},
		AuditAnnotations: []admissionv1.AuditAnnotation{
			{Key: "size", ValueExpression: "string(object.data.size())"},
			{Key: "limit", ValueExpression: "string(params.data.max)"},
			{Key: "none", ValueExpression: "null"},
			{Key: "blank", ValueExpression: "'  '"},
		},
	}}
	binding := func(name, param string) *admissionv1.ValidatingAdmissionPolicyBinding {
		deny := admissionv1.DenyAction
		return &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: meta("", name), Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: policy.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Audit, admissionv1.Warn},
			ParamRef: &admissionv1.ParamRef{Name: param, ParameterNotFoundAction: &deny},
		}}
	}
	param := func(name, limit string) *corev1.ConfigMap {
		c := &corev1.ConfigMap{ObjectMeta: meta("ns", name), Data: map[string]string{"max": limit}}
		c.Labels = map[string]string{"param": "yes"}
		return c
	}
	w := newWorld(t, base(policy, binding("a", "p1"), binding("b", "p2"), param("p1", "5"), param("p2", "7"))...)
	got, err := w.annotated("Metadata", aMap(map[string]string{"a": "", "b": ""}))
	if err != nil {
		t.Fatal(err)
	}
	w.expect(got, map[string]string{
		"limit.example.org/size": "2", "limit.example.org/limit": "5, 7",
		"validation.policy.admission.k8s.io/validation_failure": `[{"message":"too many","policy":"limit.example.org","binding":"a","expressionIndex":1,"validationActions":["Audit","Warn"]}]`,
	})
	policy.Spec.AuditAnnotations[0].ValueExpression = "string(object.data.none)"
	w = newWorld(t, base(policy, binding("a", "p1"), param("p1", "5"))...)
	if _, err := w.annotated("Metadata", aMap(map[string]string{"a": ""})); err == nil || !strings.Contains(err.Error(), "no such key: none") {
		t.Errorf("an expression that fails: %v", err)
	}
	policy.Spec.FailurePolicy = ptr.To(admissionv1.Ignore)
	w = newWorld(t, base(policy, binding("a", "p1"), param("p1", "5"))...)
	if got, err = w.annotated("Metadata", aMap(map[string]string{"a": ""})); err != nil {
		t.Error(err)
	}
	w.expect(got, map[string]string{"limit.example.org/limit": "5"})
}

func TestWebhookAnnotations(t *testing.T) {
	patch := `[{"op":"add","path":"/data/x","value":"1"}]`
	mutating := webhookServer(t, func(*review.AdmissionRequest) *review.AdmissionResponse {
		r := patching(patch)
		r.AuditAnnotations = map[string]string{"said": "yes", "not/a/name": "x"}
		return r
	})
	validating := webhookServer(t, func(*review.AdmissionRequest) *review.AdmissionResponse {
		return &review.AdmissionResponse{Allowed: true, AuditAnnotations: map[string]string{"seen": "it"}}
	})
	gone := admissionv1.WebhookClientConfig{URL: ptr.To("https://127.0.0.1:1/")}
	w := newWorld(t, base(
		mutatingWebhook("m.example.org", mutating),
		mutatingWebhook("n.example.org", gone, func(m *admissionv1.MutatingWebhook) { m.FailurePolicy = ptr.To(admissionv1.Ignore) }),
		validatingWebhook("v.example.org", validating),
		validatingWebhook("w.example.org", gone, func(v *admissionv1.ValidatingWebhook) { v.FailurePolicy = ptr.To(admissionv1.Ignore) }),
	)...)
	want := map[string]string{
		"m.example.org/said": "yes", "v.example.org/seen": "it",
		"mutation.webhook.admission.k8s.io/round_0_index_0":               `{"configuration":"m.example.org","webhook":"m.example.org","mutated":true}`,
		"mutation.webhook.admission.k8s.io/round_0_index_1":               `{"configuration":"n.example.org","webhook":"n.example.org","mutated":false}`,
		"failed-open.mutation.webhook.admission.k8s.io/round_0_index_1":   "n.example.org",
		"failed-open.validating.webhook.admission.k8s.io/round_0_index_1": "w.example.org",
	}
	got, err := w.annotated("Metadata", aMap(map[string]string{"a": ""}))
	if err != nil {
		t.Fatal(err)
	}
	w.expect(got, want)
	got, err = w.annotated("Request", aMap(map[string]string{"a": ""}))
	if err != nil {
		t.Fatal(err)
	}
	want["patch.webhook.admission.k8s.io/round_0_index_0"] = `{"configuration":"m.example.org","webhook":"m.example.org","patch":` + patch + `,"patchType":"JSONPatch"}`
	w.expect(got, want)
}

func TestPodSecurityAnnotations(t *testing.T) {
	ns := func(labels map[string]string) []api.Object {
		all := base()
		all[0].(*corev1.Namespace).Labels = labels
		return all
	}
	const prefix = "pod-security.kubernetes.io/"
	w := newWorld(t, ns(nil)...)
	got, err := w.annotated("Metadata", aPod())
	if err != nil {
		t.Fatal(err)
	}
	w.expect(got, map[string]string{prefix + "enforce-policy": "privileged:latest"})
	w = newWorld(t, ns(map[string]string{prefix + "enforce": "baseline", prefix + "audit": "restricted"})...)
	got, err = w.annotated("Metadata", aPod(func(p *corev1.Pod) { p.Spec.HostNetwork = true }))
	if err == nil || got[prefix+"enforce-policy"] != "baseline:latest" || !strings.HasPrefix(got[prefix+"audit-violations"], `would violate PodSecurity "restricted:latest": `) {
		t.Errorf("%v, %v", got, err)
	}
}
