package wire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// managedPod has managed fields that are long, short, and in another form in JSON.
func managedPod() (pod any, body func(Media) []byte, shared [][]byte) {
	p := somePod("a")
	p.ManagedFields = nil
	for _, raw := range []string{
		`{"f:a":{"f:` + strings.Repeat("x", worthSharing) + `":{}}}`, `{"f:b":{}}`,
		`{"f:c":{"f:` + strings.Repeat("<", 100) + `":{},"f:` + strings.Repeat("x", worthSharing) + `":{}}}`, `{"f:d":{"f:` + strings.Repeat("y", worthSharing) + `":{}}}`,
	} {
		p.ManagedFields = append(p.ManagedFields, v1.ManagedFieldsEntry{Manager: "m", FieldsType: "FieldsV1", FieldsV1: &v1.FieldsV1{Raw: []byte(raw)}})
		shared = append(shared, []byte(raw))
	}
	return p, func(m Media) []byte {
		b, err := Body(p, m)
		if err != nil {
			panic(err)
		}
		return b
	}, shared
}

func TestTextInPiecesIsTheSame(t *testing.T) {
	_, body, shared := managedPod()
	gvk := schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	for _, m := range []Media{JSON, Protobuf, YAML} {
		whole := Plain(body(m))
		cut := Cut(body(m), shared)
		want := 2 // in JSON the third is written with escapes
		if m == Protobuf {
			want = 3
		}
		if len(cut.Shared) != want || len(cut.Bytes) > whole.Len()-want*worthSharing || cap(cut.Bytes) != len(cut.Bytes) {
			t.Errorf("%s: %d pieces are shared, %d of %d bytes are not", m.ContentType(), len(cut.Shared), cap(cut.Bytes), whole.Len())
		}
		if cut.Len() != whole.Len() || string(cut.Append(nil)) != string(whole.Bytes) {
			t.Errorf("%s: got %q", m.ContentType(), cut.Append(nil))
		}
		a, err1 := Document(gvk, whole, m)
		b, err2 := Document(gvk, cut, m)
		if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: the document is %q, want %q (%v, %v)", m.ContentType(), b, a, err1, err2)
		}
		if a, b := Event(nil, watch.Added, gvk, whole, m), Event(nil, watch.Added, gvk, cut, m); !bytes.Equal(a, b) {
			t.Errorf("%s: the event is %q, want %q", m.ContentType(), b, a)
		}
		var x, y bytes.Buffer
		for out, text := range map[*bytes.Buffer]Text{&x: whole, &y: cut} {
			two := func(yield func(Text, error) bool) { _ = yield(text, nil) && yield(text, nil) }
			twice := lengths(make([]byte, text.Len()), make([]byte, text.Len()))
			if err := List(out, gvk, &v1.ListMeta{}, two, twice, m); err != nil {
				t.Fatal(err)
			}
		}
		if x.String() != y.String() {
			t.Errorf("%s: the list is %q, want %q", m.ContentType(), y.String(), x.String())
		}
	}
}

func TestMetadataOfAText(t *testing.T) {
	pod, body, shared := managedPod()
	raw, err := json.Marshal(struct {
		Metadata any `json:"metadata"`
	}{pod.(interface{ GetObjectMeta() v1.Object }).GetObjectMeta()})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []Text{Cut(body(JSON), shared), Cut(body(JSON), nil)} {
		if got := "{" + string(text.AppendMetadata(nil)); got != string(raw) {
			t.Errorf("got  %s\nwant %s", got, raw)
		}
	}
	for body, want := range map[string]int{
		`{"metadata":{}}`: 14, `{"metadata":{"a":"}\"}"},"b":{}}`: 24, `{"a":{}}`: 0, `{}`: 0, ``: 0, `{"metadata":{`: 0,
	} {
		if got := metadataEnd([]byte(body)); got != want {
			t.Errorf("%s: %d, want %d", body, got, want)
		}
	}
}

func TestTextIsWrittenWhole(t *testing.T) {
	text := Text{Bytes: []byte("ade"), Shared: []Piece{{At: 1, Bytes: []byte("bc")}, {At: 3, Bytes: []byte("f")}}}
	var b bytes.Buffer
	out := bufio.NewWriter(&b)
	if err := text.write(out); err != nil {
		t.Fatal(err)
	}
	out.Flush()
	if b.String() != "abcdef" || string(text.Append(nil)) != "abcdef" || text.Len() != 6 {
		t.Errorf("%s %s", b.String(), text.Append(nil))
	}
}
