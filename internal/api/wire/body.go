package wire

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// message is what k8s.io/api's generated protobuf code gives a type.
type message interface {
	Reset()
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// Body is obj without apiVersion and kind: a JSON object (no line end), or a
// bare protobuf message. Unstructured objects keep apiVersion and kind, for
// they have no other place to say them. obj is not changed. For YAML the body
// is the JSON one.
//
// An object that has no protobuf form is an error for Protobuf.
func Body(obj runtime.Object, m Media) ([]byte, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		if m == Protobuf {
			return nil, fmt.Errorf("%s has no protobuf form, ask for application/json", u.GroupVersionKind())
		}
		return json.Marshal(u.Object)
	}
	if !obj.GetObjectKind().GroupVersionKind().Empty() {
		obj = obj.DeepCopyObject()
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	}
	if m != Protobuf {
		return json.Marshal(obj)
	}
	msg, ok := obj.(message)
	if !ok {
		return nil, fmt.Errorf("%T has no protobuf form, ask for application/json", obj)
	}
	return msg.Marshal()
}

// Encode is Body and Document in one, for what is sent only once.
func Encode(gvk schema.GroupVersionKind, obj runtime.Object, m Media) ([]byte, error) {
	body, err := Body(obj, m)
	if err != nil {
		return nil, err
	}
	return Document(gvk, Plain(body), m)
}
