package remote

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
)

// Watch implements client.Conn. The Events are a client.Viewer.
func (c *Conn) Watch(ctx context.Context, k *api.Kind, scope client.Scope) (client.Events, error) {
	ctx, cancel := context.WithCancel(ctx)
	e := &events{kind: k, table: client.NewTable(k), synced: make(chan struct{}), wake: make(chan struct{}, 1), done: ctx.Done(), cancel: cancel}
	narrow := func(o *metav1.ListOptions) {
		switch {
		case scope.Index != "":
			o.FieldSelector = fields.OneTermEqualSelector(scope.Index, scope.Value).String()
		case scope.Name != "":
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", scope.Name).String()
		}
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			narrow(&o)
			return c.list(ctx, k, scope.Namespace, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			narrow(&o)
			o.Watch = true
			r := c.request("GET", k, scope.Namespace).VersionedParams(&o, c.paramsOf(k))
			if o.TimeoutSeconds != nil {
				r.Timeout(time.Duration(*o.TimeoutSeconds) * time.Second)
			}
			return r.Watch(ctx)
		},
	}
	expected := k.New()
	if k.Encoding != api.Protobuf {
		expected.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	}
	log := logr.FromSlogHandler(c.cfg.Logger.Handler())
	reflector := cache.NewReflectorWithOptions(lw, expected, e, cache.ReflectorOptions{
		Logger: &log, Name: k.Resource, TypeDescription: k.Resource,
		// A server that restarts is back within a second: look for it often at first.
		Backoff: &wait.Backoff{Duration: 50 * time.Millisecond, Cap: 10 * time.Second, Steps: 100, Factor: 2, Jitter: 0.5},
	})
	go reflector.RunWithContext(ctx)
	return e, nil
}

// events is the reflector's store and what the watcher reads: client.Events and
// client.Viewer.
type events struct {
	kind   *api.Kind
	table  *client.Table
	synced chan struct{}
	wake   chan struct{}
	done   <-chan struct{}
	cancel context.CancelFunc

	mu     sync.Mutex
	queue  []client.Event
	loaded bool // what was there is in the queue
	told   bool // and was returned by Next
}

func (e *events) Synced() <-chan struct{} { return e.synced }
func (e *events) Stop()                   { e.cancel() }
func (e *events) View() client.View       { return e.table }

func (e *events) Next(ctx context.Context) ([]client.Event, error) {
	for {
		if batch := e.take(); batch != nil {
			return batch, nil
		}
		select {
		case <-e.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-e.done:
			return nil, context.Canceled
		}
	}
}

// take what waits, nil = nothing.
func (e *events) take() []client.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	batch := e.queue
	e.queue = nil
	if e.loaded && !e.told {
		e.told = true
		close(e.synced)
		if batch == nil {
			batch = []client.Event{}
		}
	}
	return batch
}

// put a change into the table and into the queue. The lock is held.
func (e *events) put(obj api.Object) {
	old := e.table.Put(plain(e.kind, obj))
	if old != nil && old.GetUID() == obj.GetUID() && old.GetResourceVersion() == obj.GetResourceVersion() {
		return
	}
	e.queue = append(e.queue, client.Between(old, obj)...)
	e.rouse()
}

func (e *events) rouse() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Add implements the reflector's store.
func (e *events) Add(obj any) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.put(obj.(api.Object))
	return nil
}

// Update implements the reflector's store.
func (e *events) Update(obj any) error { return e.Add(obj) }

// Delete implements the reflector's store.
func (e *events) Delete(gone any) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	obj := plain(e.kind, gone.(api.Object))
	if e.table.Remove(obj.GetNamespace(), obj.GetName()) != nil {
		e.queue = append(e.queue, client.Event{Old: obj})
		e.rouse()
	}
	return nil
}

// Replace implements the reflector's store: the state after a gap. The
// difference is told.
func (e *events) Replace(all []any, _ string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	there := make(map[string]struct{}, len(all))
	for _, o := range all {
		obj := o.(api.Object)
		there[client.Key(obj.GetNamespace(), obj.GetName())] = struct{}{}
	}
	var gone []api.Object
	e.table.Each("", func(o api.Object) bool {
		if _, ok := there[client.Key(o.GetNamespace(), o.GetName())]; !ok {
			gone = append(gone, o)
		}
		return true
	})
	for _, o := range gone {
		e.table.Remove(o.GetNamespace(), o.GetName())
		e.queue = append(e.queue, client.Event{Old: o})
	}
	for _, o := range all {
		e.put(o.(api.Object))
	}
	e.loaded = true
	e.rouse()
	return nil
}

// Resync implements the reflector's store; there is nothing to do.
func (e *events) Resync() error { return nil }
