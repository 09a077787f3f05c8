// Package share lets objects that are kept have their equal parts in common. Pods
// of one Deployment differ in a name, a UID and a few strings; their probes,
// environments, resources, tolerations, labels and managed fields are the same
// again and again, and so is most of an object and its next version. Kept once,
// they take a third of the memory, and what looks at many objects finds those
// parts in the processor's cache.
//
// A part is what a pointer, a slice or a map leads to. Parts are taken from the
// bottom up, so that two of them are equal when their own values and the addresses
// of the parts below are: each part is looked at once, whatever the depth. A part is
// compared with the one in the same place of the version before, and with one other
// that a table of fixed size has for its hash. What the table has forgotten is kept
// twice; nothing has to be cleaned up.
//
// Objects whose parts are shared must never be changed, nor may anybody append
// within the capacity of their slices: shared slices have none to spare.
package share

import (
	"hash/maphash"
	"reflect"
	"sync"
	"sync/atomic"
	"unsafe"
)

// slots of the table. Full, it takes 200 kB, and keeps as many parts that nobody else
// has any more; one of more than bulky bytes is not put there.
const (
	slots = 1 << 12
	bulky = 8 << 10
)

// Parts that objects have had lately. Safe for concurrent use.
type Parts struct {
	seed  maphash.Seed
	table [slots]atomic.Pointer[part]
	plans sync.Map // reflect.Type → *plan
	mu    sync.Mutex
}

// part that an object has.
type part struct {
	plan *plan // of the pointer, slice or map that leads to it
	at   unsafe.Pointer
	n    int // length of a slice
}

// New is an empty table.
func New() *Parts { return &Parts{seed: maphash.MakeSeed()} }

// Object takes the parts of an object over from prior (the version before, nil =
// there is none) and from other objects, where they are equal. Both are pointers to
// the same type; others are left as they are, and so are objects that are maps.
// Nobody else may use obj yet.
func (s *Parts) Object(obj, prior any) {
	v := reflect.ValueOf(obj)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return
	}
	p := s.plan(v.Elem().Type())
	if !p.parts {
		return
	}
	var old unsafe.Pointer
	if o := reflect.ValueOf(prior); prior != nil && o.Type() == v.Type() {
		old = o.UnsafePointer()
	}
	s.below(p, v.UnsafePointer(), old)
}

// plan of a type, made when it is first seen.
func (s *Parts) plan(t reflect.Type) *plan {
	if p, ok := s.plans.Load(t); ok {
		return p.(*plan)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := compiler{done: map[reflect.Type]*plan{}}
	p := c.plan(t)
	c.settle()
	got, _ := s.plans.LoadOrStore(t, p)
	return got.(*plan)
}

// known returns a part that is equal to the one given: one that the table has, or
// itself, which the table has from now on.
func (s *Parts) known(p *plan, at unsafe.Pointer, n int) unsafe.Pointer {
	hash, size := s.hash(p, at, n)
	if size > bulky {
		return at
	}
	slot := &s.table[hash%slots]
	if have := slot.Load(); have != nil && have.plan.typ == p.typ && have.n == n && p.equal(have.at, at, n) {
		return have.at
	}
	slot.Store(&part{p, at, n})
	return at
}
