package verbs

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver/patch"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
)

// Patch is a change as a client sends it.
type Patch struct {
	Type  types.PatchType
	Data  []byte
	Force bool // apply only: take over fields that others own
}

// Patch changes an object where it is, in the served shape; an apply may create
// it. It is made again when somebody else was faster.
func (v *Verbs) Patch(ctx context.Context, r *Request, p Patch) (item *cache.Item, created bool, err error) {
	if p.Type == types.ApplyYAMLPatchType {
		return v.apply(ctx, r, p)
	}
	change, err := patch.Parse(p.Type, p.Data)
	if err != nil {
		return nil, false, err
	}
	if err := repeated(ctx, r, change); err != nil {
		return nil, false, err
	}
	return v.change(ctx, r, false, func(old *cache.Item) (api.Object, error) {
		return v.patched(ctx, r, change, old)
	}, v.note)
}

func (v *Verbs) apply(ctx context.Context, r *Request, p Patch) (*cache.Item, bool, error) {
	if v.Fields == nil {
		return nil, false, patch.Unsupported()
	}
	owned := func(*Request, api.Object, api.Object) {} // Apply has written them
	if err := repeatedYAML(ctx, r, p.Data); err != nil {
		return nil, false, err
	}
	create := r.Subresource == ""
	return v.change(ctx, r, create, func(old *cache.Item) (api.Object, error) {
		var there api.Object
		if old != nil {
			there = old.Object
		}
		obj, err := v.Fields.Apply(r.Kind, there, p.Data, r.Manager, r.Subresource, p.Force, v.Now())
		if err != nil {
			return nil, err
		}
		if err := v.appliedName(r, obj); err != nil {
			return nil, err
		}
		return obj, nil
	}, owned)
}

// appliedName holds the name of an applied object against the URL.
func (v *Verbs) appliedName(r *Request, obj api.Object) error {
	if obj.GetName() == "" {
		obj.SetName(r.Name)
	}
	if obj.GetName() != r.Name {
		return wrongName(obj, r)
	}
	return r.inNamespace(obj)
}

// patched is an object with a change made in its served shape.
func (v *Verbs) patched(ctx context.Context, r *Request, change *patch.Patch, old *cache.Item) (api.Object, error) {
	body, err := Body(old, r.Kind, wire.JSON)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	obj, warnings, err := v.patchedPart(r, change, old, body.Append(make([]byte, 0, body.Len())))
	if obj == nil && err == nil {
		obj, warnings, err = v.patchedWhole(r, change, old, body)
	}
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		request.Warn(ctx, w)
	}
	if obj.GetName() != r.Name {
		return nil, wrongName(obj, r)
	}
	if obj.GetNamespace() != old.Object.GetNamespace() {
		return nil, apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return obj, nil
}

// patchedPart reads and writes only the top-level fields that the change touches;
// nil when it has to see the whole.
func (v *Verbs) patchedPart(r *Request, change *patch.Patch, old *cache.Item, body []byte) (api.Object, []string, error) {
	if _, custom := old.Object.(runtime.Unstructured); custom || r.Kind.Shape != nil {
		return nil, nil, nil
	}
	part, fields, without, ok := change.Part(body)
	if !ok {
		return nil, nil, nil
	}
	out, err := change.Apply(part, old.Object, r.Kind.GVK().GroupKind(), r.Name)
	if err != nil {
		return nil, nil, err
	}
	obj := old.Object.DeepCopyObject().(api.Object)
	patch.Clear(obj, fields)
	warnings, err := wire.DecodeInto(wire.JSON, out, r.Kind.GVK(), obj, r.Strictness)
	if err != nil {
		return nil, nil, badPatch(shown(change, out), err)
	}
	if without {
		obj.SetManagedFields(old.Object.GetManagedFields())
	}
	if r.Kind.Default != nil {
		r.Kind.Default(obj)
	}
	return obj, warnings, nil
}

// shown is how an error shows what came of a patch.
func shown(change *patch.Patch, out []byte) string {
	if change.Type == types.StrategicMergePatchType {
		return change.String()
	}
	return string(out)
}

func (v *Verbs) patchedWhole(r *Request, change *patch.Patch, old *cache.Item, body wire.Text) (api.Object, []string, error) {
	doc, err := wire.Document(DocumentKind(r.Kind, old.Object), body, wire.JSON)
	if err != nil {
		return nil, nil, apierrors.NewInternalError(err)
	}
	like := old.Object
	if r.Kind.Shape != nil {
		like = r.Kind.Shape.New()
	}
	out, err := change.Apply(doc, like, r.Kind.GVK().GroupKind(), r.Name)
	if err != nil {
		return nil, nil, err
	}
	obj, warnings, err := wire.Decode(wire.JSON, out, r.Kind, r.Strictness)
	if err != nil {
		return nil, nil, badPatch(shown(change, out), err)
	}
	return obj, warnings, nil
}

func wrongName(obj api.Object, r *Request) error {
	return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), r.Name))
}

// repeated warns of fields that a patch names twice, or refuses it.
func repeated(ctx context.Context, r *Request, change *patch.Patch) error {
	if r.Strictness == wire.Ignore {
		return nil
	}
	twice := change.Repeated()
	if len(twice) > 0 && r.Strictness == wire.Strict {
		return badPatch(change.String(), runtime.NewStrictDecodingError(twice))
	}
	for _, err := range twice {
		request.Warn(ctx, err.Error())
	}
	return nil
}

// repeatedYAML warns of fields that a configuration names twice, or refuses it.
func repeatedYAML(ctx context.Context, r *Request, config []byte) error {
	if r.Strictness == wire.Ignore {
		return nil
	}
	err := yaml.UnmarshalStrict(config, &map[string]any{})
	switch {
	case err == nil:
		return nil
	case r.Strictness == wire.Strict:
		return apierrors.NewBadRequest(fmt.Sprintf("error strict decoding YAML: %v", err))
	}
	request.Warn(ctx, err.Error())
	return nil
}

// badPatch says that the outcome of a patch is no object of the kind.
func badPatch(out string, err error) error {
	text := err.Error()
	if s, ok := err.(apierrors.APIStatus); ok {
		text = s.Status().Message
	}
	return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), out, text)})
}
