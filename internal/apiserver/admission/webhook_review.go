package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	review "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/admission"
	plugin "k8s.io/apiserver/pkg/admission/plugin/cel"
	kjson "sigs.k8s.io/json"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// requestOf is an AdmissionRequest without the objects.
func requestOf(v *admission.VersionedAttributes) *review.AdmissionRequest {
	r := v.GetResource()
	return plugin.CreateAdmissionRequest(v.Attributes, metav1.GroupVersionResource{Group: v.VersionedKind.Group, Version: v.VersionedKind.Version, Resource: r.Resource}, metav1.GroupVersionKind(v.VersionedKind))
}

// ask a webhook and do what it says. Errors are *uncalled, or what the client is told.
func (h *hooks) ask(ctx context.Context, x *webhook, k api.Served, w *Write, at place) (bool, error) {
	fail := func(format string, a ...any) (bool, error) { return false, &uncalled{x.Name, fmt.Errorf(format, a...)} }
	v, err := versioned(w, k)
	if err != nil {
		return fail("could not create admission objects: %w", err)
	}
	question := requestOf(v)
	question.UID = uuid.NewUUID()
	if question.Object, err = raw(v.VersionedObject); err != nil {
		return fail("could not create admission objects: %w", err)
	}
	if question.OldObject, err = raw(v.VersionedOldObject); err != nil {
		return fail("could not create admission objects: %w", err)
	}
	if question.Options, err = raw(v.GetOperationOptions()); err != nil {
		return fail("could not create admission objects: %w", err)
	}
	version := "v1"
	if !slices.Contains(x.AdmissionReviewVersions, "v1") { // v1beta1 says the same in the same words
		version = "v1beta1"
	}
	meta := metav1.TypeMeta{APIVersion: "admission.k8s.io/" + version, Kind: "AdmissionReview"}
	var answer review.AdmissionReview
	if err := h.Client.Call(ctx, x.target, &review.AdmissionReview{TypeMeta: meta, Request: question}, &answer); err != nil {
		return fail("failed to call webhook: %w", err)
	}
	a := answer.Response
	if err := checkAnswer(a, &answer, string(question.UID), meta, at.mutating); err != nil {
		return fail("received invalid webhook response: %w", err)
	}
	auditAnswer(ctx, x, a.AuditAnnotations)
	for _, text := range a.Warnings {
		request.Warn(ctx, text)
	}
	if !a.Allowed {
		return false, denied(x.Name, a.Result)
	}
	if !at.mutating || len(a.Patch) == 0 {
		return false, nil
	}
	p, err := jsonpatch.DecodePatch(a.Patch)
	if err != nil {
		return fail("received undecodable patch in webhook response: %w", err)
	}
	if len(p) == 0 {
		return false, nil
	}
	if w.Object == nil {
		return false, apierrors.NewInternalError(fmt.Errorf("admission webhook %q attempted to modify the object, which is not supported for this operation", x.Name))
	}
	changed, err := patchObject(w, k, question.Object.Raw, p)
	if err == nil {
		auditPatch(ctx, x, at, a.Patch)
	}
	return changed, err
}

func raw(obj runtime.Object) (runtime.RawExtension, error) {
	if obj == nil || reflect.ValueOf(obj).IsNil() {
		return runtime.RawExtension{}, nil
	}
	text, err := json.Marshal(obj)
	return runtime.RawExtension{Raw: text}, err
}

func checkAnswer(a *review.AdmissionResponse, whole *review.AdmissionReview, uid string, want metav1.TypeMeta, mutating bool) error {
	if a == nil {
		return errors.New("webhook response was absent")
	}
	if want.APIVersion != "admission.k8s.io/v1" {
		if len(a.Patch) > 0 && a.PatchType == nil {
			t := review.PatchTypeJSONPatch
			a.PatchType = &t
		}
		return nil
	}
	switch {
	case string(a.UID) != uid:
		return fmt.Errorf("expected response.uid=%q, got %q", uid, a.UID)
	case whole.TypeMeta != want:
		return fmt.Errorf("expected webhook response of %v, got %v", schema.FromAPIVersionAndKind(want.APIVersion, want.Kind), whole.GroupVersionKind())
	case !mutating && len(a.Patch) > 0:
		return errors.New("validating webhook may not return response.patch")
	case !mutating && a.PatchType != nil:
		return errors.New("validating webhook may not return response.patchType")
	case len(a.Patch) > 0 && a.PatchType == nil:
		return errors.New("webhook returned response.patch but not response.patchType")
	case len(a.Patch) == 0 && a.PatchType != nil:
		return errors.New("webhook returned response.patchType but not response.patch")
	case a.PatchType != nil && *a.PatchType != review.PatchTypeJSONPatch:
		return fmt.Errorf("webhook returned invalid response.patchType of %q", *a.PatchType)
	}
	return nil
}

// denied is what the client is told of a webhook's no.
func denied(name string, s *metav1.Status) error {
	by := fmt.Sprintf("admission webhook %q denied the request", name)
	if s == nil {
		s = &metav1.Status{}
	}
	if s.Code < http.StatusBadRequest {
		s.Code = http.StatusBadRequest
	}
	if s.Status == "" || s.Status == metav1.StatusSuccess {
		s.Status = metav1.StatusFailure
	}
	switch {
	case s.Message != "":
		s.Message = by + ": " + s.Message
	case s.Reason != "":
		s.Message = by + ": " + string(s.Reason)
	default:
		s.Message = by + " without explanation"
	}
	return &apierrors.StatusError{ErrStatus: *s}
}

// patchObject changes w.Object by a patch of its document in a version.
func patchObject(w *Write, k api.Served, doc []byte, p jsonpatch.Patch) (bool, error) {
	text, err := p.Apply(doc)
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	if jsonpatch.Equal(doc, text) {
		return false, nil
	}
	create := k.New
	if k.Shape != nil {
		create = k.Shape.New
	}
	obj := create()
	if err := decodeInto(text, obj); err != nil {
		return false, apierrors.NewInternalError(err)
	}
	if k.Prune != nil {
		if _, err := k.Prune(obj); err != nil {
			return false, apierrors.NewInternalError(err)
		}
	}
	if obj, err = toHub(obj, k, w); err != nil {
		return false, err
	}
	replace(w, obj)
	return true, nil
}

func decodeInto(text []byte, obj api.Object) error {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		u.Object = map[string]any{}
		return kjson.UnmarshalCaseSensitivePreserveInts(text, &u.Object)
	}
	return kjson.UnmarshalCaseSensitivePreserveInts(text, obj)
}

// assign makes one object of a type equal to another.
func assign(to, from api.Object) {
	if u, ok := to.(*unstructured.Unstructured); ok {
		u.Object = from.(*unstructured.Unstructured).Object
		return
	}
	reflect.ValueOf(to).Elem().Set(reflect.ValueOf(from).Elem())
}
