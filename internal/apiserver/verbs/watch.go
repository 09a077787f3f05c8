package verbs

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/cache"
)

// WatchOptions of a watch: as a client writes them, but with parsed selectors.
type WatchOptions struct {
	Selector
	ResourceVersion   string
	SendInitialEvents *bool
}

// Event is what a watcher is told.
type Event struct {
	Type watch.EventType // Added, Modified, Deleted
	Item *cache.Item
}

// Watch is a running watch, not for several goroutines.
type Watch struct {
	kind    api.Served
	all     bool // no selector
	sel     Selector
	from    *cache.Watch
	initial []*cache.Item
	at      int64 // revision of the initial items, and then of what was told last
	first   bool
}

// Watch begins a watch. Errors: as for a list; a revision that is too old is
// Expired (the HTTP edge sends that as an ERROR event).
func (v *Verbs) Watch(ctx context.Context, r *Request, o WatchOptions) (*Watch, error) {
	set := v.Cache.Of(r.Kind.Kind)
	if set == nil {
		return nil, r.notFound()
	}
	if err := unreadable(set.Unreadable(r.Namespace)); err != nil {
		return nil, err
	}
	w := &Watch{kind: r.Kind, sel: o.forMany(), all: o.Everything(), first: true}
	scope := o.scope(r.Kind, r.Namespace, r.Name)
	var rv int64
	var err error
	switch o.ResourceVersion {
	case "", "0":
		if o.ResourceVersion == "" {
			if err := v.fresh(ctx); err != nil {
				return nil, err
			}
		}
	default:
		if rv, err = revision(o.ResourceVersion); err != nil {
			return nil, err
		}
	}
	switch initial := o.SendInitialEvents; {
	case initial == nil && rv > 0: // from a revision on
	case initial != nil && !*initial: // from now on, or from a revision on
		if rv == 0 {
			rv = v.Cache.Revision()
		}
	default: // what is there, then what comes
		if err := v.reach(ctx, rv); err != nil {
			return nil, err
		}
		state := set.Snapshot()
		if err := w.collect(state, scope); err != nil {
			return nil, err
		}
		rv = state.Revision()
	}
	w.at = rv
	if rv == 0 { // an empty store; After 0 would send what is there
		rv = 1
	}
	narrow := cache.WatchOptions{Scope: scope, After: rv}
	narrow.Label, narrow.LabelValue = o.oneLabel()
	w.from, err = set.WatchFrom(narrow)
	if errors.Is(err, cache.ErrGone) {
		return nil, tooOld(rv, v.Cache.Revision())
	}
	return w, err
}

func tooOld(asked, now int64) error {
	return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", asked, now))
}

// collect the initial items.
func (w *Watch) collect(s cache.Snapshot, scope cache.Scope) error {
	var failed error
	take := func(item *cache.Item) bool {
		if (scope.Namespace != "" && item.Object.GetNamespace() != scope.Namespace) ||
			(scope.Name != "" && item.Object.GetName() != scope.Name) {
			return true
		}
		ok, err := w.sel.Matches(w.kind, item)
		if ok {
			w.initial = append(w.initial, item)
		}
		failed = err
		return err == nil
	}
	visit, last := w.sel.batched(w.kind, take, &failed)
	switch {
	case scope.Name != "" && (scope.Namespace != "" || w.kind.Cluster):
		if item := s.Get(scope.Namespace, scope.Name); item != nil {
			visit(item)
		}
	case scope.Index != "":
		s.ByIndex(scope.Index, scope.Value, visit)
	default:
		w.sel.ascend(s, scope.Namespace, "", "", visit)
	}
	last()
	return failed
}

// Next returns what has happened since, in order, and the revision up to which
// everything was told. The first call returns what was there at the start,
// which may be nothing. It blocks until there is something or ctx ends.
func (w *Watch) Next(ctx context.Context, into []Event) ([]Event, int64, error) {
	into = into[:0]
	if w.first {
		w.first = false
		for _, item := range w.initial {
			into = append(into, Event{watch.Added, item})
		}
		w.initial = nil
		return into, w.at, nil
	}
	for {
		events, at, err := w.from.Next(ctx)
		if err != nil {
			return nil, w.at, w.ended(err)
		}
		w.at = max(w.at, at)
		for i := range events {
			e, ok, err := w.pick(&events[i])
			if err != nil {
				return nil, w.at, err
			}
			if ok {
				into = append(into, e)
			}
		}
		if len(into) > 0 {
			return into, w.at, nil
		}
	}
}

// Revision up to which everything was told: what a bookmark may say. It moves
// on with the whole store.
func (w *Watch) Revision() int64 {
	if !w.first {
		w.at = max(w.at, w.from.Revision())
	}
	return w.at
}

func (w *Watch) ended(err error) error {
	if errors.Is(err, cache.ErrSlow) {
		return apierrors.NewResourceExpired("the watch fell behind: too many events were waiting for it; list and watch again")
	}
	return err
}

// Stop the watch.
func (w *Watch) Stop() { w.from.Stop() }

// eventTypes by their name in the API.
var eventTypes = [...]watch.EventType{cache.Added: watch.Added, cache.Modified: watch.Modified, cache.Deleted: watch.Deleted}

// pick says what an event means to who sees only what the selector picks.
func (w *Watch) pick(e *cache.Event) (Event, bool, error) {
	if w.all {
		return Event{eventTypes[e.Type], e.Item}, true, nil
	}
	var failed error
	narrow, ok := e.Narrow(func(i *cache.Item) bool {
		ok, err := w.sel.Matches(w.kind, i)
		if err != nil {
			failed = err
		}
		return ok
	})
	if !ok || failed != nil {
		return Event{}, false, failed
	}
	return Event{eventTypes[narrow.Type], narrow.Item}, true, nil
}

// Bookmark is the object of a BOOKMARK event: nothing but its kind's type and a
// revision. initialEnd marks the end of the initial events.
func Bookmark(k *api.Kind, revision int64, initialEnd bool) api.Object {
	obj := k.New()
	obj.SetResourceVersion(strconv.FormatInt(revision, 10))
	if initialEnd {
		obj.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return obj
}
