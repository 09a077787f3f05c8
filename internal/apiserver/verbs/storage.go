package verbs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/store"
)

// Change is what becomes of one object in a commit.
type Change struct {
	Kind   *api.Kind
	Object api.Object  // nil = it is deleted
	Old    *cache.Item // nil = it is not there yet
	TTL    time.Duration
}

// commit makes all changes or none. Errors are the store's; after a
// *store.Conflict the cache has seen what is in the way.
func (v *Verbs) commit(ctx context.Context, changes ...Change) ([]*cache.Item, error) {
	writes := make([]cache.Change, len(changes))
	for i, c := range changes {
		w := cache.Change{Kind: c.Kind, Object: c.Object, TTL: c.TTL}
		named := c.Object
		if c.Old != nil {
			w.Prior = c.Old.Revision
			named = c.Old.Object
		}
		w.Namespace, w.Name = named.GetNamespace(), named.GetName()
		if c.Object != nil {
			value, err := wire.EncodeStorage(c.Kind, c.Object)
			if err != nil {
				return nil, apierrors.NewInternalError(err)
			}
			w.Value = value
		}
		writes[i] = w
	}
	items, _, err := v.Cache.Commit(ctx, writes...)
	return items, err
}

// fresh waits until the cache has every commit that was acknowledged before the
// call. A commit of this server is acknowledged when the cache shows it, so only
// a store that others write to has to be asked.
func (v *Verbs) fresh(ctx context.Context) error {
	select {
	case <-v.Cache.Ready():
	default:
		select {
		case <-v.Cache.Ready():
		case <-ctx.Done():
			return apierrors.NewServiceUnavailable("the server is still reading its store")
		}
	}
	if !v.Shared {
		return nil
	}
	rev, err := v.revisions.read(ctx, v.Store)
	if errors.Is(err, store.ErrUnavailable) {
		return apierrors.NewServiceUnavailable(err.Error())
	}
	if err != nil {
		return unavailable(err)
	}
	return unavailable(v.Cache.Wait(ctx, rev))
}

// past reads the state of a kind at a revision from the store.
func (v *Verbs) past(ctx context.Context, k *api.Kind, rv int64) (cache.Snapshot, error) {
	var bad error
	old := &history{kind: k, revision: rv}
	_, err := v.Store.Range(ctx, k.Prefix(), store.RangeOptions{Revision: rv}, func(e store.Entry) bool {
		obj, err := v.Cache.Decode(k, e)
		if err != nil {
			bad = err
			return false
		}
		old.items = append(old.items, &cache.Item{Object: obj, Revision: e.Revision})
		return true
	})
	return old, errors.Join(err, bad)
}

// history is a state of the past, in key order.
type history struct {
	kind     *api.Kind
	revision int64
	items    []*cache.Item
}

func (h *history) Revision() int64 { return h.revision }
func (h *history) Len() int        { return len(h.items) }

func (h *history) Get(namespace, name string) *cache.Item {
	for _, i := range h.items {
		if i.Object.GetNamespace() == namespace && i.Object.GetName() == name {
			return i
		}
	}
	return nil
}

func (h *history) Ascend(namespace, fromNamespace, fromName string, visit func(*cache.Item) bool) {
	for _, i := range h.items {
		ns, name := i.Object.GetNamespace(), i.Object.GetName()
		if namespace != "" && ns != namespace || ns < fromNamespace || ns == fromNamespace && name < fromName {
			continue
		}
		if !visit(i) {
			return
		}
	}
}

func (h *history) ByIndex(index, value string, visit func(*cache.Item) bool) {
	of := h.kind.Indexes[index]
	for _, i := range h.items {
		for _, v := range of(i.Object) {
			if v == value && !visit(i) {
				return
			}
		}
	}
}

func (h *history) Count(namespace string) int {
	n := 0
	h.Ascend(namespace, "", "", func(*cache.Item) bool { n++; return true })
	return n
}

// revisions lets many readers share one question to the store: a reader joins
// the next question, never one that was asked before it came.
type revisions struct {
	mu   sync.Mutex
	busy bool
	next *question
}

type question struct {
	done chan struct{}
	rev  int64
	err  error
}

func (r *revisions) read(ctx context.Context, s store.Store) (int64, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &question{done: make(chan struct{})}
	}
	q := r.next
	if !r.busy {
		r.busy = true
		go r.ask(s)
	}
	r.mu.Unlock()
	select {
	case <-q.done:
		return q.rev, q.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// askWithin bounds one question: a store that does not answer is not there.
const askWithin = 10 * time.Second

func (r *revisions) ask(s store.Store) {
	for {
		r.mu.Lock()
		q := r.next
		r.next = nil
		if q == nil {
			r.busy = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), askWithin)
		q.rev, q.err = s.Revision(ctx)
		if errors.Is(q.err, context.DeadlineExceeded) {
			q.err = fmt.Errorf("%w: no answer within %s", store.ErrUnavailable, askWithin)
		}
		cancel()
		close(q.done)
	}
}
