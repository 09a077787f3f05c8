package extension

import (
	"context"
	"fmt"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"
	kjson "sigs.k8s.io/json"

	"github.com/proa-dev/proa/internal/apiserver/extension/hook"
)

// convertWithin is how long a conversion webhook may take.
const convertWithin = 30 * time.Second

// converter of a definition, nil when versions differ in their name alone.
func (r *Resources) converter(d *apiextensionsv1.CustomResourceDefinition) func(*unstructured.Unstructured, schema.GroupVersionKind) (*unstructured.Unstructured, error) {
	c := d.Spec.Conversion
	if c == nil || c.Strategy != apiextensionsv1.WebhookConverter || c.Webhook == nil || c.Webhook.ClientConfig == nil {
		return nil
	}
	to := hook.Target{Name: "conversion webhook for " + d.Name, CABundle: c.Webhook.ClientConfig.CABundle}
	if c.Webhook.ClientConfig.URL != nil {
		to.URL = *c.Webhook.ClientConfig.URL
	}
	if s := c.Webhook.ClientConfig.Service; s != nil {
		to.Service = &hook.Service{Namespace: s.Namespace, Name: s.Name, Port: 443}
		if s.Path != nil {
			to.Service.Path = *s.Path
		}
		if s.Port != nil {
			to.Service.Port = *s.Port
		}
	}
	return func(u *unstructured.Unstructured, want schema.GroupVersionKind) (*unstructured.Unstructured, error) {
		if u.GroupVersionKind() == want {
			return u, nil
		}
		if u.GetName() == "" { // no object yet, or a bookmark
			u.SetGroupVersionKind(want)
			return u, nil
		}
		out, err := r.callConverter(to, u, want)
		if err != nil {
			return nil, apierrors.NewInternalError(fmt.Errorf("conversion webhook for %v failed: %w", u.GroupVersionKind(), err))
		}
		return out, nil
	}
}

func (r *Resources) callConverter(to hook.Target, u *unstructured.Unstructured, want schema.GroupVersionKind) (*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(context.Background(), convertWithin)
	defer cancel()
	body, err := u.MarshalJSON()
	if err != nil {
		return nil, err
	}
	ask := &apiextensionsv1.ConversionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "ConversionReview"},
		Request: &apiextensionsv1.ConversionRequest{
			UID: uuid.NewUUID(), DesiredAPIVersion: want.GroupVersion().String(), Objects: []runtime.RawExtension{{Raw: body}},
		},
	}
	var answer apiextensionsv1.ConversionReview
	if err := r.Hooks.Call(ctx, to, ask, &answer); err != nil {
		return nil, err
	}
	switch a := answer.Response; {
	case a == nil:
		return nil, fmt.Errorf("no response provided")
	case a.UID != ask.Request.UID:
		return nil, fmt.Errorf("expected response.uid=%q, got %q", ask.Request.UID, a.UID)
	case a.Result.Status != metav1.StatusSuccess:
		if a.Result.Message == "" {
			a.Result.Message = fmt.Sprintf("response.result.status was '%s', not 'Success'", a.Result.Status)
		}
		return nil, fmt.Errorf("%s", a.Result.Message)
	case len(a.ConvertedObjects) != 1:
		return nil, fmt.Errorf("returned %d objects, expected 1", len(a.ConvertedObjects))
	}
	out := &unstructured.Unstructured{Object: map[string]any{}}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(answer.Response.ConvertedObjects[0].Raw, &out.Object); err != nil {
		return nil, err
	}
	if out.GroupVersionKind() != want {
		return nil, fmt.Errorf("returned invalid converted object: expected %v, got %v", want, out.GroupVersionKind())
	}
	if out.GetUID() != u.GetUID() || out.GetName() != u.GetName() || out.GetNamespace() != u.GetNamespace() {
		return nil, fmt.Errorf("returned invalid metadata: name, namespace and uid must not change")
	}
	// Labels and annotations are all of the metadata that a webhook may change.
	meta := u.DeepCopy()
	meta.SetLabels(out.GetLabels())
	meta.SetAnnotations(out.GetAnnotations())
	out.Object["metadata"] = meta.Object["metadata"]
	return out, nil
}
