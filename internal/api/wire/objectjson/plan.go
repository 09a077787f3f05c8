// Package objectjson reads and writes Kubernetes objects in JSON by a plan that is
// made once for each Go type: nothing is looked up by reflection meanwhile. What is
// written is what encoding/json writes, byte for byte; what is read is what
// sigs.k8s.io/json reads. What a plan does not know is left to the two of them.
package objectjson

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"sync"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// plan of a type: how a value is read and written, and when omitempty and omitzero
// leave it out.
type plan struct {
	read  reading
	write func(w *writer, p unsafe.Pointer)
	empty func(p unsafe.Pointer) bool // nil = never
	zero  func(p unsafe.Pointer) bool
	own   bool // the type says itself how it is written
}

type field struct {
	name   string // with what stands around it: "name":
	offset uintptr
	plan   *plan
	empty  bool // left out when it is
	zero   bool // left out when it is
}

var (
	plans sync.Map // reflect.Type → *plan

	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// of a type; the plan is complete.
func of(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	c := compiler{}
	c.plan(t)
	for t, p := range c { // none of them refers to one that is not complete now
		plans.LoadOrStore(t, p)
	}
	return c[t]
}

// pointed is the plan of the struct that a pointer leads to, which a plan has to read
// or write. nil = there is none, or the type says itself how it is written.
func pointed(v reflect.Value) *plan {
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Type().Elem().Kind() != reflect.Struct {
		return nil
	}
	if p := of(v.Type().Elem()); !p.own {
		return p
	}
	return nil
}

// compiler of the plans of types that may contain themselves.
type compiler map[reflect.Type]*plan

func (c compiler) plan(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	if p := c[t]; p != nil {
		return p
	}
	p := &plan{own: own(t)}
	c[t] = p
	p.empty, p.zero = empty(t), zero(t)
	if p.write = known(t); p.write == nil {
		p.write = c.kind(t)
	}
	if p.read = c.reads(t); p.read == nil {
		p.read = func(*reader, unsafe.Pointer) bool { return false }
	}
	if p.write == nil {
		p.write = func(w *writer, at unsafe.Pointer) { w.library(reflect.NewAt(t, at).Interface()) }
	}
	return p
}

// known are the types that write themselves and of which there are many.
func known(t reflect.Type) func(*writer, unsafe.Pointer) {
	switch t {
	case reflect.TypeFor[metav1.Time]():
		return func(w *writer, p unsafe.Pointer) { w.time((*metav1.Time)(p)) }
	case reflect.TypeFor[resource.Quantity]():
		return func(w *writer, p unsafe.Pointer) { w.quantity((*resource.Quantity)(p)) }
	case reflect.TypeFor[intstr.IntOrString]():
		return func(w *writer, p unsafe.Pointer) { w.intOrString((*intstr.IntOrString)(p)) }
	case reflect.TypeFor[metav1.FieldsV1]():
		return func(w *writer, p unsafe.Pointer) { w.fields((*metav1.FieldsV1)(p)) }
	case reflect.TypeFor[corev1.ResourceList]():
		return func(w *writer, p unsafe.Pointer) { w.resources(*(*corev1.ResourceList)(p)) }
	}
	return nil
}

// kind writes a type by its kind; nil = encoding/json has to.
func (c compiler) kind(t reflect.Type) func(*writer, unsafe.Pointer) {
	if own(t) {
		return nil
	}
	switch t.Kind() {
	case reflect.String:
		return func(w *writer, p unsafe.Pointer) { w.buf = AppendString(w.buf, *(*string)(p)) }
	case reflect.Bool:
		return writeBool
	case reflect.Int, reflect.Int64:
		return writeInt[int64]
	case reflect.Int32:
		return writeInt[int32]
	case reflect.Pointer:
		elem := c.plan(t.Elem())
		return func(w *writer, p unsafe.Pointer) {
			if at := *(*unsafe.Pointer)(p); at == nil {
				w.null()
			} else {
				elem.write(w, at)
			}
		}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			if own(t.Elem()) {
				return nil
			}
			return func(w *writer, p unsafe.Pointer) { w.base64(*(*[]byte)(p)) }
		}
		return list(c.plan(t.Elem()), t.Elem().Size())
	case reflect.Map:
		return c.table(t)
	case reflect.Interface:
		if t.NumMethod() == 0 {
			return func(w *writer, p unsafe.Pointer) { w.any(*(*any)(p)) }
		}
	case reflect.Struct:
		if fields, ok := c.fields(t); ok {
			return record(fields)
		}
	}
	return nil
}

