package verbs

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver/patch"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
)

// A part is a projection of an object, such as its scale: a subresource with
// Get and Set.

// part of a request, or the error that there is none.
func (r *Request) part() (*api.Subresource, error) {
	if s := r.Kind.Subresource(r.Subresource); s != nil && s.Get != nil && s.Set != nil {
		return s, nil
	}
	return nil, NoSuchPath()
}

// NoSuchPath is the answer to a path below an object that leads nowhere.
func NoSuchPath() error {
	return apierrors.NewGenericServerResponse(404, "", schema.GroupResource{}, "", "the server could not find the requested resource", 0, true)
}

// GetPart returns a projection of an object.
func (v *Verbs) GetPart(ctx context.Context, r *Request) (runtime.Object, error) {
	sub, err := r.part()
	if err != nil {
		return nil, err
	}
	item, err := v.Get(ctx, r)
	if err != nil {
		return nil, err
	}
	return r.partOf(sub, item)
}

// partOf an item that is stored.
func (r *Request) partOf(sub *api.Subresource, item *cache.Item) (runtime.Object, error) {
	item, err := inHub(r.Kind, item)
	if err != nil {
		return nil, err
	}
	return sub.Get(item.Object)
}

// UpdatePart writes a projection and returns it as it is now.
func (v *Verbs) UpdatePart(ctx context.Context, r *Request, body runtime.Object) (runtime.Object, error) {
	sub, err := r.part()
	if err != nil {
		return nil, err
	}
	return v.changePart(ctx, r, sub, func(*cache.Item) (runtime.Object, error) { return body, nil })
}

// PatchPart changes a projection and returns it as it is now.
func (v *Verbs) PatchPart(ctx context.Context, r *Request, p Patch) (runtime.Object, error) {
	sub, err := r.part()
	if err != nil {
		return nil, err
	}
	if p.Type == types.ApplyYAMLPatchType {
		return v.applyPart(ctx, r, sub, p)
	}
	change, err := patch.Parse(p.Type, p.Data)
	if err != nil {
		return nil, err
	}
	if err := repeated(ctx, r, change); err != nil {
		return nil, err
	}
	return v.changePart(ctx, r, sub, func(old *cache.Item) (runtime.Object, error) {
		now, err := sub.Get(old.Object)
		if err != nil {
			return nil, err
		}
		doc, err := wire.Encode(sub.Kind, now, wire.JSON)
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		out, err := change.Apply(doc, sub.Body(), sub.Kind.GroupKind(), r.Name)
		if err != nil {
			return nil, err
		}
		body := sub.Body()
		warnings, err := wire.DecodeInto(wire.JSON, out, sub.Kind, body, r.Strictness)
		if err != nil {
			return nil, badPatch(string(out), err)
		}
		for _, w := range warnings {
			request.Warn(ctx, w)
		}
		return body, nil
	})
}

func (v *Verbs) changePart(ctx context.Context, r *Request, sub *api.Subresource, wanted func(*cache.Item) (runtime.Object, error)) (runtime.Object, error) {
	item, _, err := v.change(ctx, r, false, func(old *cache.Item) (api.Object, error) {
		body, err := wanted(old)
		if err != nil {
			return nil, err
		}
		obj := old.Object.DeepCopyObject().(api.Object)
		if m, ok := body.(metav1.Object); ok {
			if m.GetName() != "" && m.GetName() != r.Name {
				return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", m.GetName(), r.Name))
			}
			if rv := m.GetResourceVersion(); rv != "" {
				obj.SetResourceVersion(rv)
			}
			if err := r.sameUID(m, obj); err != nil {
				return nil, err
			}
		}
		return obj, sub.Set(obj, body)
	}, v.note)
	if err != nil {
		return nil, err
	}
	return r.partOf(sub, item)
}

// applyPart applies a Scale: what it says of replicas is applied to the object,
// whose owner is the manager of that part.
func (v *Verbs) applyPart(ctx context.Context, r *Request, sub *api.Subresource, p Patch) (runtime.Object, error) {
	var config struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        metav1.ObjectMeta `json:"metadata"`
		Spec            map[string]any    `json:"spec"`
	}
	if err := yaml.Unmarshal(p.Data, &config); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err))
	}
	if config.Kind != sub.Kind.Kind {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s", config.Kind, config.APIVersion, sub.Kind.Kind))
	}
	if n := config.Metadata.Name; n != "" && n != r.Name {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", n, r.Name))
	}
	version, kind := r.Kind.GVK().ToAPIVersionAndKind()
	whole, err := yaml.Marshal(map[string]any{"apiVersion": version, "kind": kind, "metadata": map[string]any{"name": r.Name, "namespace": r.Namespace}, "spec": config.Spec})
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	p.Data = whole
	item, _, err := v.apply(ctx, r, p)
	if err != nil {
		return nil, err
	}
	return r.partOf(sub, item)
}

// DocumentKind is what a document of obj has to be told of its kind: nothing,
// if it says so itself.
func DocumentKind(k api.Served, obj runtime.Object) schema.GroupVersionKind {
	if _, custom := obj.(runtime.Unstructured); custom {
		return schema.GroupVersionKind{}
	}
	return k.GVK()
}
