package managedfields

import (
	"sort"
	"strings"
)

// set is a set of fields of an object: a tree whose edges are path elements as
// FieldsV1 writes them ("f:spec", `k:{"name":"c"}`, `v:"x"`), sorted. It means
// what fieldpath.Set means, with members and children in one list. A set that
// has been handed out is never changed, so sets share their parts. No child is
// empty; nil is the empty set.
type set struct{ elems []elem }

type elem struct {
	key    string
	member bool // the path that ends here is in the set
	child  *set // what is in the set below here, nil = nothing
}

func (s *set) empty() bool { return s == nil || len(s.elems) == 0 }

// find is where key is or belongs.
func (s *set) find(key string) (int, bool) {
	i := sort.Search(len(s.elems), func(i int) bool { return s.elems[i].key >= key })
	return i, i < len(s.elems) && s.elems[i].key == key
}

// at is the element of a key, made if it is not there. Only for a set that is
// being built.
func (s *set) at(key string) *elem {
	n := len(s.elems)
	if n == 0 || s.elems[n-1].key < key {
		s.elems = append(s.elems, elem{key: key})
		return &s.elems[n]
	}
	if s.elems[n-1].key == key {
		return &s.elems[n-1]
	}
	i, found := s.find(key)
	if !found {
		s.elems = append(s.elems, elem{})
		copy(s.elems[i+1:], s.elems[i:])
		s.elems[i] = elem{key: key}
	}
	return &s.elems[i]
}

// zip visits the keys of two sets in order; absent elements are zero.
func zip(a, b *set, visit func(x, y elem)) {
	var as, bs []elem
	if a != nil {
		as = a.elems
	}
	if b != nil {
		bs = b.elems
	}
	for len(as) > 0 || len(bs) > 0 {
		switch {
		case len(bs) == 0 || len(as) > 0 && as[0].key < bs[0].key:
			visit(as[0], elem{})
			as = as[1:]
		case len(as) == 0 || bs[0].key < as[0].key:
			visit(elem{}, bs[0])
			bs = bs[1:]
		default:
			visit(as[0], bs[0])
			as, bs = as[1:], bs[1:]
		}
	}
}

// made is s, or nil when it has come out empty.
func made(s *set) *set {
	if len(s.elems) == 0 {
		return nil
	}
	return s
}

func (s *set) keep(key string, member bool, child *set) {
	if member || child != nil {
		s.elems = append(s.elems, elem{key, member, child})
	}
}

// union has what is in a or in b.
func union(a, b *set) *set {
	if a.empty() {
		return b
	}
	if b.empty() || a == b {
		return a
	}
	out := &set{elems: make([]elem, 0, max(len(a.elems), len(b.elems)))}
	zip(a, b, func(x, y elem) {
		out.keep(max(x.key, y.key), x.member || y.member, union(x.child, y.child))
	})
	return out
}

// intersect has what is in both.
func intersect(a, b *set) *set {
	if a.empty() || b.empty() {
		return nil
	}
	out := &set{}
	zip(a, b, func(x, y elem) { out.keep(x.key, x.member && y.member, intersect(x.child, y.child)) })
	return made(out)
}

// minus has what is in a and not in b, path by path: children of what is in b stay.
// It is a itself when nothing is taken away.
func minus(a, b *set) *set {
	if a.empty() || b.empty() {
		return a
	}
	return subtract(a, b, false)
}

// without has what is in a and neither in b nor below something in b. It is a
// itself when nothing is taken away.
func without(a, b *set) *set {
	if a.empty() || b.empty() {
		return a
	}
	return subtract(a, b, true)
}

func subtract(a, b *set, below bool) *set {
	var out *set // nil as long as all is kept
	j := 0
	for i, x := range a.elems {
		for j < len(b.elems) && b.elems[j].key < x.key {
			j++
		}
		y := x
		if j < len(b.elems) && b.elems[j].key == x.key {
			taken := b.elems[j]
			y.member = x.member && !taken.member
			switch {
			case below && taken.member:
				y.child = nil
			case x.child != nil && taken.child != nil:
				y.child = subtract(x.child, taken.child, below)
			}
		}
		if y != x && out == nil {
			out = &set{elems: append(make([]elem, 0, len(a.elems)), a.elems[:i]...)}
		}
		if out != nil {
			out.keep(y.key, y.member, y.child)
		}
	}
	if out == nil {
		return a
	}
	return made(out)
}

func equal(a, b *set) bool {
	if a == b || a.empty() && b.empty() {
		return true
	}
	if a.empty() || b.empty() || len(a.elems) != len(b.elems) {
		return false
	}
	for i, x := range a.elems {
		y := b.elems[i]
		if x.key != y.key || x.member != y.member || !equal(x.child, y.child) {
			return false
		}
	}
	return true
}

// setOf has the paths given, each its field names with dots.
func setOf(paths ...string) *set {
	out := &set{}
	for _, p := range paths {
		s := out
		names := strings.Split(p, ".")
		for i, name := range names {
			e := s.at("f:" + name)
			if i == len(names)-1 {
				e.member = true
				break
			}
			if e.child == nil {
				e.child = &set{}
			}
			s = e.child
		}
	}
	return made(out)
}

// builder makes a set from paths that come in the order of a walk, so that the
// nodes above the next path are mostly open already.
type builder struct {
	root  set
	open  []*set // open[i] is the node of the first i elements of the walk's path
	sets  []set  // room for nodes, and for their first elements
	elems []elem
	more  bool // there was room before, and it did not suffice
}

// fresh is an empty node with some room. Nodes are small and many.
func (b *builder) fresh() *set {
	const few, many, each = 4, 16, 4
	if len(b.sets) == 0 {
		nodes := few // are all that a patch changes, as a rule
		if b.more {
			nodes = many
		}
		b.sets, b.elems, b.more = make([]set, nodes), make([]elem, nodes*each), true
	}
	s := &b.sets[0]
	s.elems = b.elems[:0:each]
	b.sets, b.elems = b.sets[1:], b.elems[each:]
	return s
}

func (b *builder) insert(path []string) {
	if len(path) == 0 {
		return // the whole object is owned by nobody
	}
	b.node(path[:len(path)-1]).at(path[len(path)-1]).member = true
}

// node is the open node at a path.
func (b *builder) node(path []string) *set {
	if len(b.open) == 0 {
		b.open = append(b.open, &b.root)
	}
	for len(b.open) <= len(path) {
		e := b.open[len(b.open)-1].at(path[len(b.open)-1])
		if e.child == nil {
			e.child = b.fresh()
		}
		b.open = append(b.open, e.child)
	}
	return b.open[len(path)]
}

// leave closes what is below a path of n elements.
func (b *builder) leave(n int) {
	if len(b.open) > n+1 {
		b.open = b.open[:n+1]
	}
}

func (b *builder) set() *set { return made(&b.root) }
