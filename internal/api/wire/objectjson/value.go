package objectjson

import (
	"encoding/base64"
	"reflect"
	"strconv"
	"time"
	"unsafe"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// reading a value into a place that is zero; false = sigs.k8s.io/json has to.
type reading func(r *reader, p unsafe.Pointer) bool

// reads is how a type is read. What writes and reads itself is left to
// sigs.k8s.io/json, but for the types of which there are many.
func (c compiler) reads(t reflect.Type) reading {
	switch t {
	case reflect.TypeFor[metav1.Time]():
		return readTime
	case reflect.TypeFor[resource.Quantity]():
		return readQuantity
	case reflect.TypeFor[intstr.IntOrString]():
		return readIntOrString
	case reflect.TypeFor[metav1.FieldsV1]():
		return readFields
	}
	if own(t) {
		return nil
	}
	switch t.Kind() {
	case reflect.String:
		return readString
	case reflect.Bool:
		return readBool
	case reflect.Int, reflect.Int64:
		return readInt[int64]
	case reflect.Int32:
		return readInt[int32]
	case reflect.Pointer:
		return readPointer(t.Elem(), c.plan(t.Elem()))
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return readBytes
		}
		return readList(t, c.plan(t.Elem()))
	case reflect.Map:
		if t.Key().Kind() == reflect.String && !own(t.Key()) {
			return readMap(t, c.plan(t.Elem()))
		}
	case reflect.Interface:
		if t.NumMethod() == 0 {
			return func(r *reader, p unsafe.Pointer) (ok bool) {
				*(*any)(p), ok = r.any()
				return ok
			}
		}
	case reflect.Struct:
		if fields, ok := c.fields(t); ok && len(fields) <= most {
			return readStruct(fields)
		}
	}
	return nil
}

func readTime(r *reader, p unsafe.Pointer) bool {
	if r.null() {
		return true
	}
	text, plain, ok := r.quoted()
	if !ok || !plain {
		return false
	}
	at, err := time.Parse(time.RFC3339, string(text[1:len(text)-1]))
	(*metav1.Time)(p).Time = at.Local()
	return err == nil
}

func readQuantity(r *reader, p unsafe.Pointer) bool {
	var text []byte
	var ok bool
	switch r.next() {
	case 'n':
		return r.null()
	case '"':
		var plain bool
		text, plain, ok = r.quoted()
		ok = ok && plain
	default:
		text, _, ok = r.number()
	}
	return ok && (*resource.Quantity)(p).UnmarshalJSON(text) == nil
}

func readFields(r *reader, p unsafe.Pointer) bool {
	r.space()
	n := compactLen(r.text[r.at:])
	r.at += n
	return n > 0 && (*metav1.FieldsV1)(p).UnmarshalJSON(r.text[r.at-n:r.at]) == nil
}

func readIntOrString(r *reader, p unsafe.Pointer) bool {
	v := (*intstr.IntOrString)(p)
	if r.next() == '"' {
		v.Type = intstr.String
		return readString(r, unsafe.Pointer(&v.StrVal))
	}
	return readInt[int32](r, unsafe.Pointer(&v.IntVal))
}

func readString(r *reader, p unsafe.Pointer) bool {
	if r.null() {
		return true
	}
	s, ok := r.string()
	*(*string)(p) = s
	return ok
}

func readBool(r *reader, p unsafe.Pointer) bool {
	switch r.next() {
	case 't':
		*(*bool)(p) = true
		return r.word("true")
	case 'f':
		return r.word("false")
	}
	return r.null()
}

func readInt[T int32 | int64](r *reader, p unsafe.Pointer) bool {
	if r.null() {
		return true
	}
	text, whole, ok := r.number()
	if !ok || !whole {
		return false
	}
	n, err := strconv.ParseInt(string(text), 10, int(unsafe.Sizeof(T(0)))*8)
	*(*T)(p) = T(n)
	return err == nil && (n != 0 || text[0] != '-')
}

func readBytes(r *reader, p unsafe.Pointer) bool {
	if r.null() {
		return true
	}
	text, plain, ok := r.quoted()
	if !ok || !plain {
		return false
	}
	b, err := base64.StdEncoding.DecodeString(string(text[1 : len(text)-1]))
	*(*[]byte)(p) = b
	return err == nil
}

func readPointer(elem reflect.Type, plan *plan) reading {
	return func(r *reader, p unsafe.Pointer) bool {
		if r.null() {
			return true
		}
		at := reflect.New(elem).UnsafePointer()
		*(*unsafe.Pointer)(p) = at
		return plan.read(r, at)
	}
}

func readList(t reflect.Type, elem *plan) reading {
	size := t.Elem().Size()
	return func(r *reader, p unsafe.Pointer) bool {
		if r.null() {
			return true
		}
		list := reflect.NewAt(t, p).Elem()
		list.SetZero()
		ok := r.array(func(i int) bool {
			list.Grow(1)
			list.SetLen(i + 1)
			return elem.read(r, unsafe.Add((*header)(p).at, uintptr(i)*size))
		})
		if ok && list.IsNil() {
			list.Set(reflect.MakeSlice(t, 0, 0))
		}
		return ok
	}
}

func readMap(t reflect.Type, elem *plan) reading {
	if reflect.TypeFor[map[string]string]().ConvertibleTo(t) {
		return func(r *reader, p unsafe.Pointer) bool {
			if r.null() {
				return true
			}
			m := map[string]string{}
			reflect.NewAt(t, p).Elem().Set(reflect.ValueOf(m).Convert(t))
			return r.object(func(key []byte) bool {
				if _, twice := m[string(key)]; twice {
					return false
				}
				var v string
				ok := readString(r, unsafe.Pointer(&v))
				m[string(key)] = v
				return ok
			})
		}
	}
	return func(r *reader, p unsafe.Pointer) bool {
		if r.null() {
			return true
		}
		m := reflect.MakeMap(t)
		reflect.NewAt(t, p).Elem().Set(m)
		key, value := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		return r.object(func(name []byte) bool {
			key.SetString(string(name))
			value.SetZero()
			if m.MapIndex(key).IsValid() || !elem.read(r, value.Addr().UnsafePointer()) {
				return false
			}
			m.SetMapIndex(key, value)
			return true
		})
	}
}

// most fields that a struct may have.
const most = 64

func readStruct(fields []field) reading {
	byName := make(map[string]int, len(fields))
	for i, f := range fields {
		byName[f.name[1:len(f.name)-2]] = i
	}
	return func(r *reader, p unsafe.Pointer) bool {
		if r.null() {
			return true
		}
		var seen uint64
		return r.object(func(key []byte) bool {
			i, known := byName[string(key)]
			if !known || seen&(1<<i) != 0 {
				return false
			}
			seen |= 1 << i
			f := &fields[i]
			return f.plan.read(r, unsafe.Add(p, f.offset))
		})
	}
}
