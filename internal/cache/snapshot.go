package cache

import (
	"strings"
	"time"

	"github.com/tidwall/btree"
)

// state of a kind. The trees are copy-on-write: copying a state costs nothing,
// and a change after that copies the nodes on its way down.
type state struct {
	revision   int64                       // of the last change
	items      *btree.Map[string, *Item]   // by set key
	namespaces *btree.Map[string, int]     // how many in each
	indexes    []*btree.Map[string, *Item] // by value, NUL, set key; as Set.indexes
	labels     []*labelIndex               // of labels that are asked for
}

func newState(indexes int) *state {
	s := &state{items: btree.NewMap[string, *Item](0), namespaces: btree.NewMap[string, int](0)}
	for range indexes {
		s.indexes = append(s.indexes, btree.NewMap[string, *Item](0))
	}
	return s
}

func (s *state) copy() *state {
	c := &state{revision: s.revision, items: s.items.Copy(), namespaces: s.namespaces.Copy()}
	c.indexes = make([]*btree.Map[string, *Item], len(s.indexes))
	for i, x := range s.indexes {
		c.indexes[i] = x.Copy()
	}
	for _, x := range s.labels {
		c.labels = append(c.labels, &labelIndex{x.key, x.values, x.tree.Copy()})
	}
	return c
}

// change from old to item, either of which may be nil.
func (s *state) change(old, item *Item, before, after [][]string, rev int64) {
	s.revision = rev
	for n, values := range before {
		for _, v := range values {
			s.indexes[n].Delete(v + "\x00" + old.key)
		}
	}
	for n, values := range after {
		for _, v := range values {
			s.indexes[n].Set(v+"\x00"+item.key, item)
		}
	}
	for _, x := range s.labels {
		x.change(old, item)
	}
	switch {
	case item == nil:
		s.items.Delete(old.key)
		s.count(old.key, -1)
	default:
		s.items.Set(item.key, item)
		if old == nil {
			s.count(item.key, 1)
		}
	}
}

func (s *state) count(key string, by int) {
	ns, _, ok := strings.Cut(key, "/")
	if !ok {
		return
	}
	n, _ := s.namespaces.Get(ns)
	if n += by; n == 0 {
		s.namespaces.Delete(ns)
	} else {
		s.namespaces.Set(ns, n)
	}
}

// snapshot implements Snapshot.
type snapshot struct {
	set      *Set
	revision int64
	*state
}

// Snapshot implements Reader. It is as new as Cache.Revision was at the call, or
// newer, and costs nothing but for the first after a change.
func (s *Set) Snapshot() Snapshot {
	at := s.cache.rev.Load() // first: all that happened up to here is in the state that comes
	now := s.frozen()
	return &snapshot{s, max(at, now.revision), now}
}

// frozen returns a copy of the state.
func (s *Set) frozen() *state {
	if now := s.snap.Load(); now != nil {
		return now
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.freeze()
}

func (s *Set) freeze() *state {
	now := s.snap.Load()
	if now == nil {
		now = s.now.copy()
		s.snap.Store(now)
	}
	return now
}

func (s *snapshot) Revision() int64 { return s.revision }
func (s *snapshot) Len() int        { return s.items.Len() }

func (s *snapshot) Get(namespace, name string) *Item {
	i, _ := s.items.Get(setKey(namespace, name))
	return i
}

func (s *snapshot) Ascend(namespace, fromNamespace, fromName string, visit func(*Item) bool) {
	prefix, from := within(namespace, fromNamespace, fromName)
	s.items.Ascend(from, func(key string, i *Item) bool {
		return strings.HasPrefix(key, prefix) && visit(i)
	})
}

// within is what the keys of a namespace ("" = all) begin with, and where to begin.
func within(namespace, fromNamespace, fromName string) (prefix, from string) {
	if namespace != "" {
		prefix = namespace + "/"
	}
	return prefix, max(prefix, setKey(fromNamespace, fromName))
}

func (s *snapshot) ByIndex(index, value string, visit func(*Item) bool) {
	for n, x := range s.set.indexes {
		if x.name == index {
			prefix := value + "\x00"
			s.indexes[n].Ascend(prefix, func(key string, i *Item) bool {
				return strings.HasPrefix(key, prefix) && visit(i)
			})
		}
	}
}

func (s *snapshot) Count(namespace string) int {
	if namespace == "" {
		return s.items.Len()
	}
	n, _ := s.namespaces.Get(namespace)
	return n
}

// kept is a snapshot that a continue token refers to.
type kept struct {
	*snapshot
	since time.Time
}

// Snapshots are kept for this long, and this many for a kind.
const (
	keepFor  = 5 * time.Minute
	keepMost = 64
)

// Keep remembers a snapshot for SnapshotAt, for some minutes: later pages of a
// list come from it.
func (s *Set) Keep(snap Snapshot) {
	sn, ok := snap.(*snapshot)
	if !ok || sn.set != s {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep(sn, time.Now())
}

func (s *Set) keep(sn *snapshot, now time.Time) {
	s.forget(now)
	for i := range s.kept {
		if s.kept[i].revision == sn.revision {
			s.kept[i].since = now
			return
		}
	}
	if len(s.kept) == keepMost {
		s.kept = append(s.kept[:0], s.kept[1:]...)
	}
	s.kept = append(s.kept, kept{sn, now})
}

func (s *Set) forget(now time.Time) {
	left := s.kept[:0]
	for _, k := range s.kept {
		if now.Sub(k.since) < keepFor {
			left = append(left, k)
		}
	}
	clear(s.kept[len(left):])
	s.kept = left
}

// SnapshotAt is the state at exactly a revision: the present one, one that was
// kept, or one that the window of events leads back to. ErrGone otherwise; the
// store may still have it. The revision must not be above Cache.Revision.
func (s *Set) SnapshotAt(revision int64) (Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.revision <= revision {
		return &snapshot{s, revision, s.freeze()}, nil
	}
	for _, k := range s.kept {
		if k.state.revision <= revision && revision <= k.revision {
			return k.snapshot, nil
		}
	}
	past, ok := s.window.after(revision)
	if !ok {
		return nil, ErrGone
	}
	then := s.now.copy()
	for i := len(past) - 1; i >= 0; i-- {
		e := past[i].Event
		old, item := e.Prev, e.Item
		if e.Type == Deleted {
			item = nil
		}
		then.change(item, old, s.values(item), s.values(old), revision)
	}
	sn := &snapshot{s, revision, then}
	s.keep(sn, time.Now())
	return sn, nil
}
