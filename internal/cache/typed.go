package cache

import "github.com/proa-dev/proa/internal/api"

// Typed reads one kind in its Go type. Objects are shared: do not change them.
type Typed[T api.Object] struct{ Reader }

// Get returns ok false when there is no such object.
func (t Typed[T]) Get(namespace, name string) (obj T, ok bool) {
	item := t.Reader.Get(namespace, name)
	if item == nil {
		return obj, false
	}
	return item.Object.(T), true
}

// Each visits a namespace's objects ("" = all) in key order until visit returns false.
func (t Typed[T]) Each(namespace string, visit func(T) bool) {
	t.Snapshot().Ascend(namespace, "", "", func(i *Item) bool { return visit(i.Object.(T)) })
}

// ByIndex visits the objects with a value in an index.
func (t Typed[T]) ByIndex(index, value string, visit func(T) bool) {
	t.Snapshot().ByIndex(index, value, func(i *Item) bool { return visit(i.Object.(T)) })
}
