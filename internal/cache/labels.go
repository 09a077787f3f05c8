package cache

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/btree"
)

// Labels have no index until somebody asks for objects by the value of one, twice,
// where there are many; and none any more when nobody does. An entry takes about 35
// bytes for each object with that label, and a write 1 µs for each index.
const (
	labelFrom  = 1000 // objects of a namespace, or of the kind
	labelTimes = 2    // asked for
	labelMost  = 8    // indexes of a kind
	labelFor   = 10 * time.Minute
)

// Label that objects have to have, with one of the values.
type Label struct {
	Key    string
	Values []string
}

// labelIndex has the objects of a kind that have a label, by its value and in key order.
type labelIndex struct {
	key    string
	values int // different ones, when it was made
	tree   *btree.BTreeG[labelled]
}

type labelled struct {
	value string
	item  *Item // nil and key instead: where to begin
	key   string
}

func (l labelled) at() string {
	if l.item != nil {
		return l.item.key
	}
	return l.key
}

func lessLabelled(a, b labelled) bool {
	return cmp.Or(strings.Compare(a.value, b.value), strings.Compare(a.at(), b.at())) < 0
}

// change from old to item, either of which may be nil.
func (x *labelIndex) change(old, item *Item) {
	was, had := x.of(old)
	is, has := x.of(item)
	if had && !(has && was == is) {
		x.tree.Delete(labelled{value: was, item: old})
	}
	if has {
		x.tree.Set(labelled{value: is, item: item})
	}
}

func (x *labelIndex) of(i *Item) (value string, ok bool) {
	if i == nil {
		return "", false
	}
	value, ok = i.Object.GetLabels()[x.key]
	return value, ok
}

// ascend visits the objects with a value, from a set key on, whose keys have a prefix.
func (x *labelIndex) ascend(value, prefix, from string, visit func(*Item) bool) {
	x.tree.Ascend(labelled{value: value, key: from}, func(l labelled) bool {
		return l.value == value && strings.HasPrefix(l.item.key, prefix) && visit(l.item)
	})
}

// Labelled is a Snapshot that may know its objects by their labels.
type Labelled interface {
	// ByLabels visits as Snapshot.Ascend does those that have one of the labels, for
	// which there is an index. false = there is none: nothing was visited.
	ByLabels(labels []Label, namespace, fromNamespace, fromName string, visit func(*Item) bool) bool
}

// ByLabels implements Labelled.
func (s *snapshot) ByLabels(labels []Label, namespace, fromNamespace, fromName string, visit func(*Item) bool) bool {
	if len(labels) == 0 || s.Count(namespace) < labelFrom {
		return false
	}
	s.set.asked.note(s.set, labels, time.Now())
	var best *labelIndex
	var values []string
	for _, l := range labels {
		for _, x := range s.labels {
			if x.key == l.Key && (best == nil || x.values > best.values) {
				best, values = x, l.Values
			}
		}
	}
	if best == nil {
		return false
	}
	prefix, from := within(namespace, fromNamespace, fromName)
	if len(values) == 1 {
		best.ascend(values[0], prefix, from, visit)
		return true
	}
	var all []*Item
	for _, v := range values {
		best.ascend(v, prefix, from, func(i *Item) bool { all = append(all, i); return true })
	}
	slices.SortFunc(all, func(a, b *Item) int { return strings.Compare(a.key, b.key) })
	for _, i := range slices.Compact(all) {
		if !visit(i) {
			break
		}
	}
	return true
}

// asked is which labels of a kind were asked for.
type asked struct {
	mu   sync.Mutex
	keys map[string]*askedLabel
}

type askedLabel struct {
	times int
	last  time.Time
	busy  bool // its index is being made, or is there
}

// note that somebody asks, and make the indexes that are worth it: for the next.
func (a *asked) note(s *Set, labels []Label, now time.Time) {
	for _, l := range labels {
		if a.due(l.Key, now) && !s.indexLabel(l.Key) {
			a.failed(l.Key)
		}
	}
}

func (a *asked) due(key string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := a.keys[key]
	if k == nil {
		if len(a.keys) >= labelMost && !a.forget(now.Add(-time.Minute), 1) {
			return false
		}
		if a.keys == nil {
			a.keys = map[string]*askedLabel{}
		}
		k = &askedLabel{}
		a.keys[key] = k
	}
	k.times++
	k.last = now
	if k.busy || k.times < labelTimes {
		return false
	}
	k.busy = true
	return true
}

// failed lets the next who asks try again.
func (a *asked) failed(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if k := a.keys[key]; k != nil {
		k.busy = false
	}
}

// forget at most so many labels that nobody has asked for since. mu is held.
func (a *asked) forget(since time.Time, most int) (some bool) {
	for key, k := range a.keys {
		if most > 0 && k.last.Before(since) {
			delete(a.keys, key)
			most--
			some = true
		}
	}
	return some
}

func (a *asked) wants(key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.keys[key] != nil
}

// indexLabel makes an index of what is there, beside the feed, and catches up with
// what happened meanwhile. false = too much did.
func (s *Set) indexLabel(key string) bool {
	then := s.frozen()
	x := &labelIndex{key: key, tree: btree.NewBTreeGOptions(lessLabelled, btree.Options{NoLocks: true})}
	var all []labelled
	then.items.Scan(func(_ string, i *Item) bool {
		if v, ok := x.of(i); ok {
			all = append(all, labelled{value: v, item: i})
		}
		return true
	})
	// They are in key order: so they still are among those of one value.
	slices.SortStableFunc(all, func(a, b labelled) int { return strings.Compare(a.value, b.value) })
	for n, l := range all {
		if n == 0 || all[n-1].value != l.value {
			x.values++
		}
		x.tree.Load(l)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.now.labels, func(x *labelIndex) bool { return x.key == key }) {
		return true // it was forgotten, but not dropped yet
	}
	past, ok := s.window.after(then.revision)
	if !ok {
		return false
	}
	for i := range past {
		e := &past[i].Event
		if e.Type == Deleted {
			x.change(e.Prev, nil)
		} else {
			x.change(e.Prev, e.Item)
		}
	}
	s.now.labels = append(slices.Clone(s.now.labels), x)
	s.snap.Store(nil)
	return true
}

// forgetLabels drops the indexes of labels that nobody asks for any more. mu is held.
func (s *Set) forgetLabels(now time.Time) {
	s.asked.mu.Lock()
	s.asked.forget(now.Add(-labelFor), labelMost)
	s.asked.mu.Unlock()
	if slices.ContainsFunc(s.now.labels, func(x *labelIndex) bool { return !s.asked.wants(x.key) }) {
		s.now.labels = slices.DeleteFunc(slices.Clone(s.now.labels), func(x *labelIndex) bool { return !s.asked.wants(x.key) })
		s.snap.Store(nil)
	}
}
