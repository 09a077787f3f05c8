// Package local is the client.Conn of components that run in the API server's
// process: writes call its verbs, reads and watches its cache. No bytes are made,
// and objects are the cache's own.
package local

import (
	"context"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/client"
)

// Server is the API server as one user sees it; apiserver/inprocess.User is one.
type Server interface {
	Get(ctx context.Context, k *api.Kind, namespace, name string) (api.Object, error)
	List(ctx context.Context, k *api.Kind, namespace string, l labels.Selector, index, value string) ([]api.Object, int64, error)
	Create(ctx context.Context, k *api.Kind, obj api.Object, manager string, dryRun bool) (api.Object, error)
	Update(ctx context.Context, k *api.Kind, sub string, obj api.Object, manager string, dryRun bool) (api.Object, error)
	Patch(ctx context.Context, k *api.Kind, namespace, name, sub string, t types.PatchType, data []byte, manager string, force, dryRun bool) (api.Object, error)
	Delete(ctx context.Context, k *api.Kind, namespace, name string, opts metav1.DeleteOptions) error
	Post(ctx context.Context, k *api.Kind, namespace, name, sub string, body runtime.Object, manager string) (runtime.Object, error)
	BindAll(ctx context.Context, all []corev1.Binding) []error
	// Watch is told that changes are followed; ended, unless nil, that they no longer are.
	Watch(k *api.Kind, namespace, name, index, value string) (ended func(), err error)
}

// Config of a connection.
type Config struct {
	Server  Server
	Cache   *cache.Cache
	Catalog *api.Catalog
	Manager string // field manager of writes that name none; "" = no managed fields are kept
}

// Conn implements client.Conn and client.Binder.
type Conn struct{ Config }

// New connection.
func New(c Config) *Conn { return &Conn{c} }

// Catalog implements client.Conn.
func (c *Conn) Catalog() *api.Catalog { return c.Config.Catalog }

// Get implements client.Conn.
func (c *Conn) Get(ctx context.Context, k *api.Kind, namespace, name string) (api.Object, error) {
	return c.Server.Get(ctx, k, namespace, name)
}

// List implements client.Conn.
func (c *Conn) List(ctx context.Context, k *api.Kind, namespace string, opt client.ListOptions) ([]api.Object, string, error) {
	list, rev, err := c.Server.List(ctx, k, namespace, opt.Labels, opt.Index, opt.Value)
	return list, strconv.FormatInt(rev, 10), err
}

// Create implements client.Conn.
func (c *Conn) Create(ctx context.Context, k *api.Kind, obj api.Object, opt client.WriteOptions) (api.Object, error) {
	if opt.Subresource == "" && !k.Virtual {
		return c.Server.Create(ctx, k, obj, c.manager(opt), opt.DryRun)
	}
	out, err := c.Server.Post(ctx, k, obj.GetNamespace(), obj.GetName(), opt.Subresource, obj, c.manager(opt))
	if err != nil {
		return nil, err
	}
	answer, _ := out.(api.Object) // a Status is no object
	return answer, nil
}

// Update implements client.Conn.
func (c *Conn) Update(ctx context.Context, k *api.Kind, obj api.Object, opt client.WriteOptions) (api.Object, error) {
	return c.Server.Update(ctx, k, opt.Subresource, obj, c.manager(opt), opt.DryRun)
}

// Patch implements client.Conn.
func (c *Conn) Patch(ctx context.Context, k *api.Kind, namespace, name string, p client.Patch, opt client.WriteOptions) (api.Object, error) {
	return c.Server.Patch(ctx, k, namespace, name, opt.Subresource, p.Type, p.Data, c.manager(opt), opt.Force, opt.DryRun)
}

// Delete implements client.Conn.
func (c *Conn) Delete(ctx context.Context, k *api.Kind, namespace, name string, opt metav1.DeleteOptions) error {
	return c.Server.Delete(ctx, k, namespace, name, opt)
}

// DeleteAll implements client.Collector.
func (c *Conn) DeleteAll(ctx context.Context, k *api.Kind, namespace, selector string) error {
	match, err := fields.ParseSelector(selector)
	if err != nil || k.Fields == nil {
		return apierrors.NewBadRequest(fmt.Sprintf("field selector %q of %s: %v", selector, k.Resource, err))
	}
	list, _, err := c.Server.List(ctx, k, namespace, nil, "", "")
	if err != nil {
		return err
	}
	for _, o := range list {
		if !match.Matches(k.Fields(o)) {
			continue
		}
		err := c.Server.Delete(ctx, k, o.GetNamespace(), o.GetName(), metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(o.GetUID()))})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return err
		}
	}
	return nil
}

// Post implements client.Conn.
func (c *Conn) Post(ctx context.Context, k *api.Kind, namespace, name, sub string, body runtime.Object) (runtime.Object, error) {
	return c.Server.Post(ctx, k, namespace, name, sub, body, c.Manager)
}

// BindAll implements client.Binder.
func (c *Conn) BindAll(ctx context.Context, all []client.Binding) []error {
	list := make([]corev1.Binding, len(all))
	for i, b := range all {
		list[i] = corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: b.Namespace, Name: b.Name, UID: b.UID},
			Target:     corev1.ObjectReference{Kind: "Node", Name: b.Node},
		}
	}
	return c.Server.BindAll(ctx, list)
}

func (c *Conn) manager(opt client.WriteOptions) string {
	if opt.Manager != "" {
		return opt.Manager
	}
	return c.Manager
}

// Watch implements client.Conn. The Events are a client.Viewer.
func (c *Conn) Watch(ctx context.Context, k *api.Kind, scope client.Scope) (client.Events, error) {
	select {
	case <-c.Cache.Ready():
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	set := c.Cache.Of(k)
	if set == nil {
		return nil, apierrors.NewNotFound(k.GroupResource(), scope.Name)
	}
	w, err := set.WatchFrom(cache.WatchOptions{Scope: cache.Scope(scope), Unbounded: true})
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	ended, err := c.Server.Watch(k, scope.Namespace, scope.Name, scope.Index, scope.Value)
	if err != nil {
		w.Stop()
		return nil, err
	}
	e := &events{conn: c, kind: k, scope: scope, synced: make(chan struct{}), ended: ended}
	e.on(set, w)
	return e, nil
}
