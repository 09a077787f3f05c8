package managedfields

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// state is what there is of a value: nothing, an explicit null, or something.
type state uint8

const (
	absent state = iota
	null
	present
)

// walk compares an old value (l) with a new one (r), both of the Go type of a
// plan, as structured-merge-diff would compare them.
type walk struct {
	path    []string
	changed builder // added or modified
	removed builder
	err     error
	scratch []byte
}

// diff gives the fields that r adds or changes, and those it removes. Both are
// pointers to the plan's type.
func diff(p *plan, l, r any) (changed, removed *set, err error) {
	w := walk{path: make([]string, 0, 16)}
	w.compare(p, reflect.ValueOf(l).Elem(), reflect.ValueOf(r).Elem(), present, present)
	return w.changed.set(), w.removed.set(), w.err
}

func (w *walk) enter(key string) { w.path = append(w.path, key) }

func (w *walk) leave() {
	w.path = w.path[:len(w.path)-1]
	w.changed.leave(len(w.path))
	w.removed.leave(len(w.path))
}

// whole compares two values as one leaf.
func (w *walk) whole(p *plan, l, r reflect.Value, ls, rs state) {
	switch {
	case ls == absent:
		w.changed.insert(w.path)
	case rs == absent:
		w.removed.insert(w.path)
	case ls != rs || ls == present && !p.equal(l, r):
		w.changed.insert(w.path)
	}
}

// compare compares what is at the path. At least one side is not absent.
func (w *walk) compare(p *plan, l, r reflect.Value, ls, rs state) {
	some := false // something was inside, on either side
	if !p.atomic {
		switch p.form {
		case structure:
			some = w.structure(p, l, r, ls, rs)
		case dict:
			some = w.dict(p, l, r, ls, rs)
		case list:
			some = w.list(p, l, r, ls, rs)
		case dynamic:
			w.dynamic(p, l, r, ls, rs)
			return
		}
	}
	if !some {
		w.whole(p, l, r, ls, rs)
	} else if ls == absent {
		w.changed.insert(w.path)
	} else if rs == absent {
		w.removed.insert(w.path)
	}
}

func (w *walk) structure(p *plan, l, r reflect.Value, ls, rs state) bool {
	some := false
	for i := range p.fields {
		f := &p.fields[i]
		var lv, rv reflect.Value
		var lfs, rfs state
		if ls == present {
			lv, lfs = f.of(l)
		}
		if rs == present {
			rv, rfs = f.of(r)
		}
		if lfs == absent && rfs == absent {
			continue
		}
		some = true
		if f.plan.same != nil && f.plan.form == leaf && lfs == rfs && (lfs == null || f.plan.same(lv, rv)) {
			continue // the usual case, without touching the path
		}
		w.enter(f.key)
		w.compare(f.plan, lv, rv, lfs, rfs)
		w.leave()
	}
	return some
}

// of is the field's value, behind a pointer if it is one.
func (f *fieldPlan) of(v reflect.Value) (reflect.Value, state) {
	if f.nested != nil {
		v = v.FieldByIndex(f.nested)
	} else {
		v = v.Field(f.index)
	}
	if f.omitEmpty && emptyValue(v) || f.omitZero != nil && f.omitZero(v) {
		return v, absent
	}
	return settle(f.plan, v)
}

// settle looks behind a pointer and tells null from something.
func settle(p *plan, v reflect.Value) (reflect.Value, state) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return v, null
		}
		v = v.Elem()
	case reflect.Map, reflect.Slice:
		if v.IsNil() {
			return v, null
		}
	}
	if p.null != nil && p.null(v) {
		return v, null
	}
	return v, present
}

// emptyValue is what encoding/json's omitempty leaves out.
func emptyValue(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return v.IsNil()
	case reflect.String, reflect.Map, reflect.Slice, reflect.Array:
		return v.Len() == 0
	case reflect.Struct:
		return false
	default:
		return v.IsZero()
	}
}

