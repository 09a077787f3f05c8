package extension

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/proa-dev/proa/internal/apiserver/extension/hook"
)

// convertWithin is how long a conversion webhook may take.
const convertWithin = 30 * time.Second

// webhook converts objects by asking somebody.
type webhook struct {
	hooks    *hook.Client
	to       hook.Target
	within   time.Duration
	versions []string // of ConversionReview that it understands, best first
}

// convert is a converter: one ConversionReview for all objects.
func (w *webhook) convert(objs []*unstructured.Unstructured, want schema.GroupVersionKind) ([]*unstructured.Unstructured, error) {
	from := objs[0].GroupVersionKind()
	failed := func(format string, a ...any) ([]*unstructured.Unstructured, error) {
		return nil, fmt.Errorf("conversion webhook for %v %w", from, fmt.Errorf(format, a...))
	}
	answer, err := w.ask(objs, want)
	if err != nil {
		return failed("failed: %w", err)
	}
	if len(answer) != len(objs) {
		return failed("returned %d objects, expected %d", len(answer), len(objs))
	}
	out := make([]*unstructured.Unstructured, len(objs))
	for i, raw := range answer {
		u := &unstructured.Unstructured{Object: map[string]any{}}
		err := kjson.UnmarshalCaseSensitivePreserveInts(raw.Raw, &u.Object)
		if err == nil {
			err = sameObject(objs[i], u, want)
		}
		if err == nil {
			err = restoreMeta(objs[i], u)
		}
		if err != nil {
			return failed("returned invalid object at index %d: %w", i, err)
		}
		out[i] = u
	}
	return out, nil
}

// ask the webhook, and check the outer form of what it says.
func (w *webhook) ask(objs []*unstructured.Unstructured, want schema.GroupVersionKind) ([]runtime.RawExtension, error) {
	ctx, cancel := context.WithTimeout(context.Background(), w.within)
	defer cancel()
	review, err := w.reviewVersion()
	if err != nil {
		return nil, err
	}
	meta := metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/" + review, Kind: "ConversionReview"}
	uid := uuid.NewUUID()
	q := &apiextensionsv1.ConversionRequest{UID: uid, DesiredAPIVersion: want.GroupVersion().String()}
	for _, u := range objs {
		body, err := u.MarshalJSON()
		if err != nil {
			return nil, err
		}
		q.Objects = append(q.Objects, runtime.RawExtension{Raw: body})
	}
	var answer apiextensionsv1.ConversionReview
	if err := w.hooks.Call(ctx, w.to, &apiextensionsv1.ConversionReview{TypeMeta: meta, Request: q}, &answer); err != nil {
		return nil, err
	}
	return converted(&answer, meta, uid)
}

// reviewVersion is the first version that the webhook and we understand; v1beta1
// says the same in the same words.
func (w *webhook) reviewVersion() (string, error) {
	for _, v := range w.versions {
		if v == "v1" || v == "v1beta1" {
			return v, nil
		}
	}
	return "", fmt.Errorf("no supported conversion review versions: %v", w.versions)
}

// converted are the objects of an answer. Who speaks v1beta1 need not repeat what
// was asked.
func converted(answer *apiextensionsv1.ConversionReview, meta metav1.TypeMeta, uid types.UID) ([]runtime.RawExtension, error) {
	strict := meta.APIVersion == "apiextensions.k8s.io/v1"
	a := answer.Response
	switch {
	case strict && answer.TypeMeta != meta:
		want, got := meta.GroupVersionKind(), answer.GroupVersionKind()
		return nil, fmt.Errorf("expected webhook response of %v, got %v", want, got)
	case a == nil:
		return nil, errors.New("no response provided")
	case strict && a.UID != uid:
		return nil, fmt.Errorf("expected response.uid=%q, got %q", uid, a.UID)
	case a.Result.Status != metav1.StatusSuccess && a.Result.Message != "":
		return nil, errors.New(a.Result.Message)
	case a.Result.Status != metav1.StatusSuccess:
		return nil, fmt.Errorf("response.result.status was '%s', not 'Success'", a.Result.Status)
	}
	return a.ConvertedObjects, nil
}

// sameObject says how an answer is not the object that was asked about in the
// version that is wanted.
func sameObject(was, is *unstructured.Unstructured, want schema.GroupVersionKind) error {
	got := is.GroupVersionKind()
	switch {
	case got.GroupVersion() != want.GroupVersion():
		return fmt.Errorf("invalid groupVersion (expected %v, received %v)", want.GroupVersion(), got.GroupVersion())
	case got.Kind != want.Kind:
		return fmt.Errorf("invalid kind (expected %v, received %v)", want.Kind, got.Kind)
	case is.GetName() != was.GetName():
		return fmt.Errorf("must have the same name: %v != %v", was.GetName(), is.GetName())
	case is.GetNamespace() != was.GetNamespace():
		return fmt.Errorf("must have the same namespace: %v != %v", was.GetNamespace(), is.GetNamespace())
	case is.GetUID() != was.GetUID():
		return fmt.Errorf("must have the same UID: %v != %v", was.GetUID(), is.GetUID())
	}
	return nil
}

// restoreMeta gives an answer the metadata of what was asked about: labels and
// annotations are all that a webhook may change of it.
func restoreMeta(was, is *unstructured.Unstructured) error {
	sent, ok := is.Object["metadata"].(map[string]any)
	if !ok {
		return fmt.Errorf("missing metadata in converted object")
	}
	meta := map[string]any{}
	if had, ok := was.Object["metadata"].(map[string]any); ok {
		meta = runtime.DeepCopyJSON(had)
	}
	for name, check := range map[string]func(map[string]string) field.ErrorList{
		"labels": func(m map[string]string) field.ErrorList {
			return metav1validation.ValidateLabels(m, field.NewPath("metadata", "labels"))
		},
		"annotations": func(m map[string]string) field.ErrorList {
			return validation.ValidateAnnotations(m, field.NewPath("metadata", "annotations"))
		},
	} {
		if sent[name] == nil {
			delete(meta, name)
			continue
		}
		values, err := texts(sent[name], name)
		if err != nil {
			return err
		}
		had, _, _ := unstructured.NestedStringMap(meta, name)
		if !maps.Equal(had, values) {
			if bad := check(values); len(bad) > 0 {
				return bad.ToAggregate()
			}
		}
		meta[name] = sent[name]
	}
	is.Object["metadata"] = meta
	return nil
}

// texts of a map, all of whose values have to be strings.
func texts(of any, name string) (map[string]string, error) {
	m, ok := of.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("invalid metadata.%s of type %T in converted object", name, of)
	}
	out := make(map[string]string, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		text, ok := m[key].(string)
		if !ok {
			return nil, fmt.Errorf("metadata.%s[%s] must be a string, but is %T in converted object", name, key, m[key])
		}
		out[key] = text
	}
	return out, nil
}
