package objectjson

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Piece of a text, which stands before the byte At of the rest.
type Piece struct {
	At    int
	Bytes []byte
}

// Text is an object in JSON: Bytes, with pieces between them that the object has in
// memory as they are.
type Text struct {
	Bytes  []byte
	Pieces []Piece // in order
	// Meta is where in Bytes the metadata of a text that begins with {"metadata":{…}
	// ends; 0 = it does not begin so.
	Meta int
}

// Append obj as encoding/json writes it: a pointer to a struct, or maps and lists of
// any kind.
func Append(dst []byte, obj any) ([]byte, error) {
	w := writers.Get().(*writer)
	room := w.buf
	w.buf = dst
	err := w.object(obj)
	text := w.buf
	w.buf = room
	w.free()
	if err != nil {
		return dst, err
	}
	return text, nil
}

// Marshal is Append into bytes of its own.
func Marshal(obj any) ([]byte, error) {
	t, err := Cut(obj, 0)
	return t.Bytes, err
}

// Cut is Marshal of an object whose managed fields of cut bytes and more are not
// copied, but stay pieces of their own. cut 0 = all are copied.
func Cut(obj any, cut int) (Text, error) {
	w := writers.Get().(*writer)
	defer w.free()
	w.cut = cut
	if err := w.object(obj); err != nil {
		return Text{}, err
	}
	return Text{Bytes: bytes.Clone(w.buf), Pieces: w.pieces, Meta: w.meta}, nil
}

// writers are used again, with what they have written into before it was known how
// long it is.
var writers = sync.Pool{New: func() any { return new(writer) }}

const bufferMost = 64 << 10

func (w *writer) free() {
	room := w.buf[:0]
	if cap(room) > bufferMost {
		room = nil
	}
	*w = writer{buf: room}
	writers.Put(w)
}

// writer of one object.
type writer struct {
	buf    []byte
	err    error // the first
	cut    int   // 0 = nothing is cut
	pieces []Piece
	meta   int
}

func (w *writer) object(obj any) error {
	v := reflect.ValueOf(obj)
	p := pointed(v)
	if p == nil {
		w.any(obj)
		return w.err
	}
	p.write(w, v.UnsafePointer())
	return w.err
}

// any writes what JSON of any kind is read into.
func (w *writer) any(v any) {
	switch v := v.(type) {
	case nil:
		w.null()
	case string:
		w.buf = AppendString(w.buf, v)
	case bool:
		w.buf = strconv.AppendBool(w.buf, v)
	case int64:
		w.buf = strconv.AppendInt(w.buf, v, 10)
	case json.Number: // of ReadTree
		w.buf = append(w.buf, v...)
	case map[string]any:
		if v == nil {
			w.null()
			return
		}
		var room [16]string
		w.buf = append(w.buf, '{')
		for i, k := range sorted(room[:0], v) {
			w.key(i, k)
			w.any(v[k])
		}
		w.buf = append(w.buf, '}')
	case []any:
		if v == nil {
			w.null()
			return
		}
		w.buf = append(w.buf, '[')
		for i := range v {
			if i > 0 {
				w.buf = append(w.buf, ',')
			}
			w.any(v[i])
		}
		w.buf = append(w.buf, ']')
	default:
		w.library(v)
	}
}

// library lets encoding/json write a value.
func (w *writer) library(v any) {
	text, err := json.Marshal(v)
	if err != nil && w.err == nil {
		w.err = err
	}
	w.buf = append(w.buf, text...)
}

func (w *writer) null() { w.buf = append(w.buf, "null"...) }

func writeBool(w *writer, p unsafe.Pointer) { w.buf = strconv.AppendBool(w.buf, *(*bool)(p)) }

func writeInt[T int32 | int64](w *writer, p unsafe.Pointer) {
	w.buf = strconv.AppendInt(w.buf, int64(*(*T)(p)), 10)
}

func record(fields []field) func(*writer, unsafe.Pointer) {
	return func(w *writer, p unsafe.Pointer) {
		begin := len(w.buf)
		w.buf = append(w.buf, '{')
		for i := range fields {
			f := &fields[i]
			at := unsafe.Add(p, f.offset)
			if f.empty && f.plan.empty != nil && f.plan.empty(at) || f.zero && f.plan.zero(at) {
				continue
			}
			first := len(w.buf) == begin+1
			if !first {
				w.buf = append(w.buf, ',')
			}
			w.buf = append(w.buf, f.name...)
			f.plan.write(w, at)
			if first && begin == 0 && f.name == `"metadata":` {
				w.meta = len(w.buf)
			}
		}
		w.buf = append(w.buf, '}')
	}
}