func (w *walk) dict(p *plan, l, r reflect.Value, ls, rs state) bool {
	ln, rn := 0, 0
	if ls == present {
		ln = l.Len()
	}
	if rs == present {
		rn = r.Len()
	}
	if ln == 0 && rn == 0 {
		return false
	}
	type entry struct {
		key    string
		l, r   reflect.Value
		ls, rs state
	}
	var differ []entry
	if rn > 0 {
		for it := r.MapRange(); it.Next(); {
			k := it.Key()
			e := entry{key: k.String()}
			e.r, e.rs = settle(p.elem, it.Value())
			if ln > 0 {
				if v := l.MapIndex(k); v.IsValid() {
					e.l, e.ls = settle(p.elem, v)
				}
			}
			if e.ls != e.rs || e.ls == present && !p.elem.equal(e.l, e.r) {
				differ = append(differ, e)
			}
		}
	}
	if ln > 0 {
		for it := l.MapRange(); it.Next(); {
			k := it.Key()
			if rn > 0 && r.MapIndex(k).IsValid() {
				continue
			}
			e := entry{key: k.String()}
			e.l, e.ls = settle(p.elem, it.Value())
			differ = append(differ, e)
		}
	}
	slices.SortFunc(differ, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	for _, e := range differ {
		w.enter("f:" + e.key)
		w.compare(p.elem, e.l, e.r, e.ls, e.rs)
		w.leave()
	}
	return true
}

// item is one item of a list that is a map or a set.
type item struct {
	key string
	v   reflect.Value
	n   int // how many have the key; duplicates are one item
	dup []reflect.Value
}

func (w *walk) list(p *plan, l, r reflect.Value, ls, rs state) bool {
	ln, rn := 0, 0
	if ls == present {
		ln = l.Len()
	}
	if rs == present {
		rn = r.Len()
	}
	if ln == 0 && rn == 0 {
		return false
	}
	if ln == rn && p.equal(l, r) {
		return true
	}
	ritems := w.items(p, r, rn)
	litems := w.items(p, l, ln)
	for i := range ritems {
		x := &ritems[i]
		w.item(p, find(litems, x.key), x)
	}
	for i := range litems {
		if x := &litems[i]; find(ritems, x.key) == nil {
			w.item(p, x, nil)
		}
	}
	return true
}

func find(items []item, key string) *item {
	if len(items) > 16 { // sorted by then
		i := sort.Search(len(items), func(i int) bool { return items[i].key >= key })
		if i < len(items) && items[i].key == key {
			return &items[i]
		}
		return nil
	}
	for i := range items {
		if items[i].key == key {
			return &items[i]
		}
	}
	return nil
}

// items gives the items of a list with their keys, sorted by them.
func (w *walk) items(p *plan, v reflect.Value, n int) []item {
	items := make([]item, 0, n)
	for i := range n {
		e, _ := settle(p.elem, v.Index(i))
		items = append(items, item{key: w.key(p, e, i), v: e, n: 1})
	}
	slices.SortStableFunc(items, func(a, b item) int { return strings.Compare(a.key, b.key) })
	out := items[:0]
	for _, it := range items {
		if last := len(out) - 1; last >= 0 && out[last].key == it.key {
			if out[last].n == 1 {
				out[last].dup = []reflect.Value{out[last].v}
			}
			out[last].n++
			out[last].dup = append(out[last].dup, it.v)
			continue
		}
		out = append(out, it)
	}
	return out
}

func (w *walk) item(p *plan, l, r *item) {
	key, ln, rn := "", 0, 0
	if l != nil {
		key, ln = l.key, l.n
	}
	if r != nil {
		key, rn = r.key, r.n
	}
	w.enter(key)
	defer w.leave()
	switch {
	case ln <= 1 && rn <= 1:
		var lv, rv reflect.Value
		ls, rs := absent, absent
		if l != nil {
			lv, ls = l.v, present
		}
		if r != nil {
			rv, rs = r.v, present
		}
		w.compare(p.elem, lv, rv, ls, rs)
	case ln >= 2 && rn >= 2:
		same := ln == rn
		for i := 0; same && i < ln; i++ {
			same = p.elem.equal(l.dup[i], r.dup[i])
		}
		if !same {
			w.changed.insert(w.path)
		}
	case ln >= 2:
		if rn == 1 {
			w.compare(p.elem, reflect.Value{}, r.v, absent, present)
		}
		w.removed.insert(w.path)
	default:
		if ln == 1 {
			w.compare(p.elem, l.v, reflect.Value{}, present, absent)
		}
		w.changed.insert(w.path)
	}
}

// key is the path element of a list's item.
func (w *walk) key(p *plan, v reflect.Value, i int) string {
	b, ok := p.appendKey(w.scratch[:0], v)
	if !ok && w.err == nil {
		w.err = fmt.Errorf("item %d of the list at %v has none of its keys", i, w.path)
	}
	w.scratch = b
	return string(b)
}

// appendKey writes the path element of an item of a list. It says no if the item
// has none of the list's keys.
func (p *plan) appendKey(b []byte, v reflect.Value) ([]byte, bool) {
	if p.keys == nil {
		return appendValue(append(b, "v:"...), v), true
	}
	b = append(b, "k:{"...)
	n := 0
	for k := range p.keys {
		key := &p.keys[k]
		kv, s := key.field.of(v)
		if s == absent && key.absent == "" {
			continue
		}
		if n++; n > 1 {
			b = append(b, ',')
		}
		b = append(b, key.prefix...)
		switch s {
		case absent:
			b = append(b, key.absent...)
		case null:
			b = append(b, "null"...)
		default:
			b = appendValue(b, kv)
		}
	}
	return append(b, '}'), n > 0
}

// appendValue writes a plain value as JSON.
func appendValue(b []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.String:
		return appendQuoted(b, v.String(), true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(b, v.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return strconv.AppendUint(b, v.Uint(), 10)
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool())
	default:
		return append(b, marshal(v)...)
	}
}

// equal says whether two values, both there, are the same to a client.
func (p *plan) equal(l, r reflect.Value) bool {
	if p.same != nil {
		return p.same(l, r)
	}
	switch p.form {
	case structure:
		for i := range p.fields {
			f := &p.fields[i]
			lv, ls := f.of(l)
			rv, rs := f.of(r)
			if ls != rs || ls == present && !f.plan.equal(lv, rv) {
				return false
			}
		}
		return true
	case dict:
		if l.Len() != r.Len() {
			return false
		}
		if p.sameMap != nil {
			return p.sameMap(l, r)
		}
		for it := r.MapRange(); it.Next(); {
			v := l.MapIndex(it.Key())
			if !v.IsValid() || !p.elem.both(v, it.Value()) {
				return false
			}
		}
		return true
	default:
		n := l.Len()
		if n != r.Len() {
			return false
		}
		for i := range n {
			if !p.elem.both(l.Index(i), r.Index(i)) {
				return false
			}
		}
		return true
	}
}

func (p *plan) both(l, r reflect.Value) bool {
	l, ls := settle(p, l)
	r, rs := settle(p, r)
	return ls == rs && (ls == null || p.equal(l, r))
}

// dynamic lets the library compare JSON whose shape only its content tells.
func (w *walk) dynamic(p *plan, l, r reflect.Value, ls, rs state) {
	if ls == rs && (ls != present || p.same(l, r)) {
		return
	}
	wrap := func(v reflect.Value, s state) (map[string]any, error) {
		switch s {
		case absent:
			return map[string]any{}, nil
		case null:
			return map[string]any{"x": nil}, nil
		}
		x, err := value.FromJSON(marshal(v))
		if err != nil {
			return nil, err
		}
		return map[string]any{"x": x.Unstructured()}, nil
	}
	lm, lerr := wrap(l, ls)
	rm, rerr := wrap(r, rs)
	lt, lterr := p.typ.FromUnstructured(lm)
	rt, rterr := p.typ.FromUnstructured(rm)
	if err := errors.Join(lerr, rerr, lterr, rterr); err != nil {
		w.err = errors.Join(w.err, err)
		return
	}
	c, err := lt.Compare(rt)
	if err != nil {
		w.err = errors.Join(w.err, err)
		return
	}
	w.graft(&w.changed, c.Added)
	w.graft(&w.changed, c.Modified)
	w.graft(&w.removed, c.Removed)
}

// graft puts what the library found below x at the path.
func (w *walk) graft(into *builder, found *fieldpath.Set) {
	found.Iterate(func(p fieldpath.Path) {
		path := append([]string(nil), w.path...)
		for _, pe := range p[1:] {
			key, err := fieldpath.SerializePathElement(pe)
			if err != nil {
				w.err = errors.Join(w.err, err)
				return
			}
			path = append(path, key)
		}
		into.leave(len(w.path))
		into.insert(path)
	})
	into.leave(len(w.path))
}
