// Package inprocess lets components in the same process use the verbs as one
// user, without HTTP. client/local stands on it; what it does beside calling a
// verb is what the HTTP edge does to a body: defaults, and an empty TypeMeta.
// There is no authorisation: who holds a User is trusted to be it.
package inprocess

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
	"github.com/proa-dev/proa/internal/cache"
)

// User does things in the name of a user.
type User struct {
	Verbs *verbs.Verbs
	User  *request.User
}

func (u *User) request(k *api.Kind, namespace, name, sub, manager string, dryRun bool) *verbs.Request {
	return &verbs.Request{Kind: api.Served{Kind: k}, Namespace: namespace, Name: name, Subresource: sub, User: u.User, Manager: manager, DryRun: dryRun}
}

// Get one object.
func (u *User) Get(ctx context.Context, k *api.Kind, namespace, name string) (api.Object, error) {
	return object(u.Verbs.Get(ctx, u.request(k, namespace, name, "", "", false)))
}

// List objects, and the revision they are of. index "" = not narrowed by one.
func (u *User) List(ctx context.Context, k *api.Kind, namespace string, l labels.Selector, index, value string) ([]api.Object, int64, error) {
	if index != "" && k.Indexes[index] == nil {
		return nil, 0, apierrors.NewBadRequest(fmt.Sprintf("%s have no index %q", k.Resource, index))
	}
	list, err := u.Verbs.List(ctx, u.request(k, namespace, "", "", "", false), verbs.ListOptions{Selector: verbs.Selector{Labels: l, Index: index, Value: value}})
	if err != nil {
		return nil, 0, err
	}
	objs := make([]api.Object, len(list.Items))
	for i, item := range list.Items {
		objs[i] = item.Object
	}
	return objs, list.Revision, nil
}

// Create stores a new object.
func (u *User) Create(ctx context.Context, k *api.Kind, obj api.Object, manager string, dryRun bool) (api.Object, error) {
	obj, err := arrive(k, obj)
	if err != nil {
		return nil, err
	}
	return object(u.Verbs.Create(ctx, u.request(k, obj.GetNamespace(), obj.GetName(), "", manager, dryRun), obj))
}

// Update replaces an object or a subresource of it.
func (u *User) Update(ctx context.Context, k *api.Kind, sub string, obj api.Object, manager string, dryRun bool) (api.Object, error) {
	r := u.request(k, obj.GetNamespace(), obj.GetName(), sub, manager, dryRun)
	if isPart(k, sub) {
		return part(u.Verbs.UpdatePart(ctx, r, obj))
	}
	obj, err := arrive(k, obj)
	if err != nil {
		return nil, err
	}
	item, _, err := u.Verbs.Update(ctx, r, obj)
	return object(item, err)
}

// Patch changes an object or a subresource of it where it is.
func (u *User) Patch(ctx context.Context, k *api.Kind, namespace, name, sub string, t types.PatchType, data []byte, manager string, force, dryRun bool) (api.Object, error) {
	r, p := u.request(k, namespace, name, sub, manager, dryRun), verbs.Patch{Type: t, Data: data, Force: force}
	if isPart(k, sub) {
		return part(u.Verbs.PatchPart(ctx, r, p))
	}
	item, _, err := u.Verbs.Patch(ctx, r, p)
	return object(item, err)
}

// Delete an object.
func (u *User) Delete(ctx context.Context, k *api.Kind, namespace, name string, opts metav1.DeleteOptions) error {
	_, _, err := u.Verbs.Delete(ctx, u.request(k, namespace, name, "", "", len(opts.DryRun) > 0), opts)
	return err
}

// Post sends a body to a subresource that is an action.
func (u *User) Post(ctx context.Context, k *api.Kind, namespace, name, sub string, body runtime.Object, manager string) (runtime.Object, error) {
	body.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return u.Verbs.Post(ctx, u.request(k, namespace, name, sub, manager, false), body)
}

// BindAll puts many pods on nodes. One error, or nil, for each, in order.
func (u *User) BindAll(ctx context.Context, all []corev1.Binding) []error {
	list := make([]verbs.Binding, len(all))
	for i := range all {
		list[i] = verbs.Binding{Namespace: all[i].Namespace, Name: all[i].Name, UID: all[i].UID, Node: all[i].Target.Name}
	}
	return u.Verbs.BindAll(ctx, list)
}

// arrive makes obj what a decoded body is. A built-in object goes through its
// stored form: what the form does not hold, the fractions of a second of a time
// above all, must not be in the cache either, or a client that writes back what
// it has read would seem to change it.
func arrive(k *api.Kind, obj api.Object) (api.Object, error) {
	if k.Encoding == api.Protobuf && !k.Virtual {
		version := obj.GetResourceVersion()
		data, err := wire.EncodeStorage(k, obj)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		out, err := wire.DecodeStorage(k, data, 0)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		out.SetResourceVersion(version)
		return out, nil
	}
	if k.Encoding == api.Protobuf {
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	} else if gvk := obj.GetObjectKind().GroupVersionKind(); k.Convert != nil && gvk != k.GroupVersionKind && !gvk.Empty() {
		// as it was read: in whatever version it was stored in
		var err error
		if obj, err = k.Convert(obj.DeepCopyObject().(api.Object), k.GroupVersionKind); err != nil {
			return nil, err
		}
	} else {
		obj.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	}
	if k.Default != nil {
		k.Default(obj)
	}
	return obj, nil
}

func isPart(k *api.Kind, sub string) bool {
	s := k.Subresource(sub)
	return s != nil && s.Get != nil && s.Set != nil
}

func object(item *cache.Item, err error) (api.Object, error) {
	if err != nil {
		return nil, err
	}
	return item.Object, nil
}

func part(body runtime.Object, err error) (api.Object, error) {
	if err != nil {
		return nil, err
	}
	obj, ok := body.(api.Object)
	if !ok {
		return nil, apierrors.NewBadRequest("the subresource's body is no object with metadata")
	}
	return obj, nil
}
