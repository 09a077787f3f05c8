package admission

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	review "k8s.io/api/admission/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/api"
)

// webhookServer answers reviews; it returns how it is reached.
func webhookServer(t *testing.T, answer func(*review.AdmissionRequest) *review.AdmissionResponse) admissionv1.WebhookClientConfig {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var ask review.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&ask); err != nil {
			t.Error(err)
		}
		ask.Response = answer(ask.Request)
		if ask.Response != nil {
			ask.Response.UID = ask.Request.UID
		}
		ask.Request = nil
		json.NewEncoder(w).Encode(ask)
	}))
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return admissionv1.WebhookClientConfig{URL: &s.URL, CABundle: ca}
}

var onConfigMaps = []admissionv1.RuleWithOperations{{
	Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
	Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
}}

func mutatingWebhook(name string, c admissionv1.WebhookClientConfig, f ...func(*admissionv1.MutatingWebhook)) *admissionv1.MutatingWebhookConfiguration {
	none := admissionv1.SideEffectClassNone
	w := admissionv1.MutatingWebhook{Name: name, ClientConfig: c, Rules: onConfigMaps, SideEffects: &none, AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: ptr.To[int32](5)}
	for _, g := range f {
		g(&w)
	}
	return &admissionv1.MutatingWebhookConfiguration{ObjectMeta: meta("", name), Webhooks: []admissionv1.MutatingWebhook{w}}
}

func validatingWebhook(name string, c admissionv1.WebhookClientConfig, f ...func(*admissionv1.ValidatingWebhook)) *admissionv1.ValidatingWebhookConfiguration {
	none := admissionv1.SideEffectClassNone
	w := admissionv1.ValidatingWebhook{Name: name, ClientConfig: c, Rules: onConfigMaps, SideEffects: &none, AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: ptr.To[int32](5)}
	for _, g := range f {
		g(&w)
	}
	return &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: meta("", name), Webhooks: []admissionv1.ValidatingWebhook{w}}
}

func patching(text string) *review.AdmissionResponse {
	t := review.PatchTypeJSONPatch
	return &review.AdmissionResponse{Allowed: true, Patch: []byte(text), PatchType: &t}
}

func aMap(data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: meta("ns", "c"), Data: data}
}

func TestWebhooksChangeObjectsAndAreAskedAgain(t *testing.T) {
	var first atomic.Int32
	a := webhookServer(t, func(r *review.AdmissionRequest) *review.AdmissionResponse {
		first.Add(1)
		if strings.Contains(string(r.Object.Raw), `"second"`) {
			return patching(`[{"op":"add","path":"/data/saw","value":"second"}]`)
		}
		return patching(`[{"op":"add","path":"/data/first","value":"yes"}]`)
	})
	b := webhookServer(t, func(*review.AdmissionRequest) *review.AdmissionResponse {
		return patching(`[{"op":"add","path":"/data/second","value":"yes"}]`)
	})
	again := admissionv1.IfNeededReinvocationPolicy
	w := newWorld(t, base(
		mutatingWebhook("a.example.com", a, func(m *admissionv1.MutatingWebhook) { m.ReinvocationPolicy = &again }),
		mutatingWebhook("b.example.com", b))...)
	c := aMap(map[string]string{"x": "y"})
	if err := w.create(c); err != nil {
		t.Fatal(err)
	}
	if c.Data["first"] != "yes" || c.Data["second"] != "yes" || c.Data["saw"] != "second" || first.Load() != 2 {
		t.Errorf("data %v after %d calls", c.Data, first.Load())
	}
}

func TestWebhooksRefuse(t *testing.T) {
	no := webhookServer(t, func(r *review.AdmissionRequest) *review.AdmissionResponse {
		if r.UserInfo.Username != "ann" || r.Kind.Kind != "ConfigMap" || !strings.Contains(string(r.Object.Raw), `"apiVersion":"v1"`) {
			t.Errorf("the webhook is told %+v %s", r, r.Object.Raw)
		}
		return &review.AdmissionResponse{Result: &metav1.Status{Message: "not today"}, Warnings: []string{"careful"}}
	})
	w := newWorld(t, base(validatingWebhook("no.example.com", no, func(v *admissionv1.ValidatingWebhook) {
		v.MatchConditions = []admissionv1.MatchCondition{{Name: "data", Expression: "has(object.data) && 'x' in object.data"}}
	}))...)
	if err := w.create(aMap(nil)); err != nil {
		t.Error(err)
	}
	w.refused(w.create(aMap(map[string]string{"x": "y"})), apierrors.IsBadRequest, `admission webhook "no.example.com" denied the request: not today`)
	if len(w.warnings) != 1 || w.warnings[0] != "careful" {
		t.Errorf("warnings %q", w.warnings)
	}
}

func TestWebhooksThatCannotBeAsked(t *testing.T) {
	down := admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: "ns", Name: "none"}}
	open := admissionv1.Ignore
	w := newWorld(t, base(validatingWebhook("open.example.com", down, func(v *admissionv1.ValidatingWebhook) { v.FailurePolicy = &open }))...)
	if err := w.create(aMap(nil)); err != nil {
		t.Error(err)
	}
	w = newWorld(t, base(validatingWebhook("closed.example.com", down))...)
	w.refused(w.create(aMap(nil)), apierrors.IsInternalError, `failed calling webhook "closed.example.com": failed to call webhook: Post "https://none.ns.svc:443/?timeout=5s": service "none" not found`)
	// The way out is never closed.
	if err := w.write(Delete, nil, validatingWebhook("closed.example.com", down), nil); err != nil {
		t.Error(err)
	}
}

func TestDryRunsNeedWebhooksWithoutSideEffects(t *testing.T) {
	some := admissionv1.SideEffectClassSome
	yes := webhookServer(t, func(*review.AdmissionRequest) *review.AdmissionResponse {
		return &review.AdmissionResponse{Allowed: true}
	})
	w := newWorld(t, base(validatingWebhook("s.example.com", yes, func(v *admissionv1.ValidatingWebhook) { v.SideEffects = &some }))...)
	k, _ := w.Catalog.Type(&corev1.ConfigMap{})
	err := w.chain.Validate(t.Context(), &Write{Operation: Create, Kind: api.Served{Kind: k}, Namespace: "ns", Name: "c", Object: aMap(nil), DryRun: true})
	w.refused(err, apierrors.IsBadRequest, `admission webhook "s.example.com" does not support dry run`)
}

func TestExpressionsHaveToCompile(t *testing.T) {
	w := newWorld(t, base()...)
	bad := validatingWebhook("v.example.com", admissionv1.WebhookClientConfig{}, func(v *admissionv1.ValidatingWebhook) {
		v.MatchConditions = []admissionv1.MatchCondition{{Name: "x", Expression: "nothing here"}}
	})
	w.refused(w.create(bad), apierrors.IsInvalid, "webhooks[0].matchConditions[0].expression: Invalid value: \"nothing here\": compilation failed")
}
