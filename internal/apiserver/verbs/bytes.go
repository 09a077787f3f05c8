package verbs

import (
	"errors"
	"iter"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/cache"
)

// protobufBody is the key under which protobuf is kept beside an object.
const protobufBody = "protobuf"

// bodyIn is the key of the storage version in a media.
func bodyIn(m wire.Media) string {
	if m == wire.Protobuf {
		return protobufBody
	}
	return cache.JSONBody
}

// Body is an item in the served shape and a media, without apiVersion and kind,
// made once per version of the object as long as there is room to keep it.
func Body(item *cache.Item, k api.Served, m wire.Media) (wire.Text, error) {
	return item.Encoded(inVersion(bodyIn(m), k), func() (wire.Text, error) {
		obj, err := ShapedItem(item, k)
		if err != nil {
			return wire.Text{}, err
		}
		if obj == item.Object {
			return wire.BodyText(obj, m)
		}
		body, err := wire.Body(obj, m)
		if err != nil {
			return wire.Text{}, err
		}
		return wire.Cut(body, wire.Managed(item.Object)), nil
	})
}

// AppendDocument appends an item in the served shape.
func AppendDocument(dst []byte, item *cache.Item, k api.Served, m wire.Media) ([]byte, error) {
	body, err := Body(item, k, m)
	if err != nil {
		return nil, err
	}
	return wire.AppendDocument(dst, DocumentKind(k, item.Object), body, m)
}

// Listed is Body for one who reads many objects: where Body would drop what is kept
// for others, the text is made in scratch, and is good until that is used again.
func Listed(item *cache.Item, k api.Served, m wire.Media, scratch *[]byte) (wire.Text, error) {
	if kept, ok := listed(item, k, m); ok {
		return kept, nil
	}
	if item.Room() || k.Shape != nil || k.Convert != nil {
		return Body(item, k, m)
	}
	body, err := appendBody((*scratch)[:0], item, m)
	*scratch = body
	return wire.Plain(body), err
}

// Each says something of every item of a list.
func Each[T any](list *List, of func(*cache.Item) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, item := range list.Items {
			if !yield(of(item)) {
				return
			}
		}
	}
}

func appendBody(dst []byte, item *cache.Item, m wire.Media) ([]byte, error) {
	if m != wire.Protobuf {
		return wire.AppendBody(dst, item.Object, m)
	}
	n, err := item.BinaryLen()
	if err != nil {
		return dst, err
	}
	return wire.AppendProtobuf(dst, item.Object, n)
}

// listed is what is kept of an item in its storage version.
func listed(item *cache.Item, k api.Served, m wire.Media) (wire.Text, bool) {
	if k.Shape != nil || k.Convert != nil {
		return wire.Text{}, false
	}
	return item.HasEncoded(bodyIn(m))
}

// ListedLen is how long the text is that Listed returns for protobuf.
func ListedLen(item *cache.Item, k api.Served) (int, error) {
	if kept, ok := listed(item, k, wire.Protobuf); ok {
		return kept.Len(), nil
	}
	if k.Shape != nil || k.Convert != nil {
		body, err := Body(item, k, wire.Protobuf)
		return body.Len(), err
	}
	return item.BinaryLen()
}

// inVersion is the key under which something that differs from version to version
// is remembered.
func inVersion(key string, k api.Served) string {
	if k.Shape == nil {
		return key
	}
	return key + k.Shape.Group + "/" + k.Shape.Version
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

// ShapedItem is the object of an item in the served shape. What is costly to
// convert is converted once.
func ShapedItem(item *cache.Item, k api.Served) (api.Object, error) {
	if !costly(item, k) {
		return Shaped(item.Object, k)
	}
	obj, err := item.Remember(inVersion("shaped", k), func() (any, error) { return Shaped(item.Object, k) })
	if err != nil {
		return nil, err
	}
	return obj.(api.Object), nil
}

// costly says that somebody has to be asked for an item in the served shape.
func costly(item *cache.Item, k api.Served) bool {
	return k.ConvertAll != nil && item.Object.GetObjectKind().GroupVersionKind() != k.GVK()
}

// Items are converted together up to as many, and to as many bytes. A batch has
// one at least.
const (
	batchItems = 250
	batchBytes = 2 << 20
)

// ShapeAll makes sure that items can be had in the served shape without asking
// anybody: those that are costly to convert are converted together.
func ShapeAll(items []*cache.Item, k api.Served) error {
	if k.ConvertAll == nil {
		return nil
	}
	var batch []*cache.Item
	size := 0
	convert := func() error {
		if len(batch) == 0 {
			return nil
		}
		objs := make([]api.Object, len(batch))
		for i, item := range batch {
			objs[i] = item.Object
		}
		out, err := k.ConvertAll(objs, k.GVK())
		if err != nil {
			return err
		}
		for i, item := range batch {
			item.Remember(inVersion("shaped", k), func() (any, error) { return out[i], nil }) //nolint:errcheck // it is there
		}
		batch, size = batch[:0], 0
		return nil
	}
	for _, item := range items {
		if !costly(item, k) || remembers(item, k) {
			continue
		}
		if len(batch) == batchItems || len(batch) > 0 && size+item.Size() > batchBytes {
			if err := convert(); err != nil {
				return err
			}
		}
		batch, size = append(batch, item), size+item.Size()
	}
	return convert()
}

// remembers says that an item has been converted before.
func remembers(item *cache.Item, k api.Served) bool {
	_, err := item.Remember(inVersion("shaped", k), func() (any, error) { return nil, errNotYet })
	return err == nil
}

var errNotYet = errors.New("not converted yet")

// converted is obj in a version, for kinds whose objects may be stored in any.
func converted(k *api.Kind, obj api.Object, to schema.GroupVersionKind) (api.Object, error) {
	if obj.GetObjectKind().GroupVersionKind() == to {
		return obj, nil
	}
	return k.Convert(obj.DeepCopyObject().(api.Object), to)
}

// inHub is an item in the shape that a request works on: the storage shape, or
// the version it is in, for kinds whose versions are kinds of their own.
func inHub(k api.Served, item *cache.Item) (*cache.Item, error) {
	if k.Convert == nil {
		return item, nil
	}
	obj, err := ShapedItem(item, k)
	if err != nil || obj == item.Object {
		return item, err
	}
	return &cache.Item{Object: obj, Revision: item.Revision}, nil
}

// toStore is an object that a request worked on as it is kept, with the defaults
// that it would have when it is read again.
func toStore(k *api.Kind, obj api.Object) (api.Object, error) {
	if k.Convert == nil || obj.GetObjectKind().GroupVersionKind() == k.GroupVersionKind {
		return obj, nil
	}
	out, err := converted(k, obj, k.GroupVersionKind)
	if err == nil && k.Default != nil {
		k.Default(out)
	}
	return out, err
}

// outdated says that an item is kept in a version that is not the one that the
// kind is stored in now: any write of it brings it into that.
func outdated(k *api.Kind, item *cache.Item) bool {
	return k.Convert != nil && item.Object.GetObjectKind().GroupVersionKind() != k.GroupVersionKind
}
