package share

import (
	"maps"
	"reflect"
	"sync/atomic"
	"time"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// form of a value: how it is compared and what lies below it.
type form uint8

const (
	bits    form = iota // its bytes say all, or say which thing it is (interfaces, odd maps)
	text                // a string
	record              // a struct
	amount              // a resource.Quantity
	instant             // a time.Time
	pointer
	list    // a slice
	words   // a map of strings
	amounts // a corev1.ResourceList
)

// plan of a type, compiled once.
type plan struct {
	typ    reflect.Type
	form   form
	size   uintptr
	elem   *plan   // of a pointer or a slice
	fields []field // of a struct
	parts  bool    // there is something to share below
}

type field struct {
	offset uintptr
	*plan
	last *atomic.Pointer[string] // of a string that others have, too: the one that was seen last
}

// own are the strings that no two objects have in common.
var own = map[string]bool{"Name": true, "GenerateName": true, "UID": true, "ResourceVersion": true}

var (
	amountType  = reflect.TypeFor[resource.Quantity]()
	instantType = reflect.TypeFor[time.Time]()
	amountsType = reflect.TypeFor[corev1.ResourceList]()
	wordsType   = reflect.TypeFor[map[string]string]()
)

type compiler struct{ done map[reflect.Type]*plan }

func (c *compiler) plan(t reflect.Type) *plan {
	if p := c.done[t]; p != nil {
		return p
	}
	p := &plan{typ: t, size: t.Size()}
	c.done[t] = p // types can contain themselves
	switch k := t.Kind(); {
	case t == amountType:
		p.form = amount
	case t == instantType:
		p.form = instant
	case t == amountsType:
		p.form, p.parts = amounts, true
	case k == reflect.Map && t.ConvertibleTo(wordsType):
		p.form, p.parts = words, true
	case k == reflect.String:
		p.form = text
	case k == reflect.Pointer:
		p.form, p.elem, p.parts = pointer, c.plan(t.Elem()), true
	case k == reflect.Slice:
		p.form, p.elem, p.parts = list, c.plan(t.Elem()), true
	case k == reflect.Struct:
		p.form = record
		for i := range t.NumField() {
			f := t.Field(i)
			this := field{offset: f.Offset, plan: c.plan(f.Type)}
			if this.form == text {
				p.parts = true
				if !own[f.Name] {
					this.last = &atomic.Pointer[string]{}
				}
			}
			p.fields = append(p.fields, this)
		}
	}
	return p
}

// settle which structs have parts: the types that contain themselves are known by now.
func (c *compiler) settle() {
	for again := true; again; {
		again = false
		for _, p := range c.done {
			for _, f := range p.fields {
				if f.parts && !p.parts {
					p.parts, again = true, true
				}
			}
		}
	}
}

// same says that two values of a plan's type are equal, whose parts were shared
// where they are equal.
func (p *plan) same(a, b unsafe.Pointer) bool {
	switch p.form {
	case text:
		return *(*string)(a) == *(*string)(b)
	case record:
		for _, f := range p.fields {
			if !f.same(unsafe.Add(a, f.offset), unsafe.Add(b, f.offset)) {
				return false
			}
		}
		return true
	case amount:
		return *(*resource.Quantity)(a) == *(*resource.Quantity)(b)
	case instant:
		return *(*time.Time)(a) == *(*time.Time)(b)
	case list:
		x, y := (*slice)(a), (*slice)(b)
		return x.at == y.at && x.len == y.len
	}
	return unsafe.String((*byte)(a), p.size) == unsafe.String((*byte)(b), p.size)
}

// equal says that two parts are: what lies behind a pointer, slice or map of the
// plan's type.
func (p *plan) equal(a, b unsafe.Pointer, n int) bool {
	if a == b {
		return true
	}
	switch p.form {
	case pointer:
		return p.elem.same(a, b)
	case list:
		if p.elem.form == bits {
			return unsafe.String((*byte)(a), uintptr(n)*p.elem.size) == unsafe.String((*byte)(b), uintptr(n)*p.elem.size)
		}
		for i := range uintptr(n) {
			if !p.elem.same(unsafe.Add(a, i*p.elem.size), unsafe.Add(b, i*p.elem.size)) {
				return false
			}
		}
		return true
	case words:
		return maps.Equal(*(*map[string]string)(unsafe.Pointer(&a)), *(*map[string]string)(unsafe.Pointer(&b)))
	case amounts:
		return maps.Equal(*(*corev1.ResourceList)(unsafe.Pointer(&a)), *(*corev1.ResourceList)(unsafe.Pointer(&b)))
	}
	return false
}

// slice is how the runtime lays out a slice (reflect.SliceHeader with a pointer).
type slice struct {
	at       unsafe.Pointer
	len, cap int
}
