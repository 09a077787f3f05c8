// Package inprocess lets components in the same process use the verbs as one
// user, without HTTP. client/local stands on it; what it does beside calling a
// verb is what the HTTP edge does to a body: defaults, and an empty TypeMeta.
// There is no authorisation: who holds a User is trusted to be it. What is done is
// written down in the audit log, where there is one, as requests over HTTP are.
package inprocess

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver/audit"
	"github.com/proa-dev/proa/internal/apiserver/record"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
	"github.com/proa-dev/proa/internal/cache"
)

// User does things in the name of a user.
type User struct {
	Verbs *verbs.Verbs
	User  *request.User
	// Audit writes down what is done; nil = nobody does, and it costs nothing. Agent is
	// the User-Agent that it names.
	Audit *audit.Log
	Agent string
}

func (u *User) request(k *api.Kind, namespace, name, sub, manager string, dryRun bool) *verbs.Request {
	return &verbs.Request{Kind: api.Served{Kind: k}, Namespace: namespace, Name: name, Subresource: sub, User: u.User, Manager: manager, DryRun: dryRun}
}

// Get one object.
func (u *User) Get(ctx context.Context, k *api.Kind, namespace, name string) (api.Object, error) {
	q := u.request(k, namespace, name, "", "", false)
	ctx, c, err := u.begin(ctx, http.MethodGet, q, nil)
	if err != nil {
		return nil, err
	}
	defer c.panics()
	item, err := u.Verbs.Get(ctx, q)
	c.item(http.StatusOK, item, err)
	return object(item, err)
}

// List objects, and the revision they are of. index "" = not narrowed by one.
func (u *User) List(ctx context.Context, k *api.Kind, namespace string, l labels.Selector, index, value string) ([]api.Object, int64, error) {
	if index != "" && k.Indexes[index] == nil {
		return nil, 0, apierrors.NewBadRequest(fmt.Sprintf("%s have no index %q", k.Resource, index))
	}
	q := u.request(k, namespace, "", "", "", false)
	ctx, c, err := u.begin(ctx, http.MethodGet, q, u.selecting(l, index, value))
	if err != nil {
		return nil, 0, err
	}
	defer c.panics()
	list, err := u.Verbs.List(ctx, q, verbs.ListOptions{Selector: verbs.Selector{Labels: l, Index: index, Value: value}})
	c.list(list, err)
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
	q := u.request(k, obj.GetNamespace(), obj.GetName(), "", manager, dryRun)
	ctx, c, err := u.begin(ctx, http.MethodPost, q, nil)
	if err != nil {
		return nil, err
	}
	defer c.panics()
	if obj, err = arrive(k, obj); err != nil {
		return nil, c.failed(err)
	}
	c.sent(obj)
	item, err := u.Verbs.Create(ctx, q, obj)
	c.item(http.StatusCreated, item, err)
	return object(item, err)
}

// Update replaces an object or a subresource of it.
func (u *User) Update(ctx context.Context, k *api.Kind, sub string, obj api.Object, manager string, dryRun bool) (api.Object, error) {
	q := u.request(k, obj.GetNamespace(), obj.GetName(), sub, manager, dryRun)
	ctx, c, err := u.begin(ctx, http.MethodPut, q, nil)
	if err != nil {
		return nil, err
	}
	defer c.panics()
	if s := partOf(k, sub); s != nil {
		c.sentPart(obj, s.Kind)
		body, err := u.Verbs.UpdatePart(ctx, q, obj)
		c.answer(http.StatusOK, s.Kind, body, err)
		return part(body, err)
	}
	if obj, err = arrive(k, obj); err != nil {
		return nil, c.failed(err)
	}
	c.sent(obj)
	item, created, err := u.Verbs.Update(ctx, q, obj)
	c.item(record.CodeOf(created), item, err)
	return object(item, err)
}

// Patch changes an object or a subresource of it where it is.
func (u *User) Patch(ctx context.Context, k *api.Kind, namespace, name, sub string, t types.PatchType, data []byte, manager string, force, dryRun bool) (api.Object, error) {
	q, p := u.request(k, namespace, name, sub, manager, dryRun), verbs.Patch{Type: t, Data: data, Force: force}
	ctx, c, err := u.begin(ctx, http.MethodPatch, q, u.applying(p, manager))
	if err != nil {
		return nil, err
	}
	defer c.panics()
	c.sentPatch(data)
	if s := partOf(k, sub); s != nil {
		body, err := u.Verbs.PatchPart(ctx, q, p)
		c.answer(http.StatusOK, s.Kind, body, err)
		return part(body, err)
	}
	item, created, err := u.Verbs.Patch(ctx, q, p)
	c.item(record.CodeOf(created), item, err)
	return object(item, err)
}

