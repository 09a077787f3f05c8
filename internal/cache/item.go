package cache

import (
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
)

// Item is one version of one object. Everything in it is shared and immutable,
// but for what is remembered beside the object on first need.
type Item struct {
	Object   api.Object
	Revision int64 // the resourceVersion, as a number

	key  string // "namespace/name" or "name": where it stands in its set
	size int32  // bytes in the store
	err  error  // why there is no Object; such items are never seen outside
	kept *encodings

	binary atomic.Int32 // see BinaryLen

	mu     sync.Mutex
	memo   []memo
	bodies []*body
}

type memo struct {
	key   string
	value any
}

// newItem takes obj over and gives it its resourceVersion.
func newItem(key string, obj api.Object, revision int64, size int) *Item {
	obj.SetResourceVersion(strconv.FormatInt(revision, 10))
	return &Item{Object: obj, Revision: revision, key: key, size: int32(size)}
}

// newItem whose encoded bytes count among those of the cache.
func (c *Cache) newItem(key string, obj api.Object, revision int64, size int) *Item {
	i := newItem(key, obj, revision, size)
	i.kept = &c.encoded
	return i
}

// Size of the object in the store, in bytes.
func (i *Item) Size() int { return int(i.size) }

// BinaryLen is how many bytes the object's protobuf has (wire.BodyLen). It is told
// once: a list says before its items how long they are.
func (i *Item) BinaryLen() (int, error) {
	if n := i.binary.Load(); n > 0 {
		return int(n), nil
	}
	n, err := wire.BodyLen(i.Object)
	if err == nil {
		i.binary.Store(int32(n))
	}
	return n, err
}

// At is the same state under a later revision: what a deletion, or leaving a
// scope, shows of an object. It is made once for each version of the object.
func (i *Item) At(revision int64) *Item {
	v, _ := i.Remember("at "+strconv.FormatInt(revision, 10), func() (any, error) {
		twin := newItem(i.key, shallow(i.Object), revision, i.Size())
		twin.kept = i.kept
		return twin, nil
	})
	return v.(*Item)
}

// shallow copies an object as far as its resourceVersion, so that the copy can
// have another one; everything below is shared. Reflection copies the struct of
// any kind in about 0.2 µs, where DeepCopyObject takes 8 µs for a pod.
func shallow(obj api.Object) api.Object {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		top := make(map[string]any, len(u.Object))
		for k, v := range u.Object {
			top[k] = v
		}
		old, _ := u.Object["metadata"].(map[string]any)
		meta := make(map[string]any, len(old))
		for k, v := range old {
			meta[k] = v
		}
		top["metadata"] = meta
		return &unstructured.Unstructured{Object: top}
	}
	v := reflect.ValueOf(obj).Elem()
	twin := reflect.New(v.Type())
	twin.Elem().Set(v)
	return twin.Interface().(api.Object)
}

// Remember returns what is kept beside this version of the object under a key,
// making it on first need: its fields that can be selected by, its shape in another
// version. Two callers may make it at the same time; one result is kept. Encoded is
// for bytes.
func (i *Item) Remember(key string, make func() (any, error)) (any, error) {
	if v, ok := i.remembered(key); ok {
		return v, nil
	}
	v, err := make()
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, m := range i.memo {
		if m.key == key {
			return m.value, nil
		}
	}
	i.memo = append(i.memo, memo{key, v})
	return v, nil
}

func (i *Item) remembered(key string) (any, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, m := range i.memo {
		if m.key == key {
			return m.value, true
		}
	}
	return nil, false
}
