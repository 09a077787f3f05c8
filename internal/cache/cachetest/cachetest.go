// Package cachetest gives tests a cache to fill: the real one, over the store in
// memory.
package cachetest

import (
	"context"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/store"
	"github.com/proa-dev/proa/internal/store/memory"
)

// World is a running cache of all built-in kinds.
type World struct {
	*cache.Cache
	Catalog *api.Catalog
	t       testing.TB
}

// New cache, which ends with the test, holding the objects given.
func New(t testing.TB, objects ...api.Object) *World {
	t.Helper()
	w := &World{Catalog: kinds.Catalog(), t: t}
	w.Cache = cache.New(cache.Config{
		Store: memory.New(), Catalog: w.Catalog,
		Decode: func(k *api.Kind, e store.Entry) (api.Object, error) {
			return wire.DecodeStorage(k, e.Value, e.Revision)
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = w.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	<-w.Ready()
	w.Put(objects...)
	return w
}

// Put stores objects, over others of their names.
func (w *World) Put(objects ...api.Object) {
	w.t.Helper()
	for _, o := range objects {
		k, ok := w.Catalog.Type(o)
		if !ok {
			w.t.Fatalf("%T is no kind", o)
		}
		o = o.DeepCopyObject().(api.Object)
		if o.GetUID() == "" {
			o.SetUID(types.UID(k.GroupVersionKind.Kind + "/" + o.GetNamespace() + "/" + o.GetName()))
		}
		value, err := wire.EncodeStorage(k, o)
		if err != nil {
			w.t.Fatal(err)
		}
		if _, _, err := w.Commit(context.Background(), cache.Change{Kind: k, Namespace: o.GetNamespace(), Name: o.GetName(), Unsafe: true, Object: o, Value: value}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// Delete an object.
func (w *World) Delete(o api.Object) {
	w.t.Helper()
	k, _ := w.Catalog.Type(o)
	if _, _, err := w.Commit(context.Background(), cache.Change{Kind: k, Namespace: o.GetNamespace(), Name: o.GetName(), Unsafe: true}); err != nil {
		w.t.Fatal(err)
	}
}

// Reader of a kind.
func (w *World) Reader(k *api.Kind) cache.Reader { return w.Of(k) }
