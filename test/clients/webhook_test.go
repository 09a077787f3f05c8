package clients

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/proa-dev/proa/test/clients/proa"
)

// painter sets the colour of Widgets that have none, and has something against black.
type painter struct{}

func (painter) Default(_ context.Context, w *Widget) error {
	if w.Spec.Color == "" {
		w.Spec.Color = "white"
	}
	return nil
}

func (painter) ValidateCreate(_ context.Context, w *Widget) (admission.Warnings, error) {
	if w.Spec.Color == "black" {
		return nil, errors.New("black is not for widgets")
	}
	if w.Spec.Size > 100 {
		return admission.Warnings{"that is large"}, nil
	}
	return nil, nil
}

func (p painter) ValidateUpdate(ctx context.Context, old, now *Widget) (admission.Warnings, error) {
	if now.Spec.Size < old.Spec.Size {
		return nil, errors.New("widgets do not shrink")
	}
	return p.ValidateCreate(ctx, now)
}

func (painter) ValidateDelete(_ context.Context, w *Widget) (admission.Warnings, error) {
	if w.Annotations["keep"] != "" {
		return nil, errors.New("it is kept")
	}
	return nil, nil
}

// TestWebhooks installs webhooks of controller-runtime as its envtest does, with a
// server of its own instead of upstream's.
func TestWebhooks(t *testing.T) {
	s := proa.Start(t)
	rules := func(operations ...admissionv1.OperationType) []admissionv1.RuleWithOperations {
		return []admissionv1.RuleWithOperations{{Operations: operations, Rule: admissionv1.Rule{APIGroups: []string{"example.com"}, APIVersions: []string{"v1"}, Resources: []string{"widgets"}}}}
	}
	at := func(path string) admissionv1.WebhookClientConfig {
		return admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: "default", Name: "hook", Path: &path}}
	}
	env := &envtest.Environment{
		UseExistingCluster: ptr.To(true), Config: s.Config(), Scheme: testScheme(t),
		CRDInstallOptions: envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{widgetDefinition()}},
		WebhookInstallOptions: envtest.WebhookInstallOptions{
			MutatingWebhooks: []*admissionv1.MutatingWebhookConfiguration{{ObjectMeta: metav1.ObjectMeta{Name: "painter"}, Webhooks: []admissionv1.MutatingWebhook{{
				Name: "paint.example.com", ClientConfig: at("/mutate-example-com-v1-widget"), Rules: rules("CREATE", "UPDATE"),
				SideEffects: ptr.To(admissionv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
			}}}},
			ValidatingWebhooks: []*admissionv1.ValidatingWebhookConfiguration{{ObjectMeta: metav1.ObjectMeta{Name: "painter"}, Webhooks: []admissionv1.ValidatingWebhook{{
				Name: "check.example.com", ClientConfig: at("/validate-example-com-v1-widget"), Rules: rules("CREATE", "UPDATE", "DELETE"),
				SideEffects: ptr.To(admissionv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
			}}}},
		},
	}
	conf := must(env.Start())(t)
	t.Cleanup(func() { check(t, env.Stop()) })
	o := env.WebhookInstallOptions
	mgr := startManager(t, s.Config(), webhook.NewServer(webhook.Options{Host: o.LocalServingHost, Port: o.LocalServingPort, CertDir: o.LocalServingCertDir}), func(mgr ctrl.Manager) {
		check(t, ctrl.NewWebhookManagedBy(mgr, &Widget{}).WithDefaulter(painter{}).WithValidator(painter{}).Complete())
	})
	said := &warnings{}
	conf = rest.CopyConfig(conf)
	conf.WarningHandler = said
	c := must(client.New(conf, client.Options{Scheme: mgr.GetScheme()}))(t)
	ctx := t.Context()
	new := func(name string, size int32, color string) *Widget {
		return &Widget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: WidgetSpec{Size: size, Color: color}}
	}
	refused := func(err error, why string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), `admission webhook "check.example.com" denied the request: `+why) {
			t.Errorf("it should be refused because %s: %v", why, err)
		}
	}

	a := new("a", 5, "")
	proa.Eventually(t, "the webhook answers", func(ctx context.Context) error { return c.Create(ctx, a) })
	if a.Spec.Color != "white" {
		t.Errorf("it is %q", a.Spec.Color)
	}
	refused(c.Create(ctx, new("b", 5, "black")), "black is not for widgets")
	check(t, c.Create(ctx, new("c", 500, "")))
	if all := said.all(); len(all) != 1 || all[0] != "that is large" {
		t.Errorf("warnings: %q", all)
	}
	a.Spec.Size = 3
	refused(c.Update(ctx, a), "widgets do not shrink")
	check(t, c.Get(ctx, client.ObjectKeyFromObject(a), a))
	a.Annotations = map[string]string{"keep": "yes"}
	check(t, c.Update(ctx, a))
	refused(c.Delete(ctx, a), "it is kept")
	if err := c.Create(ctx, new("d", 5, ""), client.DryRunAll); err != nil {
		t.Errorf("without side effects: %v", err)
	}
	check(t, c.Delete(ctx, new("c", 0, "")))
}

// warnings that a client was sent.
type warnings struct {
	mu   sync.Mutex
	list []string
}

func (w *warnings) HandleWarningHeader(_ int, _ string, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, text)
}

func (w *warnings) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.list...)
}
