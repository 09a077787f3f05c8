package patch

import (
	"encoding/json"
	"reflect"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
)

// like fails if a merge is made, and comes to something else than the library's.
func like(t *testing.T, doc, patch string) {
	t.Helper()
	got, ok := merged([]byte(doc), []byte(patch))
	if !ok {
		return
	}
	want, err := jsonpatch.MergePatch([]byte(doc), []byte(patch))
	if err != nil {
		t.Errorf("%s + %s: %s, but %v", doc, patch, got, err)
		return
	}
	var a, b any
	if json.Unmarshal(got, &a) != nil || json.Unmarshal(want, &b) != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("%s + %s:\n got %s\nwant %s", doc, patch, got, want)
	}
}

func TestMergesAsTheLibrary(t *testing.T) {
	docs := []string{`{}`, `{"a":1}`, `{"a":{"b":1,"c":null}}`, `{"a":[{"b":1}],"c":1.50}`, `{"a":null}`, `{"a":"x","b":{"c":{"d":1e3}}}`}
	for _, doc := range docs {
		for _, patch := range append(docs, `{"a":{"b":null,"d":{"e":null,"f":[{"g":null},null]}}}`, `{"b":{"c":[{"x":null}]}}`, `{"b":{"c":null}}`) {
			if _, ok := merged([]byte(doc), []byte(patch)); !ok {
				t.Errorf("%s + %s is left to the library", doc, patch)
			}
			like(t, doc, patch)
		}
	}
}

func FuzzMerge(f *testing.F) {
	f.Add(`{"a":{"b":1,"c":null}}`, `{"a":{"b":null,"d":{"e":null,"f":[{"g":null},null]}}}`)
	f.Fuzz(func(t *testing.T, doc, patch string) { like(t, doc, patch) })
}
