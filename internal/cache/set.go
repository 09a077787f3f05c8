package cache

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/store"
)

// Set is one kind's part of the cache. *Set implements Reader.
type Set struct {
	cache   *Cache
	kind    *api.Kind
	prefix  string
	indexes []index

	incoming []incoming // the feed's alone: events to be applied

	mu     sync.RWMutex
	now    *state
	bytes  int64 // that the objects take in the store
	floor  int64 // events up to this revision are in it already
	gone   bool  // the kind was removed, or the cache stopped
	window window
	watch  watchers
	broken map[string]Broken
	kept   []kept

	asked   asked
	snap    atomic.Pointer[state] // a copy of now, nil = somebody must make one
	changed atomic.Int64          // revision of the last change
}

var _ Reader = (*Set)(nil)

type index struct {
	name   string
	values func(api.Object) []string
}

type incoming struct {
	key string
	store.Event
}

// Broken is an entry of the store that is no object.
type Broken struct {
	Entry store.Entry
	Err   error
}

func newSet(c *Cache, k *api.Kind) *Set {
	s := &Set{cache: c, kind: k, prefix: k.Prefix(), broken: map[string]Broken{}}
	for name, f := range k.Indexes {
		s.indexes = append(s.indexes, index{name, f})
	}
	slices.SortFunc(s.indexes, func(a, b index) int { return strings.Compare(a.name, b.name) })
	s.now = newState(len(s.indexes))
	s.window.limits = c.cfg.Window
	s.watch = newWatchers(len(s.indexes))
	return s
}

// Kind of the objects.
func (s *Set) Kind() *api.Kind { return s.kind }

// Changed implements Reader.
func (s *Set) Changed() int64 { return s.changed.Load() }

// Get implements Reader.
func (s *Set) Get(namespace, name string) *Item { return s.get(setKey(namespace, name)) }

func (s *Set) get(key string) *Item {
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, _ := s.now.items.Get(key)
	return i
}

// Broken returns the entry under a name when it cannot be decoded, nil
// otherwise. Get and snapshots then show the last good state, or nothing.
func (s *Set) Broken(namespace, name string) *Broken {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.broken) == 0 {
		return nil
	}
	if b, ok := s.broken[setKey(namespace, name)]; ok {
		return &b
	}
	return nil
}

// Unreadable returns an entry of a namespace ("" = all) that cannot be decoded,
// nil = there is none.
func (s *Set) Unreadable(namespace string) *Broken {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for key, b := range s.broken {
		if namespace == "" || strings.HasPrefix(key, namespace+"/") {
			return &b
		}
	}
	return nil
}

