package verbs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/store"
)

// ListOptions of a list: as a client writes them, but with parsed selectors.
type ListOptions struct {
	Selector
	ResourceVersion string
	Match           metav1.ResourceVersionMatch
	Limit           int64
	Continue        string
}

// List is what was found, in key order.
type List struct {
	Items    []*cache.Item
	Revision int64
	Continue string // where to go on, "" = this was all
	// Remaining is how many more there are, nil = not known (a selector was given).
	Remaining *int64
}

// List objects. Errors: BadRequest for bad tokens and versions, Expired for a
// revision that is gone, Timeout for one that does not come.
func (v *Verbs) List(ctx context.Context, r *Request, o ListOptions) (*List, error) {
	set, err := v.set(r)
	if err != nil {
		return nil, err
	}
	if err := unreadable(set.Unreadable(r.Namespace)); err != nil {
		return nil, err
	}
	state, start, err := v.state(ctx, r.Kind.Kind, set, o)
	if err != nil {
		return nil, err
	}
	o.Selector = o.forMany()
	list := &List{Revision: state.revision}
	k := r.Kind.Kind
	scope := o.scope(r.Kind, r.Namespace, r.Name)
	var failed error
	take := func(item *cache.Item) bool {
		ok, err := o.Matches(r.Kind, item)
		if err != nil {
			failed = err
			return false
		}
		if !ok {
			return true
		}
		if o.Limit > 0 && int64(len(list.Items)) == o.Limit {
			last := list.Items[len(list.Items)-1].Object
			list.Continue = token{ResourceVersion: state.revision, Start: after(k, last)}.String()
			return false
		}
		list.Items = append(list.Items, item)
		return true
	}
	visit, last := o.batched(r.Kind, take, &failed)
	switch {
	case scope.Name != "" && (scope.Namespace != "" || k.Cluster):
		if item := state.Get(scope.Namespace, scope.Name); item != nil {
			visit(item)
		}
	case scope.Index != "" && start == "" && o.Limit == 0:
		state.ByIndex(scope.Index, scope.Value, func(item *cache.Item) bool {
			return scope.Namespace != "" && item.Object.GetNamespace() != scope.Namespace || visit(item)
		})
	default:
		if o.Everything() { // what is found is counted, and the room for it need not grow
			room := int64(state.Count(scope.Namespace))
			if o.Limit > 0 {
				room = min(room, o.Limit)
			}
			list.Items = make([]*cache.Item, 0, room)
		}
		ns, name := "", ""
		if start != "" {
			ns, name = split(k, start)
		}
		o.ascend(state.Snapshot, scope.Namespace, ns, name, visit)
	}
	if last(); failed != nil {
		return nil, failed
	}
	if list.Continue != "" {
		pin := v.pins.put(k, state.revision, state.Snapshot)
		if o.Everything() {
			list.Remaining = pin.remaining(k, scope.Namespace, start, list)
		}
	}
	return list, nil
}

// batched lets take see items whose fields are known: if they are costly to find
// out, those of several items are found out together. last takes what is left.
func (s Selector) batched(k api.Served, take func(*cache.Item) bool, failed *error) (visit func(*cache.Item) bool, last func()) {
	if k.ConvertAll == nil || k.Hub().Fields == nil || !s.onFields() {
		return take, func() {}
	}
	var batch []*cache.Item
	more := true
	last = func() {
		if *failed != nil || !more {
			return
		}
		if *failed = ShapeAll(batch, k); *failed != nil {
			return
		}
		for _, item := range batch {
			if more = take(item); !more {
				return
			}
		}
		batch = batch[:0]
	}
	return func(item *cache.Item) bool {
		if s.matchesMeta(k.Kind, item) {
			batch = append(batch, item)
		}
		if len(batch) == batchItems {
			last()
		}
		return more && *failed == nil
	}, last
}

// state of a kind at the revision that a list is said to be of.
type state struct {
	cache.Snapshot
	revision int64
}

// state finds what a list reads, and the key it starts at.
func (v *Verbs) state(ctx context.Context, k *api.Kind, set *cache.Set, o ListOptions) (state, string, error) {
	if o.Continue != "" {
		return v.continued(ctx, k, set, o)
	}
	switch o.ResourceVersion {
	case "":
		if err := v.fresh(ctx); err != nil {
			return state{}, "", err
		}
		return now(set), "", nil
	case "0":
		return now(set), "", nil
	}
	rv, err := revision(o.ResourceVersion)
	if err != nil {
		return state{}, "", err
	}
	if o.Match == metav1.ResourceVersionMatchExact || o.Match == "" && o.Limit > 0 {
		s, err := v.at(ctx, k, set, rv)
		if errors.Is(err, store.ErrCompacted) {
			return state{}, "", apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
		}
		return s, "", err
	}
	if err := v.reach(ctx, rv); err != nil {
		return state{}, "", err
	}
	return now(set), "", nil
}

func now(set *cache.Set) state {
	s := set.Snapshot()
	return state{s, s.Revision()}
}

// continued finds the state that the pages before this one were of.
func (v *Verbs) continued(ctx context.Context, k *api.Kind, set *cache.Set, o ListOptions) (state, string, error) {
	t, err := parseToken(o.Continue)
	if err != nil {
		return state{}, "", err
	}
	if o.ResourceVersion != "" && o.ResourceVersion != "0" {
		return state{}, "", apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
	}
	if t.ResourceVersion < 0 {
		if err := v.fresh(ctx); err != nil {
			return state{}, "", err
		}
		return now(set), t.Start, nil
	}
	if s := v.pins.get(k, t.ResourceVersion); s != nil {
		return state{s, t.ResourceVersion}, t.Start, nil
	}
	s, err := v.at(ctx, k, set, t.ResourceVersion)
	if errors.Is(err, store.ErrCompacted) {
		expired := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.")
		expired.ErrStatus.ListMeta.Continue = token{ResourceVersion: -1, Start: t.Start}.String()
		return state{}, "", expired
	}
	return s, t.Start, err
}

// at is the state at a revision: of the cache if that is it, else of the store.
func (v *Verbs) at(ctx context.Context, k *api.Kind, set *cache.Set, rv int64) (state, error) {
	if err := v.reach(ctx, rv); err != nil {
		return state{}, err
	}
	if s := set.Snapshot(); s.Revision() == rv {
		return state{s, rv}, nil
	}
	s, err := v.past(ctx, k, rv)
	if err != nil && !errors.Is(err, store.ErrCompacted) {
		err = unavailable(err)
	}
	return state{s, rv}, err
}

// reachWithin is how long a request waits for a revision that is not there yet.
const reachWithin = 3 * time.Second

// reach waits for a revision that a client has heard of.
func (v *Verbs) reach(ctx context.Context, rv int64) error {
	if v.Cache.Revision() >= rv {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	err := v.Cache.Wait(wait, rv)
	if err == nil || ctx.Err() != nil {
		return unavailable(err)
	}
	late := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", rv, v.Cache.Revision()), 1)
	late.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return late
}

// revision reads a resourceVersion that a client sent.
func revision(text string) (int64, error) {
	rv, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, apierrors.NewBadRequest(fmt.Sprintf("invalid resource version: resourceVersion: Invalid value: %q: %v", text, err))
	}
	return int64(rv), nil
}
