package client

import (
	"context"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/proa-dev/proa/internal/api"
)

// Informer reads what a watch is about and calls handlers for its changes, in
// order. Reads are of what the handlers have seen or are about to see, so a
// decider that reads after being woken sees at least what woke it.
//
// It reads the Conn's own copy where there is one (Viewer), so that many
// informers cost no more than one.
type Informer[T api.Object] struct {
	kind   *api.Kind
	scope  Scope
	conn   Conn
	synced chan struct{}
	view   atomic.Pointer[View]

	mu       sync.Mutex // guards handlers, and is held while they are called
	handlers []*handler[T]
	started  bool
}

// handler of changes: old zero = added, new zero = deleted.
type handler[T api.Object] struct {
	call func(old, now T)
	// seen is kept for a handler that was added late: the resourceVersions of what
	// it was given then, by key. The watch may still tell of what led there.
	seen map[string]string
}

// NewInformer watches a scope once Run is called.
func NewInformer[T api.Object](conn Conn, scope Scope) *Informer[T] {
	i := &Informer[T]{kind: For[T](conn).kind, scope: scope, conn: conn, synced: make(chan struct{})}
	var none View = noView{}
	i.view.Store(&none)
	return i
}

// OnChange adds a handler, called one change at a time, in order; added late, it
// is told first of what is there. It must not block, nor call OnChange: put a
// key on a queue.
func (i *Informer[T]) OnChange(f func(old, new T)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	h := &handler[T]{call: f}
	i.handlers = append(i.handlers, h)
	if !i.started {
		return
	}
	h.seen = map[string]string{}
	var there []T
	(*i.view.Load()).Each("", func(o api.Object) bool {
		there = append(there, o.(T))
		return true
	})
	var none T
	for _, o := range there {
		h.seen[Key(o.GetNamespace(), o.GetName())] = o.GetResourceVersion()
		f(none, o)
	}
}

// Synced is closed once what was there at the start has been told to the handlers.
func (i *Informer[T]) Synced() <-chan struct{} { return i.synced }

// Run watches until ctx ends. It is called once.
func (i *Informer[T]) Run(ctx context.Context) error {
	events, err := i.conn.Watch(ctx, i.kind, i.scope)
	if err != nil {
		return err
	}
	defer events.Stop()
	var own *Table // where the Conn keeps nothing
	if v, ok := events.(Viewer); ok {
		view := v.View()
		i.view.Store(&view)
	} else {
		own = NewTable(i.kind)
		var view View = own
		i.view.Store(&view)
	}
	told := false
	for {
		batch, err := events.Next(ctx)
		if err != nil {
			return err
		}
		i.tell(batch, own)
		if !told {
			select {
			case <-events.Synced():
				close(i.synced)
				told = true
			default:
			}
		}
	}
}

func (i *Informer[T]) tell(batch []Event, own *Table) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.started = true
	for _, e := range batch {
		if own != nil {
			e.Old = own.keep(e)
		}
		var old, now T
		if e.Old != nil {
			old = e.Old.(T)
		}
		if e.New != nil {
			now = e.New.(T)
		}
		for _, h := range i.handlers {
			if h.seen == nil {
				h.call(old, now)
			} else {
				h.late(old, now, e)
			}
		}
	}
}

// keep a change and return what was there before it.
func (t *Table) keep(e Event) api.Object {
	if e.New != nil {
		return t.Put(e.New)
	}
	if old := t.Remove(e.Old.GetNamespace(), e.Old.GetName()); old != nil {
		return old
	}
	return e.Old
}

// late tells a handler that came late, but not what it knows already.
func (h *handler[T]) late(old, now T, e Event) {
	obj := e.New
	if obj == nil {
		obj = e.Old
	}
	key := Key(obj.GetNamespace(), obj.GetName())
	known, was := h.seen[key]
	var none T
	switch {
	case was && !newer(obj.GetResourceVersion(), known): // how it came to be what it was given
	case e.New == nil && was:
		delete(h.seen, key)
		h.call(old, now)
	case e.New == nil: // it never knew of it
	case was:
		h.seen[key] = obj.GetResourceVersion()
		h.call(old, now)
	default:
		h.seen[key] = obj.GetResourceVersion()
		h.call(none, now)
	}
}

// newer compares resourceVersions as Kubernetes defines them: decimal numbers.
func newer(a, b string) bool {
	return len(a) > len(b) || len(a) == len(b) && a > b
}

// Get one object, shared; ok is false when there is none.
func (i *Informer[T]) Get(namespace, name string) (obj T, ok bool) {
	o := (*i.view.Load()).Get(namespace, name)
	if o == nil {
		return obj, false
	}
	return o.(T), true
}

// List what matches, in no order. namespace "" = all, sel nil = everything.
func (i *Informer[T]) List(namespace string, sel labels.Selector) []T {
	var list []T
	(*i.view.Load()).Each(namespace, func(o api.Object) bool {
		if sel == nil || sel.Matches(labels.Set(o.GetLabels())) {
			list = append(list, o.(T))
		}
		return true
	})
	return list
}

// ByIndex returns the objects with a value in one of the kind's indexes, in no order.
func (i *Informer[T]) ByIndex(index, value string) []T {
	var list []T
	(*i.view.Load()).ByIndex(index, value, func(o api.Object) bool {
		list = append(list, o.(T))
		return true
	})
	return list
}

// Len is the number of objects known.
func (i *Informer[T]) Len() int { return (*i.view.Load()).Len() }

// Key of an object in maps and queues: "namespace/name", or "name".
func Key(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}
