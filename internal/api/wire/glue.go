package wire

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"io"
	"iter"
	"strconv"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/yaml"
)

// Document is a whole object: the body with apiVersion and kind in front, in
// the envelope for protobuf. An empty gvk says that the body names its kind
// itself, as those of custom resources do. JSON ends in a line end.
func Document(gvk schema.GroupVersionKind, body Text, m Media) ([]byte, error) {
	return AppendDocument(make([]byte, 0, body.Len()+96), gvk, body, m)
}

// AppendDocument is Document behind what dst has already.
func AppendDocument(dst []byte, gvk schema.GroupVersionKind, body Text, m Media) ([]byte, error) {
	switch m {
	case Protobuf:
		return appendEnvelope(dst, gvk, body), nil
	case YAML:
		text, err := yaml.JSONToYAML(appendJSON(nil, gvk, body))
		return append(dst, text...), err
	}
	return append(appendJSON(dst, gvk, body), '\n'), nil
}

func appendJSON(dst []byte, gvk schema.GroupVersionKind, body Text) []byte {
	if gvk.Empty() {
		return body.Append(dst)
	}
	dst = append(dst, `{"kind":`...)
	dst = strconv.AppendQuote(dst, gvk.Kind)
	dst = append(dst, `,"apiVersion":`...)
	dst = strconv.AppendQuote(dst, apiVersion(gvk))
	if len(body.Bytes) > len("{}") {
		dst = append(dst, ',')
	}
	return body.append(dst, len("{"), len(body.Bytes))
}

// The protobuf below is that of k8s.io/apimachinery/pkg/runtime.Unknown
// {typeMeta 1, raw 2, contentEncoding 3, contentType 4}, whose TypeMeta is
// {apiVersion 1, kind 2}; of lists {metadata 1, items 2}; and of
// metav1.WatchEvent {type 1, object 2 {raw 1}}.

func appendEnvelope(dst []byte, gvk schema.GroupVersionKind, raw Text) []byte {
	dst = appendEnvelopeHead(dst, gvk, raw.Len())
	dst = raw.Append(dst)
	return append(dst, envelopeTail...)
}

func appendEnvelopeHead(dst []byte, gvk schema.GroupVersionKind, raw int) []byte {
	version := apiVersion(gvk)
	meta := lengthField(len(version)) + lengthField(len(gvk.Kind))
	dst = append(dst, envelope...)
	dst = appendLength(dst, 1, meta)
	dst = append(appendLength(dst, 1, len(version)), version...)
	dst = append(appendLength(dst, 2, len(gvk.Kind)), gvk.Kind...)
	return appendLength(dst, 2, raw)
}

// envelopeTail is an empty contentEncoding and contentType.
const envelopeTail = "\x1a\x00\x22\x00"

// appendLength begins a length-delimited field.
func appendLength(dst []byte, field, n int) []byte {
	dst = append(dst, byte(field<<3|2))
	return binary.AppendUvarint(dst, uint64(n))
}

// lengthField is how many bytes a length-delimited field of n bytes takes.
func lengthField(n int) int {
	size := 2 + n
	for v := n; v >= 0x80; v >>= 7 {
		size++
	}
	return size
}

// List writes a list document of many bodies. gvk is the list's ("PodList").
// Protobuf says before all bodies how long they are: that is what lengths are for.
// The first error of either ends the list, and nothing can mend what was written.
func List(w io.Writer, gvk schema.GroupVersionKind, meta *metav1.ListMeta, bodies iter.Seq2[Text, error], lengths iter.Seq2[int, error], m Media) error {
	switch m {
	case Protobuf:
		return listProtobuf(w, gvk, meta, bodies, lengths)
	case YAML:
		return listYAML(w, gvk, meta, bodies)
	}
	out := Buffer(w)
	defer Done(out)
	if err := listJSON(out, gvk, meta, bodies); err != nil {
		return err
	}
	return out.Flush()
}

// listBuffers are large, and used again. net/http frames what it is given as a chunk,
// of which the first 4 kB (less the end of the chunk before, and this one's length)
// become a TLS record with a write of its own: the rest is a whole number of records,
// 16 kB each, and many.
var listBuffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 4<<10-9+15*16<<10) }}

// Buffer is a large buffer to write an answer of many objects through; Done gives it back.
func Buffer(w io.Writer) *bufio.Writer {
	out := listBuffers.Get().(*bufio.Writer)
	out.Reset(w)
	return out
}

// Done with a Buffer: what was not flushed is lost.
func Done(out *bufio.Writer) {
	out.Reset(nil)
	listBuffers.Put(out)
}

func listJSON(out *bufio.Writer, gvk schema.GroupVersionKind, meta *metav1.ListMeta, bodies iter.Seq2[Text, error]) error {
	head, err := json.Marshal(struct {
		Metadata *metav1.ListMeta `json:"metadata"`
	}{meta})
	if err != nil {
		return err
	}
	head = appendJSON(nil, gvk, Plain(head))
	out.Write(head[:len(head)-1])
	out.WriteString(`,"items":[`)
	first := true
	for body, err := range bodies {
		if err != nil {
			return err
		}
		if !first {
			out.WriteByte(',')
		}
		first = false
		if err := body.write(out); err != nil {
			return err
		}
	}
	_, err = out.WriteString("]}\n")
	return err
}

func listProtobuf(w io.Writer, gvk schema.GroupVersionKind, meta *metav1.ListMeta, bodies iter.Seq2[Text, error], lengths iter.Seq2[int, error]) error {
	head, err := meta.Marshal()
	if err != nil {
		return err
	}
	size := lengthField(len(head))
	for n, err := range lengths {
		if err != nil {
			return err
		}
		size += lengthField(n)
	}
	out := Buffer(w)
	defer Done(out)
	scratch := appendEnvelopeHead(nil, gvk, size)
	scratch = append(appendLength(scratch, 1, len(head)), head...)
	out.Write(scratch)
	for body, err := range bodies {
		if err != nil {
			return err
		}
		out.Write(appendLength(scratch[:0], 2, body.Len()))
		if err := body.write(out); err != nil {
			return err
		}
	}
	out.WriteString(envelopeTail)
	return out.Flush()
}

// Event is one frame of a watch: a line of JSON, a length-delimited protobuf
// message, or a YAML document. It is appended to dst. An empty gvk says that the
// body names its kind itself. The object of an ERROR event is a Status.
func Event(dst []byte, event watch.EventType, gvk schema.GroupVersionKind, body Text, m Media) []byte {
	switch m {
	case Protobuf:
		return eventProtobuf(dst, event, gvk, body)
	case YAML:
		return eventYAML(dst, event, gvk, body)
	}
	dst = append(dst, `{"type":"`...)
	dst = append(dst, event...)
	dst = append(dst, `","object":`...)
	dst = appendJSON(dst, gvk, body)
	return append(dst, '}', '\n')
}

func eventProtobuf(dst []byte, event watch.EventType, gvk schema.GroupVersionKind, body Text) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0) // the frame's length, known at the end
	dst = append(appendLength(dst, 1, len(event)), event...)
	object := len(appendEnvelopeHead(nil, gvk, body.Len())) + body.Len() + len(envelopeTail)
	dst = appendLength(dst, 2, lengthField(object))
	dst = appendLength(dst, 1, object)
	dst = appendEnvelope(dst, gvk, body)
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}