// setKey is where an object stands in its set. The order of these keys is the
// order in the store.
func setKey(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// find lets a set stand in for kinds.find.
func (s *Set) find(key string) (*Set, string) { return s, key[len(s.prefix):] }

// decode an entry; what is no object becomes an item with an error.
func (s *Set) decode(key string, e store.Entry) *Item {
	obj, err := s.cache.cfg.Decode(s.kind, e)
	if err != nil {
		s.cache.log.Error("an entry of the store is no object", "key", e.Key, "revision", e.Revision, "err", err)
		return &Item{Revision: e.Revision, key: key, err: err}
	}
	s.cache.parts.Object(obj, nil)
	return s.cache.newItem(key, obj, e.Revision, len(e.Value))
}

// change is an event with what is needed to find who wants it.
type change struct {
	Event
	before, after [][]string // values in each index
}

// apply takes in the events that the feed brought.
func (s *Set) apply(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changes := make([]change, 0, len(s.incoming))
	for i := range s.incoming {
		in := &s.incoming[i]
		if in.Revision <= s.floor {
			continue
		}
		if ch, ok := s.step(in); ok {
			changes = append(changes, ch)
		}
	}
	clear(s.incoming)
	s.incoming = s.incoming[:0]
	s.tell(changes, now)
}

// step makes one change of the state. mu is held.
func (s *Set) step(in *incoming) (change, bool) {
	old, _ := s.now.items.Get(in.key)
	var prior int64
	if old != nil {
		prior = old.Revision
	}
	if b, ok := s.broken[in.key]; ok {
		prior = b.Entry.Revision
		delete(s.broken, in.key)
	}
	item := s.cache.expect.claim(&in.Event, prior, func(obj api.Object) *Item {
		switch {
		case !in.Deleted:
			return s.cache.newItem(in.key, obj, in.Revision, len(in.Value))
		case old != nil:
			return old.At(in.Revision)
		}
		return nil
	})
	if in.Deleted {
		if old == nil {
			return change{}, false
		}
		return s.put(old, nil, in.Revision), true
	}
	if item == nil {
		item = s.decode(in.key, in.Entry)
	}
	if item.err != nil {
		s.broken[in.key] = Broken{in.Entry, item.err}
		return change{}, false
	}
	return s.put(old, item, in.Revision), true
}

// put changes the state from old to item, either of which may be nil.
func (s *Set) put(old, item *Item, rev int64) change {
	s.snap.Store(nil)
	s.changed.Store(rev)
	ch := change{Event: Event{Modified, item, old}}
	if item != nil {
		s.count(int64(item.size))
	}
	if old != nil {
		s.count(-int64(old.size))
		s.cache.encoded.retire(old)
	}
	switch {
	case old == nil:
		ch.Type = Added
	case item == nil:
		ch.Type, ch.Item = Deleted, old.At(rev)
	}
	ch.before, ch.after = s.values(old), s.values(item)
	s.now.change(old, item, ch.before, ch.after, rev)
	return ch
}

// count bytes that the objects take in the store.
func (s *Set) count(by int64) {
	s.bytes += by
	s.cache.encoded.objects.Add(by)
}

func (s *Set) values(i *Item) [][]string {
	if i == nil || len(s.indexes) == 0 {
		return nil
	}
	values := make([][]string, len(s.indexes))
	for n, x := range s.indexes {
		values[n] = x.values(i.Object)
	}
	return values
}

// replace makes the state what was read at a revision, and tells the watchers the
// difference. items are in key order.
func (s *Set) replace(items []*Item, rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	good := items[:0:len(items)]
	broken := map[string]Broken{}
	for _, i := range items {
		if i.err != nil {
			broken[i.key] = Broken{store.Entry{Key: s.prefix + i.key, Revision: i.Revision}, i.err}
			if last, ok := s.now.items.Get(i.key); ok {
				good = append(good, last)
			}
			continue
		}
		good = append(good, i)
	}
	changes := s.difference(good, rev)
	s.broken, s.floor, s.now.revision = broken, rev, rev
	s.snap.Store(nil)
	s.changed.Store(rev)
	s.watch.dispatch(s, changes)
	s.window.restart(rev) // what happened in between is not known one by one
}

// difference changes the state to items and returns the changes, oldest first.
func (s *Set) difference(items []*Item, rev int64) []change {
	var changes []change
	there := make(map[string]struct{}, len(items))
	for _, i := range items {
		there[i.key] = struct{}{}
		old, _ := s.now.items.Get(i.key)
		if old != i {
			changes = append(changes, s.put(old, i, i.Revision))
		}
	}
	var gone []*Item
	s.now.items.Scan(func(key string, i *Item) bool {
		if _, ok := there[key]; !ok {
			gone = append(gone, i)
		}
		return true
	})
	for _, i := range gone {
		changes = append(changes, s.put(i, nil, rev))
	}
	if len(s.watch.every) == 0 {
		return nil
	}
	slices.SortStableFunc(changes, func(a, b change) int { return int(a.Item.Revision - b.Item.Revision) })
	return changes
}

// tell the window and the watchers. mu is held.
func (s *Set) tell(changes []change, now time.Time) {
	if len(changes) == 0 {
		return
	}
	for i := range changes {
		s.window.add(changes[i].Event, now)
	}
	s.window.trim(now)
	s.watch.dispatch(s, changes)
}

// sweep forgets what is too old.
func (s *Set) sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window.trim(now)
	s.forget(now)
	s.forgetLabels(now)
}

// stop ends all watches.
func (s *Set) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	s.count(-s.bytes)
	for w := range s.watch.every {
		w.end(ErrStopped)
	}
}
