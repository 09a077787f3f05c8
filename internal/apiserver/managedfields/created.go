package managedfields

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// errUneven says that an object has something (items with the same key, JSON of any
// shape) of which only a comparison tells who owns what.
var errUneven = errors.New("not to be told without a comparison")

// created gives the fields that whoever creates an object comes to own: all that a
// comparison with an object of the type's zero value finds, but for those reset, as
// FieldsV1. nil = none. As nobody owned anything before, they are written down in
// one pass over the object; no set is made.
func (l *lazyPlan) created(obj any, reset *set) (*metav1.FieldsV1, error) {
	w := writers.Get().(*writer)
	defer w.free()
	w.text = append(w.text, '{')
	if _, err := w.fields(l.plan, reflect.ValueOf(l.zero).Elem(), reflect.ValueOf(obj).Elem(), present, reset); err != nil {
		return nil, err
	}
	if len(w.text) == len("{") {
		return nil, nil
	}
	w.text[len(w.text)-1] = '}' // in the place of a comma
	// What one program creates one after the other mostly has the same fields.
	if last := l.last.Load(); last != nil && bytes.Equal(last.GetRawBytes(), w.text) {
		return last, nil
	}
	out := &metav1.FieldsV1{}
	out.SetRawBytes(w.text)
	l.last.Store(out)
	return out, nil
}

// writer writes FieldsV1 of an object that is new. What it has room for is used again.
type writer struct {
	text  []byte
	keys  []byte  // of the items of lists that are being written
	items []found // these items
	names []name  // the keys of maps that are being written
}

// found is an item of a list, whose key is keys[from:to].
type found struct {
	from, to int
	v        reflect.Value
}

// name is a key of a map with what is there.
type name struct {
	key string
	v   reflect.Value
	s   state
}

var writers = sync.Pool{New: func() any { return &writer{} }}

func (w *writer) free() {
	clear(w.items[:cap(w.items)])
	clear(w.names[:cap(w.names)])
	w.text, w.keys, w.items, w.names = w.text[:0], w.keys[:0], w.items[:0], w.names[:0]
	writers.Put(w)
}

// node writes what is owned of r, which is there where the zero object has l. It
// writes nothing, and says so, if that is nothing.
func (w *writer) node(p *plan, l, r reflect.Value, ls, rs state, reset *set) (bool, error) {
	if p.form == dynamic && !p.atomic {
		if ls == rs && (ls != present || p.same(l, r)) {
			return false, nil
		}
		return false, errUneven
	}
	start := len(w.text)
	some := false // something is inside, owned or not
	if rs == present && !p.atomic && p.form != leaf {
		w.text = append(w.text, '{')
		if ls == absent {
			w.text = append(w.text, `".":{},`...)
		}
		inside := len(w.text)
		var err error
		switch p.form {
		case structure:
			some, err = w.fields(p, l, r, ls, reset)
		case dict:
			some, err = w.dict(p, r)
		case list:
			some, err = w.list(p, r)
		}
		if err != nil {
			return false, err
		}
		if len(w.text) > inside {
			w.text[len(w.text)-1] = '}' // in the place of a comma
			return true, nil
		}
	}
	w.text = w.text[:start]
	member := ls == absent || !some && (ls != rs || ls == present && !p.equal(l, r))
	if member {
		w.text = append(w.text, "{}"...)
	}
	return member, nil
}

// fields writes those of a structure, each with a comma behind it. It says whether
// there is any, owned or not.
func (w *writer) fields(p *plan, l, r reflect.Value, ls state, reset *set) (some bool, err error) {
	for i := range p.fields {
		f := &p.fields[i]
		rv, rs := f.of(r)
		var lv reflect.Value
		lfs := absent
		if ls == present {
			lv, lfs = f.of(l)
		}
		if rs == absent && lfs == absent {
			continue
		}
		some = true
		if rs == absent {
			return true, errUneven // only the zero value has it
		}
		var below *set
		if reset != nil {
			if at, ok := reset.find(f.key); ok {
				if reset.elems[at].member {
					continue
				}
				below = reset.elems[at].child
			}
		}
		start := len(w.text)
		w.text = append(w.text, f.quoted...)
		if owned, err := w.node(f.plan, lv, rv, lfs, rs, below); err != nil {
			return false, err
		} else if !owned {
			w.text = w.text[:start]
			continue
		}
		w.text = append(w.text, ',')
	}
	return some, nil
}

// dict writes the keys of a map, which the zero object has not.
func (w *writer) dict(p *plan, r reflect.Value) (some bool, err error) {
	n := r.Len()
	if n == 0 {
		return false, nil
	}
	base := len(w.names)
	if plain, ok := strs(r); ok && p.elem.form == leaf && p.elem.null == nil {
		for k := range plain {
			w.names = append(w.names, name{key: k, s: null})
		}
	} else {
		for it := r.MapRange(); it.Next(); {
			v, s := settle(p.elem, it.Value())
			w.names = append(w.names, name{it.Key().String(), v, s})
		}
	}
	slices.SortFunc(w.names[base:], func(a, b name) int { return strings.Compare(a.key, b.key) })
	for i := base; i < base+n; i++ {
		e := w.names[i]
		w.text = append(appendEscaped(append(w.text, `"f:`...), e.key, false), `":`...)
		if _, err := w.node(p.elem, reflect.Value{}, e.v, absent, e.s, nil); err != nil {
			return false, err
		}
		w.text = append(w.text, ',')
	}
	w.names = w.names[:base]
	return true, nil
}

var stringMap = reflect.TypeFor[map[string]string]()

// strs is a map of strings as one, whose keys then need not be copied.
func strs(v reflect.Value) (map[string]string, bool) {
	if v.Type() != stringMap {
		return nil, false
	}
	m, ok := v.Interface().(map[string]string)
	return m, ok
}

// list writes the items of a list, which the zero object has not.
func (w *writer) list(p *plan, r reflect.Value) (some bool, err error) {
	n := r.Len()
	base, keys := len(w.items), len(w.keys)
	for i := range n {
		v, _ := settle(p.elem, r.Index(i))
		from, ok := len(w.keys), false
		if w.keys, ok = p.appendKey(w.keys, v); !ok {
			return false, errUneven
		}
		w.items = append(w.items, found{from, len(w.keys), v})
	}
	key := func(f found) []byte { return w.keys[f.from:f.to] }
	slices.SortFunc(w.items[base:], func(a, b found) int { return bytes.Compare(key(a), key(b)) })
	for i := base; i < base+n; i++ {
		it := w.items[i]
		if i > base && bytes.Equal(key(it), key(w.items[i-1])) {
			return false, errUneven
		}
		w.text = append(appendEscaped(append(w.text, '"'), key(it), false), `":`...)
		if _, err := w.node(p.elem, reflect.Value{}, it.v, absent, present, nil); err != nil {
			return false, err
		}
		w.text = append(w.text, ',')
	}
	w.items, w.keys = w.items[:base], w.keys[:keys]
	return n > 0, nil
}