// own says whether a type, or a pointer to it, says itself how it is written.
func own(t reflect.Type) bool {
	to := reflect.PointerTo(t)
	return t.Kind() != reflect.Pointer && (to.Implements(marshaler) || to.Implements(textMarshaler))
}

// fields of a struct in the order in which they are written, those of embedded
// structs in their place. ok is false where encoding/json has rules beyond these.
func (c compiler) fields(t reflect.Type) (all []field, ok bool) {
	seen := map[string]bool{}
	var collect func(t reflect.Type, base uintptr) bool
	collect = func(t reflect.Type, base uintptr) bool {
		for i := range t.NumField() {
			f := t.Field(i)
			tag := f.Tag.Get("json")
			if tag == "-" {
				continue
			}
			name, options, _ := strings.Cut(tag, ",")
			if f.Anonymous && name == "" {
				if f.Type.Kind() != reflect.Struct || !collect(f.Type, base+f.Offset) {
					return false
				}
				continue
			}
			if !f.IsExported() {
				continue
			}
			if name == "" {
				name = f.Name
			}
			has := func(o string) bool { return strings.Contains(","+options+",", ","+o+",") }
			if seen[name] || has("string") || strings.ContainsAny(name, `"\<>&`) {
				return false
			}
			seen[name] = true
			all = append(all, field{
				name: `"` + name + `":`, offset: base + f.Offset, plan: c.plan(f.Type), empty: has("omitempty"), zero: has("omitzero"),
			})
		}
		return true
	}
	return all, collect(t, 0)
}

// empty is what omitempty asks of a type; nil = it is never empty.
func empty(t reflect.Type) func(unsafe.Pointer) bool {
	switch t.Kind() {
	case reflect.String:
		return func(p unsafe.Pointer) bool { return *(*string)(p) == "" }
	case reflect.Bool:
		return func(p unsafe.Pointer) bool { return !*(*bool)(p) }
	case reflect.Pointer:
		return func(p unsafe.Pointer) bool { return *(*unsafe.Pointer)(p) == nil }
	case reflect.Slice:
		return func(p unsafe.Pointer) bool { return len(*(*[]byte)(p)) == 0 } // the length is where it is in all
	case reflect.Int32:
		return func(p unsafe.Pointer) bool { return *(*int32)(p) == 0 }
	case reflect.Int, reflect.Int64:
		return func(p unsafe.Pointer) bool { return *(*int64)(p) == 0 }
	case reflect.Struct:
		return nil
	case reflect.Map, reflect.Array:
		return func(p unsafe.Pointer) bool { return reflect.NewAt(t, p).Elem().Len() == 0 }
	}
	return func(p unsafe.Pointer) bool { return reflect.NewAt(t, p).Elem().IsZero() }
}

// zero is what omitzero asks of a type.
func zero(t reflect.Type) func(unsafe.Pointer) bool {
	if t == reflect.TypeFor[metav1.Time]() {
		return func(p unsafe.Pointer) bool { return (*metav1.Time)(p).IsZero() }
	}
	type zeroer interface{ IsZero() bool }
	if t.Kind() != reflect.Pointer && reflect.PointerTo(t).Implements(reflect.TypeFor[zeroer]()) {
		return func(p unsafe.Pointer) bool { return reflect.NewAt(t, p).Interface().(zeroer).IsZero() }
	}
	return func(p unsafe.Pointer) bool { return reflect.NewAt(t, p).Elem().IsZero() }
}