// header of a slice, as the runtime lays it out.
type header struct {
	at       unsafe.Pointer
	len, cap int
}

func list(elem *plan, size uintptr) func(*writer, unsafe.Pointer) {
	return func(w *writer, p unsafe.Pointer) {
		l := (*header)(p)
		if l.at == nil {
			w.null()
			return
		}
		w.buf = append(w.buf, '[')
		for i := range uintptr(l.len) {
			if i > 0 {
				w.buf = append(w.buf, ',')
			}
			elem.write(w, unsafe.Add(l.at, i*size))
		}
		w.buf = append(w.buf, ']')
	}
}

// table writes a map with strings for keys.
func (c compiler) table(t reflect.Type) func(*writer, unsafe.Pointer) {
	if t.Key().Kind() != reflect.String || own(t.Key()) {
		return nil
	}
	if t.Elem().Kind() == reflect.String && !own(t.Elem()) {
		return func(w *writer, p unsafe.Pointer) { w.strings(*(*map[string]string)(p)) }
	}
	elem := c.plan(t.Elem())
	return func(w *writer, p unsafe.Pointer) {
		m := reflect.NewAt(t, p).Elem()
		if m.IsNil() {
			w.null()
			return
		}
		keys := m.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		value := reflect.New(t.Elem())
		w.buf = append(w.buf, '{')
		for i, k := range keys {
			value.Elem().Set(m.MapIndex(k))
			w.key(i, k.String())
			elem.write(w, value.UnsafePointer())
		}
		w.buf = append(w.buf, '}')
	}
}

// key of the i-th entry of a map.
func (w *writer) key(i int, k string) {
	if i > 0 {
		w.buf = append(w.buf, ',')
	}
	w.buf = append(AppendString(w.buf, k), ':')
}

// sorted keys of a map; room is used if it suffices.
func sorted[K ~string, V any](room []K, m map[K]V) []K {
	for k := range m {
		room = append(room, k)
	}
	slices.Sort(room)
	return room
}

func (w *writer) strings(m map[string]string) {
	if m == nil {
		w.null()
		return
	}
	var room [16]string
	w.buf = append(w.buf, '{')
	for i, k := range sorted(room[:0], m) {
		w.key(i, k)
		w.buf = AppendString(w.buf, m[k])
	}
	w.buf = append(w.buf, '}')
}

func (w *writer) resources(m corev1.ResourceList) {
	if m == nil {
		w.null()
		return
	}
	var room [8]corev1.ResourceName
	w.buf = append(w.buf, '{')
	for i, k := range sorted(room[:0], m) {
		w.key(i, string(k))
		q := m[k]
		w.quantity(&q)
	}
	w.buf = append(w.buf, '}')
}

func (w *writer) base64(b []byte) {
	if b == nil {
		w.null()
		return
	}
	w.buf = append(w.buf, '"')
	w.buf = base64.StdEncoding.AppendEncode(w.buf, b)
	w.buf = append(w.buf, '"')
}

func (w *writer) time(t *metav1.Time) {
	if t.IsZero() {
		w.null()
		return
	}
	w.buf = append(w.buf, '"')
	w.buf = t.UTC().AppendFormat(w.buf, time.RFC3339)
	w.buf = append(w.buf, '"')
}

func (w *writer) quantity(q *resource.Quantity) {
	text, _ := q.MarshalJSON() // it has no error
	w.buf = append(w.buf, text...)
}

func (w *writer) intOrString(v *intstr.IntOrString) {
	switch v.Type {
	case intstr.Int:
		w.buf = strconv.AppendInt(w.buf, int64(v.IntVal), 10)
	case intstr.String:
		w.buf = AppendString(w.buf, v.StrVal)
	default:
		if w.err == nil {
			w.err = fmt.Errorf("impossible IntOrString.Type")
		}
	}
}

// fields writes managed fields: as they are, if they are as encoding/json would have
// them, which all are that this server made.
func (w *writer) fields(f *metav1.FieldsV1) {
	raw := f.GetRawBytes()
	if !compact(raw) {
		w.library(f)
		return
	}
	if w.cut > 0 && len(raw) >= w.cut {
		w.pieces = append(w.pieces, Piece{len(w.buf), raw})
		return
	}
	w.buf = append(w.buf, raw...)
}
