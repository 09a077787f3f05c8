package local

import (
	"context"
	"errors"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/client"
)

// events implements client.Events, client.Viewer and client.View.
type events struct {
	conn   *Conn
	kind   *api.Kind
	scope  client.Scope
	synced chan struct{}
	first  bool

	mu      sync.RWMutex // guards what a kind that is replaced changes
	set     *cache.Set
	watch   *cache.Watch
	stopped bool
	ended   func() // told once when nobody follows any more; nil = nobody wants to know
}

func (e *events) on(set *cache.Set, w *cache.Watch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.set, e.watch, e.first = set, w, true
	if e.stopped {
		w.Stop()
	}
}

func (e *events) now() (*cache.Set, *cache.Watch) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.set, e.watch
}

func (e *events) Synced() <-chan struct{} { return e.synced }

func (e *events) Stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended != nil && !e.stopped {
		e.ended()
	}
	e.stopped = true
	e.watch.Stop()
}

func (e *events) Next(ctx context.Context) ([]client.Event, error) {
	set, w := e.now()
	told, _, err := w.Next(ctx)
	if errors.Is(err, cache.ErrStopped) {
		return e.again(ctx, set)
	}
	if err != nil {
		return nil, err
	}
	if e.first {
		e.first = false
		close(e.synced)
	}
	out := make([]client.Event, len(told))
	for i, t := range told {
		switch t.Type {
		case cache.Added:
			out[i].New = t.Item.Object
		case cache.Modified:
			out[i].Old, out[i].New = t.Prev.Object, t.Item.Object
		case cache.Deleted:
			out[i].Old = t.Item.Object
		}
	}
	return out, nil
}

// again goes on after the kind was replaced by another description of it. What
// was told is the state at which the old set stopped; the difference follows.
func (e *events) again(ctx context.Context, old *cache.Set) ([]client.Event, error) {
	e.mu.RLock()
	stopped := e.stopped
	e.mu.RUnlock()
	set := e.conn.Cache.Of(e.kind)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case stopped || set == old:
		return nil, cache.ErrStopped
	case set == nil:
		return nil, apierrors.NewNotFound(e.kind.GroupResource(), e.scope.Name)
	}
	w, err := set.WatchFrom(cache.WatchOptions{Scope: cache.Scope(e.scope), Unbounded: true})
	if err != nil {
		return nil, err
	}
	e.on(set, w)
	there, _, err := w.Next(ctx)
	if err != nil {
		return nil, err
	}
	e.first = false
	had := map[string]*cache.Item{}
	each(old.Snapshot(), e.scope, "", func(i *cache.Item) bool {
		had[client.Key(i.Object.GetNamespace(), i.Object.GetName())] = i
		return true
	})
	out := []client.Event{}
	for _, t := range there {
		key := client.Key(t.Item.Object.GetNamespace(), t.Item.Object.GetName())
		was := had[key]
		delete(had, key)
		switch {
		case was == nil:
			out = append(out, client.Event{New: t.Item.Object})
		case was.Revision != t.Item.Revision:
			out = append(out, client.Between(was.Object, t.Item.Object)...)
		}
	}
	for _, was := range had {
		out = append(out, client.Event{Old: was.Object})
	}
	return out, nil
}

// View implements client.Viewer: the cache itself, seen through the scope.
func (e *events) View() client.View { return e }

func (e *events) Get(namespace, name string) api.Object {
	set, _ := e.now()
	item := set.Get(namespace, name)
	if item == nil || !e.in(item.Object) {
		return nil
	}
	return item.Object
}

// in says whether an object belongs to the scope.
func (e *events) in(obj api.Object) bool {
	s := e.scope
	switch {
	case s.Namespace != "" && obj.GetNamespace() != s.Namespace:
		return false
	case s.Index != "":
		return slices.Contains(e.kind.Indexes[s.Index](obj), s.Value)
	}
	return s.Name == "" || obj.GetName() == s.Name
}

func (e *events) Each(namespace string, visit func(api.Object) bool) {
	set, _ := e.now()
	each(set.Snapshot(), e.scope, namespace, func(i *cache.Item) bool { return visit(i.Object) })
}

// each visits what is in the scope and in a namespace, "" = all.
func each(snap cache.Snapshot, s client.Scope, namespace string, visit func(*cache.Item) bool) {
	if namespace == "" {
		namespace = s.Namespace
	}
	if s.Namespace != "" && namespace != s.Namespace {
		return
	}
	picky := func(i *cache.Item) bool {
		if namespace != "" && i.Object.GetNamespace() != namespace || s.Index == "" && s.Name != "" && i.Object.GetName() != s.Name {
			return true
		}
		return visit(i)
	}
	if s.Index != "" {
		snap.ByIndex(s.Index, s.Value, picky)
		return
	}
	snap.Ascend(namespace, "", "", picky)
}

func (e *events) ByIndex(index, value string, visit func(api.Object) bool) {
	set, _ := e.now()
	set.Snapshot().ByIndex(index, value, func(i *cache.Item) bool { return !e.in(i.Object) || visit(i.Object) })
}

func (e *events) Len() int {
	set, _ := e.now()
	if e.scope == (client.Scope{}) {
		return set.Snapshot().Len()
	}
	n := 0
	e.Each("", func(api.Object) bool { n++; return true })
	return n
}