// Delete an object.
func (u *User) Delete(ctx context.Context, k *api.Kind, namespace, name string, opts metav1.DeleteOptions) error {
	q := u.request(k, namespace, name, "", "", len(opts.DryRun) > 0)
	ctx, c, err := u.begin(ctx, http.MethodDelete, q, nil)
	if err != nil {
		return err
	}
	defer c.panics()
	if c.wants(audit.Request) {
		record.Delete(c.rec, &opts)
	}
	item, gone, err := u.Verbs.Delete(ctx, q, opts)
	if c == nil || c.failed(err) != nil {
		return err
	}
	if code, status := record.Deleted(q, item, gone, &opts); status != nil {
		c.answer(code, record.StatusGVK, status, nil)
	} else {
		c.item(code, item, nil)
	}
	return nil
}

// Post sends a body to a subresource that is an action.
func (u *User) Post(ctx context.Context, k *api.Kind, namespace, name, sub string, body runtime.Object, manager string) (runtime.Object, error) {
	body.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	q := u.request(k, namespace, name, sub, manager, false)
	ctx, c, err := u.begin(ctx, http.MethodPost, q, nil)
	if err != nil {
		return nil, err
	}
	defer c.panics()
	gvk := k.GroupVersionKind
	if s := k.Subresource(sub); sub != "" && s != nil {
		gvk = s.Kind
	}
	c.sentPart(body, gvk)
	out, err := u.Verbs.Post(ctx, q, body)
	c.action(gvk, out, err)
	return out, err
}

// Watch writes down that changes are followed, which the caller does by itself. ended
// is called when they no longer are; nil = nobody wants to know.
func (u *User) Watch(k *api.Kind, namespace, name, index, value string) (ended func(), err error) {
	if u.Audit == nil {
		return nil, nil
	}
	if name != "" && index == "" {
		index, value = "metadata.name", name
	}
	query := u.selecting(nil, index, value)
	query.Set("watch", "true")
	_, c, err := u.begin(context.Background(), http.MethodGet, u.request(k, namespace, "", "", "", false), query)
	if err != nil {
		return nil, err
	}
	c.rec.Header(http.StatusOK)
	return c.rec.End, nil
}

// BindAll puts many pods on nodes. One error, or nil, for each, in order.
func (u *User) BindAll(ctx context.Context, all []corev1.Binding) []error {
	list := make([]verbs.Binding, len(all))
	for i := range all {
		list[i] = verbs.Binding{Namespace: all[i].Namespace, Name: all[i].Name, UID: all[i].UID, Node: all[i].Target.Name}
	}
	if u.Audit == nil {
		return u.Verbs.BindAll(ctx, u.User, list)
	}
	return u.bindRecorded(ctx, all, list)
}

// bindRecorded writes down each binding by itself: as a request over HTTP it would be one.
func (u *User) bindRecorded(ctx context.Context, all []corev1.Binding, list []verbs.Binding) []error {
	pods, ok := u.Verbs.Catalog.Type(&corev1.Pod{})
	if !ok {
		return u.Verbs.BindAll(ctx, u.User, list)
	}
	gvk := corev1.SchemeGroupVersion.WithKind("Binding")
	out := make([]error, len(all))
	var calls []*call
	var some []verbs.Binding
	var whose []int
	for i := range all {
		in, c, err := u.begin(ctx, http.MethodPost, u.request(pods, all[i].Namespace, all[i].Name, "binding", "", false), nil)
		if err != nil {
			out[i] = err
			continue
		}
		c.sentPart(&all[i], gvk)
		list[i].In = in
		calls, some, whose = append(calls, c), append(some, list[i]), append(whose, i)
	}
	for n, err := range u.Verbs.BindAll(ctx, u.User, some) {
		calls[n].action(gvk, &metav1.Status{Status: metav1.StatusSuccess}, err)
		out[whose[n]] = err
	}
	return out
}

// selecting is the query of a list or watch that is narrowed.
func (u *User) selecting(l labels.Selector, index, value string) url.Values {
	if u.Audit == nil {
		return nil
	}
	query := url.Values{}
	if l != nil && !l.Empty() {
		query.Set("labelSelector", l.String())
	}
	if index != "" {
		query.Set("fieldSelector", index+"="+value)
	}
	return query
}

// applying is the query of a patch.
func (u *User) applying(p verbs.Patch, manager string) url.Values {
	if u.Audit == nil || p.Type != types.ApplyYAMLPatchType {
		return nil
	}
	return url.Values{"fieldManager": {manager}, "force": {strconv.FormatBool(p.Force)}}
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

// partOf is a subresource that shows an object in another form, nil if it does not.
func partOf(k *api.Kind, sub string) *api.Subresource {
	if s := k.Subresource(sub); s != nil && s.Get != nil && s.Set != nil {
		return s
	}
	return nil
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
