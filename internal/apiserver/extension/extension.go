// Package extension makes custom resources: it follows the
// CustomResourceDefinitions, gives them names, puts the kinds that they describe
// into the catalog, the cache and the OpenAPI documents and takes them out again,
// and deletes the objects of a definition that is being deleted.
//
// Schemas do what k8s.io/apiextensions-apiserver's schema packages say: pruning,
// defaults, validation, CEL rules with ratcheting. What they need is compiled
// when an object first asks for it.
package extension

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/extension/hook"
	"github.com/proa-dev/proa/internal/apiserver/inprocess"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
	"github.com/proa-dev/proa/internal/cache"
)

// Config of Resources.
type Config struct {
	Catalog *api.Catalog
	Cache   *cache.Cache
	OpenAPI *openapi.Handler
	Hooks   *hook.Client // calls conversion webhooks
	// ConvertWithin is how long one may take; 0 = 30 s.
	ConvertWithin time.Duration
	Log           *slog.Logger
}

// Resources are the custom resources of a server.
type Resources struct {
	Config
	kind *api.Kind // of the definitions
	set  *cache.Set
	user *inprocess.User

	mu     sync.Mutex
	custom map[string]*custom // by name of the definition
}

// New custom resources. Nothing is served before Start.
func New(c Config) *Resources {
	r := &Resources{Config: c, custom: map[string]*custom{}}
	k, ok := c.Catalog.Type(&apiextensionsv1.CustomResourceDefinition{})
	if ok {
		r.kind, r.set = k, c.Cache.Of(k)
	}
	return r
}

// TypeConverter merges objects of a custom kind; nil if its schema says nothing.
// It is what managedfields.New asks for.
func (r *Resources) TypeConverter(gvk schema.GroupVersionKind) managedfields.TypeConverter {
	r.mu.Lock()
	var of *custom
	for _, c := range r.custom {
		if v := c.versions[gvk.Version]; v != nil && v.gvk == gvk {
			of = c
		}
	}
	r.mu.Unlock()
	if of == nil {
		return nil
	}
	return of.types()
}

// Start serves what is established already. The cache must be ready. user writes
// the status of definitions and deletes objects.
func (r *Resources) Start(ctx context.Context, user *inprocess.User) error {
	r.user = user
	for _, d := range r.definitions() {
		if apihelpers.IsCRDConditionTrue(d, apiextensionsv1.Established) {
			if err := r.serve(ctx, d); err != nil {
				r.Log.Error("a custom resource cannot be served", "definition", d.Name, "err", err)
			}
		}
	}
	return ctx.Err()
}

func (r *Resources) definitions() (all []*apiextensionsv1.CustomResourceDefinition) {
	r.set.Snapshot().Ascend("", "", "", func(i *cache.Item) bool {
		all = append(all, i.Object.(*apiextensionsv1.CustomResourceDefinition))
		return true
	})
	return all
}

// retry is how long after a failure everything is looked at again.
const retry = time.Second

// Run follows the definitions until ctx ends. Start comes first.
func (r *Resources) Run(ctx context.Context) error {
	for {
		w, err := r.set.Watch(cache.WatchOptions{Unbounded: true})
		if err != nil {
			return err
		}
		err = r.follow(ctx, w)
		w.Stop()
		if ctx.Err() != nil || errors.Is(err, cache.ErrStopped) {
			return ctx.Err()
		}
	}
}

func (r *Resources) follow(ctx context.Context, w cache.Watcher) error {
	ok := true
	for {
		wait, done := ctx, func() {}
		if !ok {
			wait, done = context.WithTimeout(ctx, retry)
		}
		_, _, err := w.Next(wait)
		done()
		if err != nil && (ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded)) {
			return err
		}
		ok = r.settle(ctx)
	}
}

