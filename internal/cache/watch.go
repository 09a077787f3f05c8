package cache

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
)

// watcher is a running watch. Its set appends events to queue and wakes it.
type watcher struct {
	set               *Set
	scope             Scope
	label, labelValue string
	index             int   // of Scope.Index in Set.indexes, -1 = none
	after             int64 // events up to here are not wanted
	most              int   // events that may wait

	pending []Event // the dispatcher's, under the set's lock

	mu    sync.Mutex
	first *snapshot // what is there comes first
	queue []Event
	seen  int64
	err   error
	wake  chan struct{}
}

// Watch implements Reader.
func (s *Set) Watch(opt WatchOptions) (Watcher, error) { return s.WatchFrom(opt) }

// WatchFrom is Watch, returning what it really returns.
func (s *Set) WatchFrom(opt WatchOptions) (*Watch, error) {
	w := &watcher{set: s, scope: opt.Scope, label: opt.Label, labelValue: opt.LabelValue, index: -1, after: opt.After, most: s.cache.cfg.Queue, wake: make(chan struct{}, 1)}
	if opt.Index != "" {
		w.index = slices.IndexFunc(s.indexes, func(x index) bool { return x.name == opt.Index })
		if w.index < 0 {
			return nil, fmt.Errorf("cache: %s has no index %q", s.kind.Resource, opt.Index)
		}
	}
	if opt.Unbounded {
		w.most = math.MaxInt
	}
	at := s.cache.rev.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil, ErrStopped
	}
	if opt.After == 0 {
		now := s.freeze()
		w.first = &snapshot{s, max(at, now.revision), now}
		w.seen, w.after = w.first.revision, now.revision
	} else {
		past, ok := s.window.after(opt.After)
		if !ok {
			return nil, ErrGone
		}
		for i := range past {
			ch := change{Event: past[i].Event}
			if w.index >= 0 {
				ch.before, ch.after = s.values(ch.Prev), nil
				if ch.Type != Deleted {
					ch.after = s.values(ch.Item)
				}
			}
			if e, ok := w.translate(&ch); ok {
				w.queue = append(w.queue, e)
			}
		}
		w.seen = opt.After
	}
	s.watch.add(w)
	return (*Watch)(w), nil
}

// Watch is a running watch; it implements Watcher.
type Watch watcher

// Next implements Watcher. A watch with After 0 returns from its first Next at
// once, with what is there, be it nothing.
func (w *Watch) Next(ctx context.Context) ([]Event, int64, error) {
	for {
		events, rev, err := w.take()
		if events != nil || err != nil {
			return events, rev, err
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

func (w *Watch) take() ([]Event, int64, error) {
	at := w.set.cache.rev.Load() // first: events up to here are in the queue
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil && len(w.queue) == 0 && w.first == nil {
		return nil, 0, w.err
	}
	if first := w.first; first != nil {
		w.first = nil
		return (*watcher)(w).initial(first), first.revision, nil
	}
	events := w.queue
	w.queue = nil
	w.seen = max(w.seen, at)
	if n := len(events); n > 0 {
		w.seen = max(w.seen, events[n-1].Item.Revision)
	}
	return events, w.seen, nil
}

// Revision up to which Next has returned everything: what a bookmark may say.
// It moves on with the whole store although the watch is not woken for that.
func (w *Watch) Revision() int64 {
	at := w.set.cache.rev.Load()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 && w.first == nil && w.err == nil {
		w.seen = max(w.seen, at)
	}
	return w.seen
}

// Stop ends the watch: Next returns ErrStopped.
func (w *Watch) Stop() {
	w.set.mu.Lock()
	defer w.set.mu.Unlock()
	(*watcher)(w).end(ErrStopped)
	(*watcher)(w).drop()
}

func (w *watcher) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue, w.first = nil, nil
}

// end is called under the set's lock. What waits can still be read.
func (w *watcher) end(err error) {
	w.set.watch.remove(w)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.rouse()
}

func (w *watcher) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// initial is what is there in the scope, as additions. Never nil.
func (w *watcher) initial(first *snapshot) []Event {
	events := []Event{}
	add := func(i *Item) bool {
		if w.scope.Namespace == "" || i.Object.GetNamespace() == w.scope.Namespace {
			if w.labelled() && !w.hasLabel(i) {
				return true
			}
			if w.scope.Name == "" || i.Object.GetName() == w.scope.Name {
				events = append(events, Event{Type: Added, Item: i})
			}
		}
		return true
	}
	switch {
	case w.index >= 0:
		first.ByIndex(w.scope.Index, w.scope.Value, add)
	case w.scope.Name != "" && (w.scope.Namespace != "" || w.set.kind.Cluster):
		if i := first.Get(w.scope.Namespace, w.scope.Name); i != nil {
			add(i)
		}
	default:
		first.Ascend(w.scope.Namespace, "", "", add)
	}
	return events
}

// labelled says that the scope is one of a label.
func (w *watcher) labelled() bool {
	return w.index < 0 && w.scope.Name == "" && w.label != ""
}

func (w *watcher) hasLabel(i *Item) bool {
	v, ok := i.Object.GetLabels()[w.label]
	return ok && v == w.labelValue
}

// translate a change into what it is in the watcher's scope: an object that
// moves into an index value is Added there, one that moves out is Deleted.
func (w *watcher) translate(ch *change) (Event, bool) {
	obj := ch.Item.Object
	if ch.Item.Revision <= w.after ||
		w.scope.Namespace != "" && obj.GetNamespace() != w.scope.Namespace ||
		w.index < 0 && w.scope.Name != "" && obj.GetName() != w.scope.Name {
		return Event{}, false
	}
	if w.labelled() {
		return ch.Event.Narrow(w.hasLabel)
	}
	if w.index < 0 {
		return ch.Event, true
	}
	was := ch.before != nil && slices.Contains(ch.before[w.index], w.scope.Value)
	is := ch.after != nil && slices.Contains(ch.after[w.index], w.scope.Value)
	return ch.Event.narrow(was, is)
}

// Narrow is what a change is to somebody who sees only the objects that match:
// one that begins to match is Added, one that ceases to is Deleted (with its last
// matching state under the revision of the change). false = nothing to be seen.
func (e Event) Narrow(match func(*Item) bool) (Event, bool) {
	was := e.Prev != nil && match(e.Prev)
	is := e.Type != Deleted && match(e.Item)
	return e.narrow(was, is)
}

func (e Event) narrow(was, is bool) (Event, bool) {
	switch {
	case was && is:
		return e, true
	case is:
		return Event{Type: Added, Item: e.Item}, true
	case was:
		return Event{Type: Deleted, Item: e.Prev.At(e.Item.Revision), Prev: e.Prev}, true
	}
	return Event{}, false
}
