package patch

import (
	"encoding/json"
	"reflect"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// Most patches touch one of an object's few top-level fields: a label, a status.
// Part cuts out of a document what a patch touches, so that the rest is neither
// read nor written again.

// Part is the part of a document that a merge patch or strategic merge patch
// touches, to be given to Apply; fields are the top-level ones that it consists
// of. managedFields, which are long, are left out of it if the patch says nothing
// of them (without = true). ok is false when the patch has to see the whole.
func (p *Patch) Part(doc []byte) (part []byte, fields []string, without, ok bool) {
	if p.Type != types.MergePatchType && p.Type != types.StrategicMergePatchType {
		return nil, nil, false, false
	}
	var touched map[string]json.RawMessage
	if json.Unmarshal(p.Data, &touched) != nil || len(touched) == 0 {
		return nil, nil, false, false
	}
	for name := range touched {
		if strings.HasPrefix(name, "$") || name == "apiVersion" || name == "kind" {
			return nil, nil, false, false
		}
		fields = append(fields, name)
	}
	part = append(make([]byte, 0, len(doc)), '{')
	for m := range members(doc) {
		change, wanted := touched[m.name]
		if !wanted {
			continue
		}
		if len(part) > 1 {
			part = append(part, ',')
		}
		part = append(append(append(part, '"'), m.name...), `":`...)
		if m.name == "metadata" && !strings.Contains(string(change), "managedFields") {
			without = true
			part = appendWithout(part, m.value, "managedFields")
			continue
		}
		part = append(part, m.value...)
	}
	return append(part, '}'), fields, without, true
}

// appendWithout appends an object without one of its members.
func appendWithout(dst, object []byte, name string) []byte {
	dst = append(dst, '{')
	first := true
	for m := range members(object) {
		if m.name == name {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(append(append(dst, '"'), m.name...), `":`...)
		dst = append(dst, m.value...)
	}
	return append(dst, '}')
}

type member struct {
	name  string // as it is written, escapes and all
	value []byte
}

// members of an object that encoding/json wrote: compact, and well formed.
func members(object []byte) func(yield func(member) bool) {
	return func(yield func(member) bool) {
		for i := 1; i < len(object) && object[i] == '"'; {
			end := stringEnd(object, i)
			name := string(object[i+1 : end-1])
			from := end + 1 // after the colon
			to := valueEnd(object, from)
			if !yield(member{name, object[from:to]}) {
				return
			}
			i = to + 1 // after the comma, or the closing brace
		}
	}
}

// stringEnd is behind the closing quote of the string that begins at i.
func stringEnd(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// valueEnd is behind the value that begins at i.
func valueEnd(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = stringEnd(b, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 { // a number or word ended at the object's own brace
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return len(b)
}

// Clear empties the top-level fields named of a Go object (a pointer to struct),
// by their names in JSON.
func Clear(obj any, fields []string) {
	v := reflect.ValueOf(obj).Elem()
	at := places(v.Type())
	for _, name := range fields {
		if i, ok := at[name]; ok {
			v.Field(i).SetZero()
		}
	}
}

var placesOf sync.Map // reflect.Type → map[string]int

// places of a struct's fields by their names in JSON.
func places(t reflect.Type) map[string]int {
	if m, ok := placesOf.Load(t); ok {
		return m.(map[string]int)
	}
	m := map[string]int{}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" && name != "-" {
			m[name] = i
		}
	}
	got, _ := placesOf.LoadOrStore(t, m)
	return got.(map[string]int)
}