// settle brings everything into line with the definitions; false = again later.
func (r *Resources) settle(ctx context.Context) bool {
	ok := true
	all := r.definitions()
	there := map[string]bool{}
	for i, d := range all {
		there[d.Name] = true
		now, err := r.one(ctx, d, all)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			r.Log.Warn("a custom resource definition waits", "definition", d.Name, "err", err)
		}
		ok = ok && err == nil
		all[i] = now
	}
	r.mu.Lock()
	var gone []*custom
	for name, c := range r.custom {
		if !there[name] {
			gone = append(gone, c)
			delete(r.custom, name)
		}
	}
	r.mu.Unlock()
	for _, c := range gone {
		r.withdraw(c)
	}
	return ok
}

// one definition: its status, then what it serves, then its end. It returns the
// definition as it is now.
func (r *Resources) one(ctx context.Context, d *apiextensionsv1.CustomResourceDefinition, all []*apiextensionsv1.CustomResourceDefinition) (*apiextensionsv1.CustomResourceDefinition, error) {
	if d.DeletionTimestamp != nil {
		if err := r.refresh(ctx, d); err != nil {
			return d, err
		}
		return d, r.cleanUp(ctx, d)
	}
	now := d.DeepCopy()
	decide(now, all)
	if apihelpers.IsCRDConditionTrue(now, apiextensionsv1.Established) {
		if err := r.refresh(ctx, now); err != nil { // before anybody reads that it is
			return d, err
		}
	}
	if apiequality.Semantic.DeepEqual(now.Status, d.Status) {
		return d, nil
	}
	return now, r.writeStatus(ctx, now)
}

func (r *Resources) writeStatus(ctx context.Context, d *apiextensionsv1.CustomResourceDefinition) error {
	_, err := r.user.Update(ctx, r.kind, "status", d.DeepCopy(), "kube-apiserver", false)
	return err
}

// refresh serves a definition again when it has changed.
func (r *Resources) refresh(ctx context.Context, d *apiextensionsv1.CustomResourceDefinition) error {
	r.mu.Lock()
	c := r.custom[d.Name]
	r.mu.Unlock()
	ending := d.DeletionTimestamp != nil
	if c == nil && (ending || !apihelpers.IsCRDConditionTrue(d, apiextensionsv1.Established)) {
		return nil
	}
	if c != nil && c.uid == string(d.UID) && c.generation == d.Generation && apiequality.Semantic.DeepEqual(c.names, d.Status.AcceptedNames) &&
		(c.kind.Verbs != nil) == ending {
		return nil
	}
	return r.serve(ctx, d)
}

// serve a definition: from when this returns, clients find its objects.
func (r *Resources) serve(ctx context.Context, d *apiextensionsv1.CustomResourceDefinition) error {
	c, err := newCustom(d, r.converter(d))
	if err != nil {
		return err
	}
	for _, k := range r.Catalog.All() {
		if k.GroupResource() == c.kind.GroupResource() && k.Encoding != api.JSON {
			return errors.New("there is a built-in resource of this name")
		}
	}
	r.mu.Lock()
	old := r.custom[d.Name]
	r.custom[d.Name] = c
	r.mu.Unlock()
	if _, err := r.Cache.Put(ctx, c.kind); err != nil {
		return err
	}
	if err := r.Catalog.Put(c.kind); err != nil {
		return err
	}
	if old != nil {
		for _, v := range old.served {
			if c.versions[v.gvk.Version] == nil || !c.versions[v.gvk.Version].spec.Served {
				r.OpenAPI.Forget(v.gvk)
			}
		}
	}
	for _, v := range c.served {
		def, err := definition(v)
		if err == nil {
			err = r.OpenAPI.Merge(v.gvk, def)
		}
		if err != nil {
			r.Log.Error("the schema of a custom resource cannot be published", "kind", v.gvk, "err", err)
		}
	}
	return nil
}

// withdraw what a definition that is gone served.
func (r *Resources) withdraw(c *custom) {
	r.Catalog.Remove(c.kind)
	r.Cache.Remove(c.kind)
	for _, v := range c.served {
		r.OpenAPI.Forget(v.gvk)
	}
}
