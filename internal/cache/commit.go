package cache

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/store"
)

// Change is one object of a transaction.
type Change struct {
	Kind            *api.Kind
	Namespace, Name string
	Prior           int64 // the revision the object must have now; 0 = it must not exist
	Unsafe          bool  // Prior is not looked at

	// Object is the new state, nil = delete. It is the cache's from here on,
	// whatever becomes of the commit: the cache sets its resourceVersion and
	// hands it to readers.
	Object api.Object
	Value  []byte        // Object as it is stored, before Config.Seal
	TTL    time.Duration // > 0: it goes away by itself after this long
}

// expected is a change on its way, waiting for its event.
type expected struct {
	write store.Write
	obj   api.Object
	item  *Item // what the feed made of it, nil = not seen yet
}

type expectations struct {
	mu    sync.Mutex
	byKey map[string][]*expected
}

// Commit makes all changes in one transaction, or none, and returns when the
// cache shows them: an Item each (of a deletion, the last state under the
// revision of the deletion) and the revision. The objects are not decoded again.
//
// Errors are those of Store.Commit. After a *store.Conflict the cache has seen
// what is in the way: read again and decide again.
func (c *Cache) Commit(ctx context.Context, changes ...Change) ([]*Item, int64, error) {
	writes := make([]store.Write, len(changes))
	wait := make([]*expected, len(changes))
	for i, ch := range changes {
		writes[i] = store.Write{Key: ch.Kind.Key(ch.Namespace, ch.Name), Prior: ch.Prior, TTL: ch.TTL, Unsafe: ch.Unsafe}
		if ch.Object != nil {
			value, err := c.seal(ctx, &ch, writes[i].Key)
			if err != nil {
				return nil, 0, err
			}
			writes[i].Value = value
			c.share(&ch)
		}
		wait[i] = &expected{write: writes[i], obj: ch.Object}
	}
	c.expect.add(wait)
	defer c.expect.remove(wait)

	rev, err := c.cfg.Store.Commit(ctx, writes...)
	if err != nil {
		if conflict := (*store.Conflict)(nil); errors.As(err, &conflict) {
			c.catchUp(ctx, conflict)
		}
		return nil, 0, err
	}
	_ = c.Wait(ctx, rev) // the commit stands, seen or not
	c.expect.remove(wait)
	items := make([]*Item, len(changes))
	for i := range changes {
		if items[i], err = c.outcome(&changes[i], wait[i], rev); err != nil {
			return nil, rev, err
		}
	}
	return items, rev, nil
}

// share the parts of an object that will be kept with those that are.
func (c *Cache) share(ch *Change) {
	var prior api.Object
	if s := c.Of(ch.Kind); s != nil {
		if old := s.Get(ch.Namespace, ch.Name); old != nil {
			prior = old.Object
		}
	}
	c.parts.Object(ch.Object, prior)
}

// outcome of one change that was committed.
func (c *Cache) outcome(ch *Change, x *expected, rev int64) (*Item, error) {
	switch {
	case x.item != nil && x.item.Revision == rev:
		return x.item, nil
	case ch.Object == nil: // of an Unsafe deletion there may be nothing to show
		if s := c.Of(ch.Kind); s != nil {
			if last := s.Get(ch.Namespace, ch.Name); last != nil && last.Revision < rev {
				return last.At(rev), nil
			}
		}
		return nil, nil
	case x.item == nil: // not seen, or seen through an equal write: the object is still ours
		return c.newItem(setKey(ch.Namespace, ch.Name), ch.Object, rev, len(ch.Value)), nil
	}
	// An Unsafe write whose bytes somebody else wrote, too: the object went into
	// that version.
	obj, err := c.cfg.Decode(ch.Kind, store.Entry{Key: x.write.Key, Value: x.write.Value, Revision: rev})
	if err != nil {
		return nil, err
	}
	return c.newItem(setKey(ch.Namespace, ch.Name), obj, rev, len(ch.Value)), nil
}

// catchUp waits until the cache has seen what a commit ran into.
func (c *Cache) catchUp(ctx context.Context, conflict *store.Conflict) {
	var rev int64
	if conflict.Current != nil {
		rev = conflict.Current.Revision
	} else {
		rev, _ = c.cfg.Store.Revision(ctx)
	}
	_ = c.Wait(ctx, rev)
}

func (e *expectations) add(all []*expected) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range all {
		e.byKey[x.write.Key] = append(e.byKey[x.write.Key], x)
	}
}

// remove is called twice for a commit that succeeds; the second finds nothing.
func (e *expectations) remove(all []*expected) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range all {
		e.drop(x)
	}
}

func (e *expectations) drop(x *expected) {
	list := e.byKey[x.write.Key]
	for i := range list {
		if list[i] == x {
			if len(list) == 1 {
				delete(e.byKey, x.write.Key)
			} else {
				list[i] = list[len(list)-1]
				e.byKey[x.write.Key] = list[:len(list)-1]
			}
			return
		}
	}
}

// claim finds the change that an event is of (the same step, from the same
// revision to the same bytes) and lets make turn its object into the item. It
// returns nil when nobody here expects the event.
func (e *expectations) claim(ev *store.Event, prior int64, make func(api.Object) *Item) *Item {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.byKey[ev.Key] {
		if (x.write.Unsafe || x.write.Prior == prior) && ev.Deleted == (x.write.Value == nil) && bytes.Equal(x.write.Value, ev.Value) {
			x.item = make(x.obj)
			e.drop(x)
			return x.item
		}
	}
	return nil
}
