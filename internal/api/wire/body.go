package wire

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire/objectjson"
)

// message is what k8s.io/api's generated protobuf code gives a type.
type message interface {
	Reset()
	Marshal() ([]byte, error)
	Size() int
	MarshalToSizedBuffer([]byte) (int, error)
	Unmarshal([]byte) error
}

// Body is obj without apiVersion and kind: a JSON object (no line end), or a
// bare protobuf message. Unstructured objects keep apiVersion and kind, for
// they have no other place to say them. obj is not changed. For YAML the body
// is the JSON one.
//
// An object that has no protobuf form is an error for Protobuf.
func Body(obj runtime.Object, m Media) ([]byte, error) {
	obj, msg, err := encodable(obj, m)
	switch {
	case err != nil:
		return nil, err
	case msg != nil:
		return msg.Marshal()
	}
	return objectjson.Marshal(content(obj))
}

// AppendBody appends what Body returns.
func AppendBody(dst []byte, obj runtime.Object, m Media) ([]byte, error) {
	obj, msg, err := encodable(obj, m)
	switch {
	case err != nil:
		return dst, err
	case msg != nil:
		return appendMessage(dst, msg, msg.Size())
	}
	return objectjson.Append(dst, content(obj))
}

// AppendProtobuf is AppendBody for protobuf of which BodyLen is known.
func AppendProtobuf(dst []byte, obj runtime.Object, size int) ([]byte, error) {
	_, msg, err := encodable(obj, Protobuf)
	if err != nil {
		return dst, err
	}
	return appendMessage(dst, msg, size)
}

// appendMessage appends a message of so many bytes.
func appendMessage(dst []byte, msg message, size int) ([]byte, error) {
	at := len(dst)
	dst = slices.Grow(dst, size)[:at+size]
	n, err := msg.MarshalToSizedBuffer(dst[at:])
	if err == nil && n != size {
		err = fmt.Errorf("%T has %d bytes of protobuf, not %d", msg, n, size)
	}
	return dst, err
}

// BodyLen is how long what Body returns for protobuf is.
func BodyLen(obj runtime.Object) (int, error) {
	_, msg, err := encodable(obj, Protobuf)
	if err != nil {
		return 0, err
	}
	return msg.Size(), nil
}

// encodable is what of an object is encoded, and for protobuf by what.
func encodable(obj runtime.Object, m Media) (runtime.Object, message, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		if m == Protobuf {
			return nil, nil, fmt.Errorf("%s has no protobuf form, ask for application/json", u.GroupVersionKind())
		}
		return obj, nil, nil
	}
	obj = bare(obj)
	if m != Protobuf {
		return obj, nil, nil
	}
	msg, ok := obj.(message)
	if !ok {
		return nil, nil, fmt.Errorf("%T has no protobuf form, ask for application/json", obj)
	}
	return obj, msg, nil
}

// content of an object, as it is written in JSON.
func content(obj runtime.Object) any {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return u.Object
	}
	return obj
}

// bare is obj without apiVersion and kind; obj is not changed.
func bare(obj runtime.Object) runtime.Object {
	if obj.GetObjectKind().GroupVersionKind().Empty() {
		return obj
	}
	obj = obj.DeepCopyObject()
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return obj
}

// BodyText is Body of an object that is kept, cut where it has bytes in memory as
// the body has them.
func BodyText(obj api.Object, m Media) (Text, error) {
	_, custom := obj.(runtime.Unstructured)
	if m == Protobuf || custom {
		body, err := Body(obj, m)
		if err != nil {
			return Text{}, err
		}
		return Cut(body, Managed(obj)), nil
	}
	t, err := objectjson.Cut(bare(obj), worthSharing)
	return Text{Bytes: t.Bytes, Shared: t.Pieces, Meta: t.Meta}, err
}

// Encode is Body and Document in one, for what is sent only once.
func Encode(gvk schema.GroupVersionKind, obj runtime.Object, m Media) ([]byte, error) {
	if m == Protobuf {
		return encodeEnvelope(gvk, obj)
	}
	body, err := Body(obj, m)
	if err != nil {
		return nil, err
	}
	return Document(gvk, Plain(body), m)
}

// encodeEnvelope writes the object where it stays, in the envelope.
func encodeEnvelope(gvk schema.GroupVersionKind, obj runtime.Object) ([]byte, error) {
	_, msg, err := encodable(obj, Protobuf)
	if err != nil {
		return nil, err
	}
	size := msg.Size()
	dst := appendEnvelopeHead(make([]byte, 0, size+96), gvk, size)
	if dst, err = appendMessage(dst, msg, size); err != nil {
		return nil, err
	}
	return append(dst, envelopeTail...), nil
}
