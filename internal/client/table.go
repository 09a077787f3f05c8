package client

import (
	"sync"

	"github.com/proa-dev/proa/internal/api"
)

// Table is a View in maps, for Conns that have no other copy of the objects.
type Table struct {
	kind *api.Kind

	mu      sync.RWMutex
	objects map[string]api.Object
	indexes map[string]map[string]map[string]api.Object // index → value → key → object
}

// NewTable for objects of a kind, empty.
func NewTable(k *api.Kind) *Table {
	t := &Table{kind: k, objects: map[string]api.Object{}, indexes: map[string]map[string]map[string]api.Object{}}
	for name := range k.Indexes {
		t.indexes[name] = map[string]map[string]api.Object{}
	}
	return t
}

// Put an object in and return what was there under its name, nil = nothing.
func (t *Table) Put(obj api.Object) api.Object {
	key := Key(obj.GetNamespace(), obj.GetName())
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.take(key)
	t.objects[key] = obj
	for name, f := range t.kind.Indexes {
		for _, v := range f(obj) {
			if t.indexes[name][v] == nil {
				t.indexes[name][v] = map[string]api.Object{}
			}
			t.indexes[name][v][key] = obj
		}
	}
	return old
}

// Remove an object and return what was there under its name, nil = nothing.
func (t *Table) Remove(namespace, name string) api.Object {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.take(Key(namespace, name))
}

func (t *Table) take(key string) api.Object {
	old, ok := t.objects[key]
	if !ok {
		return nil
	}
	delete(t.objects, key)
	for name, f := range t.kind.Indexes {
		for _, v := range f(old) {
			delete(t.indexes[name][v], key)
			if len(t.indexes[name][v]) == 0 {
				delete(t.indexes[name], v)
			}
		}
	}
	return old
}

// Get implements View.
func (t *Table) Get(namespace, name string) api.Object {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.objects[Key(namespace, name)]
}

// Each implements View, in no order. visit must not change the table.
func (t *Table) Each(namespace string, visit func(api.Object) bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, o := range t.objects {
		if (namespace == "" || o.GetNamespace() == namespace) && !visit(o) {
			return
		}
	}
}

// ByIndex implements View, in no order. visit must not change the table.
func (t *Table) ByIndex(index, value string, visit func(api.Object) bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, o := range t.indexes[index][value] {
		if !visit(o) {
			return
		}
	}
}

// Len implements View.
func (t *Table) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.objects)
}
