package objectjson

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// same fails unless v is written as encoding/json does, whole and in pieces.
func same(t *testing.T, v any) {
	t.Helper()
	want, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Append([]byte("x"), v)
	if err != nil || string(got) != "x"+string(want) {
		t.Errorf("%T: %v\n got %s\nwant %s", v, err, got, want)
	}
	text, err := Cut(v, 1)
	if err != nil {
		t.Fatal(err)
	}
	var whole []byte
	last := 0
	for _, p := range text.Pieces {
		whole = append(append(whole, text.Bytes[last:p.At]...), p.Bytes...)
		last = p.At
	}
	if whole = append(whole, text.Bytes[last:]...); string(whole) != string(want) {
		t.Errorf("%T in pieces:\n got %s\nwant %s", v, whole, want)
	}
}

func TestStringsAreEncodingJSONs(t *testing.T) {
	var all strings.Builder
	for c := range 256 {
		all.WriteByte(byte(c))
	}
	for _, s := range []string{"", "a", "<a&b>", "\"\\\b\f\n\r\t\x00\x1f\x7f", "ä€😀", "\u2028\u2029\u2030", "\xff\xfe", "a\xe2\x80", all.String()} {
		want, _ := json.Marshal(s)
		if got := AppendString(nil, s); string(got) != string(want) {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
}

func FuzzString(f *testing.F) {
	f.Add("<\"ä\xff\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		want, _ := json.Marshal(s)
		if got := AppendString(nil, s); string(got) != string(want) {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	})
}

func FuzzCompact(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":{}}`, `{"f:a":{".":{},"k:{\"b\":1}":{}},"f:b":{}}`, `{,}`, `{"a":{}`, `{"a"}`, `{} `, `{"\u003c":{}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !compact([]byte(s)) {
			return
		}
		if got, err := json.Marshal(json.RawMessage(s)); err != nil || string(got) != s {
			t.Errorf("%q is said to stay as it is: %s %v", s, got, err)
		}
	})
}

func TestManagedFields(t *testing.T) {
	pod := func(raw ...string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
		for _, r := range raw {
			p.ManagedFields = append(p.ManagedFields, metav1.ManagedFieldsEntry{Manager: "m", FieldsV1: &metav1.FieldsV1{Raw: []byte(r)}})
		}
		return p
	}
	own := `{"f:a":{".":{},"k:{\"b\":1}":{}}}`
	same(t, pod())
	same(t, pod(own))
	same(t, pod(own, "", `{ "f:a" : {} }`, `{"<":{}}`, `{"ä":{}}`, `{"a":1}`))
	if text, _ := Cut(pod(own), len(own)); len(text.Pieces) != 1 || text.Meta != len(text.Bytes)-len(`,"spec":{"containers":null},"status":{}}`) {
		t.Errorf("%+v of %s", text, text.Bytes)
	}
	if _, err := Append(nil, pod(`{"a":`)); err == nil {
		t.Error("half an object is written")
	}
}

// TestOdd: what a plan leaves to encoding/json, or does by rules of which objects
// make little use.
func TestOdd(t *testing.T) {
	type named string
	type Inner struct{ X, Y int }
	type odd struct {
		Inner
		*corev1.Toleration
		A      any               `json:"a"`
		B      []byte            `json:"b,omitempty"`
		C      map[string][]byte `json:"c"`
		D      map[named]named   `json:"d,omitempty"`
		E      map[int]string    `json:"e"`
		F      float64           `json:"f,omitempty"`
		G      [2]int            `json:"g"`
		H      *named            `json:"h"`
		I      int64             `json:"i,string"`
		hidden int
	}
	type rest struct {
		Inner
		X string           // hides the other X
		N named            `json:",omitempty"`
		T metav1.MicroTime `json:"t,omitzero"`
		D metav1.Duration
		R runtime.RawExtension `json:"r"`
		P []*Inner             `json:"p"`
		U uint8
		M map[string]Inner
		Q intstr.IntOrString
	}
	h := named("<h>")
	same(t, &odd{A: map[string]any{"b": 1, "a": "<"}, B: []byte("x"), C: map[string][]byte{"b": nil, "a": []byte("y")}, H: &h, I: 5})
	same(t, &odd{Toleration: &corev1.Toleration{Key: "k"}, D: map[named]named{"b": "1", "a": "2"}, F: 1e30, hidden: 1})
	same(t, &rest{})
	same(t, &rest{X: "x", N: "n", P: []*Inner{nil, {X: 1}}, M: map[string]Inner{"b": {}, "a": {Y: 1}}, Q: intstr.FromString("<"), R: runtime.RawExtension{Raw: []byte(`{"a": 1}`)}})
	same(t, map[string]any{"b": []any{nil, int64(7), true, "<", []any(nil), map[string]any(nil), 1, metav1.Time{}}, "a": 1.5})
	same(t, "text")
	same(t, (*corev1.Pod)(nil))
	same(t, &corev1.Secret{Data: map[string][]byte{"b": []byte("1"), "a": {}}})
	if _, err := Append(nil, &corev1.ServicePort{TargetPort: intstr.IntOrString{Type: 7}}); err == nil {
		t.Error("a port that is neither number nor name is written")
	}
}
