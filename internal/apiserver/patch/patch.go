// Package patch applies JSON patches, merge patches and strategic merge patches
// to documents.
package patch

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/proa-dev/proa/internal/api/wire/objectjson"
)

// maxOperations of one JSON patch.
const maxOperations = 10000

// Patch is a change to a document; *Patch is good for several documents.
type Patch struct {
	Type types.PatchType
	Data []byte // JSON
	ops  jsonpatch.Patch
}

// Parse reads a patch. Errors are Status errors.
func Parse(t types.PatchType, data []byte) (*Patch, error) {
	p := &Patch{Type: t, Data: data}
	switch t {
	case types.JSONPatchType:
		ops, err := jsonpatch.DecodePatch(data)
		if err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
		}
		if len(ops) > maxOperations {
			return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", maxOperations, len(ops)))
		}
		p.ops = ops
	case types.MergePatchType, types.StrategicMergePatchType:
		var m map[string]any
		if err := json.Unmarshal(data, &m); err != nil && t == types.MergePatchType {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
		} else if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	}
	return p, nil
}

// Repeated are the fields that the patch names twice.
func (p *Patch) Repeated() []error {
	if p.Type == types.JSONPatchType {
		return nil
	}
	var m map[string]any
	twice, _ := kjson.UnmarshalStrict(p.Data, &m)
	return twice
}

// String is the patch as errors show it.
func (p *Patch) String() string {
	var m map[string]any
	if json.Unmarshal(p.Data, &m) != nil {
		return string(p.Data)
	}
	return fmt.Sprintf("%+v", m)
}

// Apply the patch to a JSON document. like is a value of the document's Go type,
// for strategic merge patches. Errors are Status errors about the kind and name.
func (p *Patch) Apply(doc []byte, like any, kind schema.GroupKind, name string) ([]byte, error) {
	switch p.Type {
	case types.JSONPatchType:
		out, err := p.ops.Apply(doc)
		if err != nil {
			return nil, unfit(err)
		}
		return out, nil
	case types.MergePatchType:
		if out, ok := merged(doc, p.Data); ok {
			return out, nil
		}
		out, err := jsonpatch.MergePatch(doc, p.Data)
		if err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
		}
		return out, nil
	case types.StrategicMergePatchType:
		if _, custom := like.(runtime.Unstructured); custom {
			return nil, apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "patch", schema.GroupResource{Group: kind.Group, Resource: kind.Kind}, name,
				"strategic merge patch is not supported for custom resources", 0, false)
		}
		return p.strategic(doc, like, kind, name)
	}
	return nil, apierrors.NewBadRequest(fmt.Sprintf("unknown patch type %q", p.Type))
}

func (p *Patch) strategic(doc []byte, like any, kind schema.GroupKind, name string) ([]byte, error) {
	out, err := strategicMerge(doc, p.Data, like)
	switch {
	case err == nil:
		return out, nil
	case mergepatch.IsPreconditionFailed(err):
		return nil, unfit(err)
	case errors.Is(err, mergepatch.ErrBadJSONDoc), errors.Is(err, mergepatch.ErrBadPatchFormatForPrimitiveList),
		errors.Is(err, mergepatch.ErrBadPatchFormatForRetainKeys), errors.Is(err, mergepatch.ErrBadPatchFormatForSetElementOrderList):
		return nil, apierrors.NewBadRequest(err.Error())
	case errors.Is(err, mergepatch.ErrUnsupportedStrategicMergePatchFormat):
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return nil, apierrors.NewInvalid(kind, name, field.ErrorList{field.Invalid(field.NewPath("patch"), string(p.Data), err.Error())})
}

// strategicMerge is the library's, but for how the texts are read and written.
func strategicMerge(doc, patch []byte, like any) ([]byte, error) {
	from, fromOK := object(doc, objectjson.ReadAny)
	by, byOK := object(patch, objectjson.ReadAny)
	if !fromOK || !byOK {
		return strategicpatch.StrategicMergePatch(doc, patch, like)
	}
	out, err := strategicpatch.StrategicMergeMapPatch(from, by, like)
	if err != nil {
		return nil, err
	}
	return objectjson.Marshal(map[string]any(out))
}

// unfit says that a patch does not fit the document. It names no object:
// kubectl would print that, and not the message.
func unfit(err error) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
		Details: &metav1.StatusDetails{},
		Message: fmt.Sprintf("the server rejected our request due to an error in our request: %v", err),
	}}
}

// Unsupported is the answer to an apply where managed fields are not kept.
func Unsupported() error {
	return apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "patch", schema.GroupResource{}, "", "apply is not supported by this server", 0, false)
}
