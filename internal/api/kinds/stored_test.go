package kinds

import (
	"fmt"
	"reflect"
	"testing"

	"k8s.io/client-go/kubernetes/scheme"
)

// TestStoredAlike holds versions that are read as if they were the kind's own
// against what the API says of them.
func TestStoredAlike(t *testing.T) {
	n := 0
	for _, k := range Catalog().All() {
		for _, s := range k.Stored {
			if s.New != nil {
				continue
			}
			n++
			theirs, err := scheme.Scheme.New(s.GroupVersionKind)
			if err != nil {
				t.Error(err)
				continue
			}
			if diff := alike(reflect.TypeOf(theirs).Elem(), reflect.TypeOf(k.New()).Elem(), k.Kind, map[reflect.Type]bool{}); diff != "" {
				t.Errorf("%s: %s", s.GroupVersionKind, diff)
			}
		}
	}
	if n == 0 {
		t.Error("there are none")
	}
}

// alike says where a stored type differs from the kind's, "" = nowhere. The kind's
// may have more.
func alike(a, b reflect.Type, path string, seen map[reflect.Type]bool) string {
	if a == b || seen[a] {
		return ""
	}
	seen[a] = true
	if b.Kind() == reflect.Pointer && a.Kind() == b.Elem().Kind() { // the same on the wire
		b = b.Elem()
	}
	if a.Kind() != b.Kind() {
		return fmt.Sprintf("%s is a %s, not a %s", path, a.Kind(), b.Kind())
	}
	switch a.Kind() {
	case reflect.Pointer, reflect.Slice:
		return alike(a.Elem(), b.Elem(), path, seen)
	case reflect.Map:
		if diff := alike(a.Key(), b.Key(), path+"[]", seen); diff != "" {
			return diff
		}
		return alike(a.Elem(), b.Elem(), path+"[]", seen)
	case reflect.Struct:
		for f := range a.Fields() {
			g, ok := b.FieldByName(f.Name)
			if !ok || f.Tag.Get("json") != g.Tag.Get("json") || f.Tag.Get("protobuf") != g.Tag.Get("protobuf") {
				return fmt.Sprintf("%s.%s is %q, not %q", path, f.Name, f.Tag, g.Tag)
			}
			if diff := alike(f.Type, g.Type, path+"."+f.Name, seen); diff != "" {
				return diff
			}
		}
	}
	return ""
}
