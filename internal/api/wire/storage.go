package wire

import (
	"bytes"
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
)

// EncodeStorage is what the store keeps of obj, laid out as upstream lays it out
// in etcd. obj must be private to the caller: its resourceVersion is emptied, for
// that is the store's to know.
func EncodeStorage(kind *api.Kind, obj api.Object) ([]byte, error) {
	obj.SetResourceVersion("")
	if kind.Encoding == api.Protobuf {
		return Encode(kind.GroupVersionKind, obj, Protobuf)
	}
	if _, custom := obj.(*unstructured.Unstructured); custom {
		return Encode(schema.GroupVersionKind{}, obj, JSON)
	}
	return Encode(kind.GroupVersionKind, obj, JSON)
}

// DecodeStorage reads what the store keeps, with defaults and with the revision
// as resourceVersion. Values in either encoding and in any version of the kind
// are read, whoever wrote them.
func DecodeStorage(kind *api.Kind, data []byte, revision int64) (api.Object, error) {
	obj, err := decodeStored(kind, data)
	if err != nil {
		return nil, fmt.Errorf("stored %s: %w", kind.Kind, err)
	}
	obj.SetResourceVersion(strconv.FormatInt(revision, 10))
	return obj, nil
}

func decodeStored(kind *api.Kind, data []byte) (api.Object, error) {
	obj := kind.New()
	if u, custom := obj.(*unstructured.Unstructured); custom {
		if _, err := fromJSON(data, u, false); err != nil {
			return nil, err
		}
		if kind.Prune != nil {
			if _, err := kind.Prune(obj); err != nil {
				return nil, err
			}
		}
		if kind.Convert != nil { // when somebody reads it
			return toStorage(kind, nil, obj), nil
		}
		return toStorage(kind, shapeOf(kind.Shapes, u.GroupVersionKind()), obj), nil
	}
	gvk, raw, err := storedKind(data)
	if err != nil {
		return nil, err
	}
	var shape *api.Shape
	if gvk != kind.GroupVersionKind && gvk.Kind != "" {
		if shape = shapeOf(kind.Shapes, gvk); shape == nil {
			shape = shapeOf(kind.Stored, gvk)
		}
		if shape == nil {
			return nil, fmt.Errorf("the value is a %s, which is no version of %s", gvk, kind.GroupVersionKind)
		}
		if shape.New != nil {
			obj = shape.New()
		}
		if shape.To == nil {
			shape = nil
		}
	}
	if raw == nil {
		_, err = fromJSON(data, obj, false)
	} else if msg, ok := obj.(message); ok {
		err = msg.Unmarshal(raw)
	} else {
		err = fmt.Errorf("%T has no protobuf form", obj)
	}
	if err != nil {
		return nil, err
	}
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return toStorage(kind, shape, obj), nil
}

func shapeOf(shapes []api.Shape, gvk schema.GroupVersionKind) *api.Shape {
	for i := range shapes {
		if shapes[i].GroupVersionKind == gvk {
			return &shapes[i]
		}
	}
	return nil
}

// storedKind finds what a stored value says it is. raw is the message of a
// protobuf value, nil for JSON.
func storedKind(data []byte) (gvk schema.GroupVersionKind, raw []byte, err error) {
	if !bytes.HasPrefix(data, []byte(envelope)) {
		gvk, err = interpret(data)
		return gvk, nil, err
	}
	var unknown runtime.Unknown
	if err := unknown.Unmarshal(data[len(envelope):]); err != nil {
		return gvk, nil, err
	}
	if unknown.Raw == nil { // a message without fields
		unknown.Raw = []byte{}
	}
	gv, err := schema.ParseGroupVersion(unknown.APIVersion)
	return gv.WithKind(unknown.Kind), unknown.Raw, err
}
