package wire

import (
	"bufio"
	"bytes"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire/objectjson"
)

// Text is an encoded body in pieces: what the object has for itself, and what it has
// in common with others and is kept once for all of them.
type Text struct {
	Bytes  []byte
	Shared []Piece
	// Meta is where in Bytes the metadata ends, in JSON that begins with
	// {"metadata":{…}; 0 = it does not begin so.
	Meta int
}

// Piece of a text, which stands before Bytes[At]. A text's are in order.
type Piece = objectjson.Piece

// Plain is a text of one piece.
func Plain(body []byte) Text { return Text{Bytes: body} }

// Len is the length of all pieces.
func (t Text) Len() int {
	n := len(t.Bytes)
	for _, p := range t.Shared {
		n += len(p.Bytes)
	}
	return n
}

// Append all pieces.
func (t Text) Append(dst []byte) []byte { return t.append(dst, 0, len(t.Bytes)) }

// append the pieces from one place in Bytes to another, with what is shared between.
func (t Text) append(dst []byte, from, to int) []byte {
	for _, p := range t.Shared {
		if p.At <= from || p.At > to {
			continue
		}
		dst = append(append(dst, t.Bytes[from:p.At]...), p.Bytes...)
		from = p.At
	}
	return append(dst, t.Bytes[from:to]...)
}

// write all pieces.
func (t Text) write(out *bufio.Writer) error {
	from := 0
	for _, p := range t.Shared {
		out.Write(t.Bytes[from:p.At])
		out.Write(p.Bytes)
		from = p.At
	}
	_, err := out.Write(t.Bytes[from:]) // an error of the writer stays with it
	return err
}

// AppendMetadata appends the metadata of JSON that begins with it, from its key to
// the bracket behind it: "metadata":{…}}. Meta must not be 0.
func (t Text) AppendMetadata(dst []byte) []byte {
	return append(t.append(dst, len("{"), t.Meta), '}')
}

// Managed are the bytes of an object's managed fields, of which many objects have the
// same: what its text may be cut by.
func Managed(obj api.Object) (all [][]byte) {
	if _, custom := obj.(runtime.Unstructured); custom {
		return nil
	}
	fields := obj.GetManagedFields()
	for i := range fields {
		if f := fields[i].FieldsV1; f != nil {
			all = append(all, f.GetRawBytes())
		}
	}
	return all
}

// worthSharing is how long a piece is for which a text is cut.
const worthSharing = 256

// Cut a body where it says what is kept elsewhere, too. shared are the bytes, in the
// order in which the body has them; those that are short or that it has in another
// form are left in it. body is not used any more.
func Cut(body []byte, shared [][]byte) Text {
	meta := metadataEnd(body)
	var few [8]Piece
	found := few[:0] // At in body
	at, size := 0, len(body)
	for _, piece := range shared {
		if len(piece) < worthSharing {
			continue
		}
		if i := bytes.Index(body[at:], piece); i > 0 {
			found = append(found, Piece{At: at + i, Bytes: piece})
			at, size = at+i+len(piece), size-len(piece)
		}
	}
	if len(found) == 0 {
		return Text{Bytes: body, Meta: meta}
	}
	t := Text{Bytes: make([]byte, 0, size), Shared: make([]Piece, len(found)), Meta: meta}
	last := 0
	for i, p := range found {
		t.Bytes = append(t.Bytes, body[last:p.At]...)
		t.Shared[i] = Piece{At: len(t.Bytes), Bytes: p.Bytes}
		if last = p.At + len(p.Bytes); last <= meta {
			t.Meta -= len(p.Bytes)
		}
	}
	t.Bytes = append(t.Bytes, body[last:]...)
	return t
}

// metadataEnd is where the metadata ends in a body in JSON that begins with it, as
// those of all typed objects do. 0 = the body begins with something else.
func metadataEnd(body []byte) int {
	const head = `{"metadata":{`
	if !bytes.HasPrefix(body, []byte(head)) {
		return 0
	}
	depth := 1
	for i := len(head); i < len(body); i++ {
		switch body[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1
			}
		case '"':
			for i++; i < len(body) && body[i] != '"'; i++ {
				if body[i] == '\\' {
					i++
				}
			}
		}
	}
	return 0
}
