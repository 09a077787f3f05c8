package verbs

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/cache"
)

// Keys under which bodies are remembered beside an object.
const (
	jsonKey     = "json"
	protobufKey = "protobuf"
)

// Body is an item in the served shape and a media, without apiVersion and kind,
// made once per version of the object.
func Body(item *cache.Item, k api.Served, m wire.Media) ([]byte, error) {
	key := jsonKey
	if m == wire.Protobuf {
		key = protobufKey
	}
	if k.Shape != nil {
		key += k.Shape.Group + "/" + k.Shape.Version
	}
	body, err := item.Remember(key, func() (any, error) {
		obj, err := Shaped(item.Object, k)
		if err != nil {
			return nil, err
		}
		b, err := wire.Body(obj, m)
		return b, err
	})
	if err != nil {
		return nil, err
	}
	return body.([]byte), nil
}

// Shaped is obj in the served shape; a new object unless it has that already.
func Shaped(obj api.Object, k api.Served) (api.Object, error) {
	if k.Convert != nil {
		return converted(k.Kind, obj, k.GVK())
	}
	if k.Shape == nil {
		return obj, nil
	}
	return k.Shape.From(obj.DeepCopyObject().(api.Object)), nil
}

// converted is obj in a version, for kinds whose objects may be stored in any.
func converted(k *api.Kind, obj api.Object, to schema.GroupVersionKind) (api.Object, error) {
	if obj.GetObjectKind().GroupVersionKind() == to {
		return obj, nil
	}
	return k.Convert(obj.DeepCopyObject().(api.Object), to)
}

// inStorage is an item in the storage shape, which every write starts from.
func inStorage(k *api.Kind, item *cache.Item) (*cache.Item, error) {
	if k.Convert == nil {
		return item, nil
	}
	obj, err := converted(k, item.Object, k.GroupVersionKind)
	if err != nil || obj == item.Object {
		return item, err
	}
	return &cache.Item{Object: obj, Revision: item.Revision}, nil
}
