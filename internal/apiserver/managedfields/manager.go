// Package managedfields keeps metadata.managedFields: who set which field, as
// server-side apply needs it (KEP-555).
//
// What a write changed is found by a walk over the two Go values, compiled once
// per type from its struct tags and the list types of its schema. Sets of fields
// are merged from what was read and written back only where they have changed.
// structured-merge-diff does what it alone can do: apply itself.
//
// Custom resources go the library's way, k8s.io/apimachinery's FieldManager. A
// test drives it and ours through the same writes; they differ on purpose in one
// thing: in lists that are one field the library compares Go values, to which an
// empty list and none, or 1 and 1000m, are a change. Here what a client sees counts.
package managedfields

import (
	"errors"
	"fmt"
	"reflect"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
)

// Manager keeps managed fields of the kinds of a catalog. Safe for concurrent use.
type Manager struct {
	catalog *api.Catalog
	types   *openapi.Types
	custom  func(schema.GroupVersionKind) managedfields.TypeConverter

	compiler compiler
	plans    sync.Map // reflect.Type -> *lazyPlan
}

// lazyPlan is a plan that is made when first needed.
type lazyPlan struct {
	once sync.Once
	plan *plan
	err  error
	zero api.Object                      // of the type, which nobody changes
	last atomic.Pointer[metav1.FieldsV1] // of what was created last
}

// New makes a manager. custom gives the type converter of a custom resource,
// made from its structural schema; nil (the function, or what it returns)
// deduces the types from the values, where every list is one field.
func New(catalog *api.Catalog, types *openapi.Types, custom func(schema.GroupVersionKind) managedfields.TypeConverter) *Manager {
	return &Manager{catalog: catalog, types: types, custom: custom}
}

// stripped are what is owned by nobody.
var stripped = setOf("apiVersion", "kind", "metadata", "metadata.name", "metadata.namespace", "metadata.creationTimestamp",
	"metadata.selfLink", "metadata.uid", "metadata.clusterName", "metadata.generation", "metadata.managedFields", "metadata.resourceVersion")

// Update sets obj's managed fields for a create, update or (other than apply)
// patch through the served kind. live is the object as it is stored, nil on
// create; obj is what shall be stored, defaulted and with its reset fields
// reset. Both are in the storage shape. manager is the field manager of the
// request ("" = unknown), sub the subresource written ("" = the object itself).
//
// Managed fields never stop a write: on an error obj has none, and the error is
// for the log.
func (m *Manager) Update(kind api.Served, live, obj api.Object, manager, sub string, now time.Time) error {
	if kind.Encoding != api.Protobuf {
		return m.updateCustom(kind, live, obj, manager, sub)
	}
	got, err := m.update(kind, live, obj, manager, sub, now)
	if err != nil {
		obj.SetManagedFields(nil)
		return fmt.Errorf("managed fields of %s %s: %w", kind.GVK().Kind, key(obj), err)
	}
	obj.SetManagedFields(got.encode(managed(live)))
	return nil
}

func key(obj api.Object) string {
	if obj.GetNamespace() == "" {
		return obj.GetName()
	}
	return obj.GetNamespace() + "/" + obj.GetName()
}

func (m *Manager) update(kind api.Served, live, obj api.Object, manager, sub string, now time.Time) (entries, error) {
	es := startWith(live, obj, sub)
	if len(es) == 0 && live != nil && live.GetUID() != "" {
		return nil, nil // an object that is not tracked stays so until it is applied
	}
	if manager == "" {
		manager = "unknown"
	}
	version := kind.GVK().GroupVersion().String()
	id := identify(manager, sub, version, metav1.ManagedFieldsOperationUpdate)
	if live == nil && len(es) == 0 {
		switch raw, err := m.created(kind, obj, version, sub); {
		case err == nil && raw == nil:
			return nil, nil
		case err == nil:
			return entries{{identity: id, apiVersion: version, time: stamp(now), raw: raw, unread: true}}, nil
		case !errors.Is(err, errUneven):
			return nil, err
		}
	}
	c := comparison{m: m, kind: kind, live: live, obj: obj}
	own, err := c.at(version, sub)
	if err != nil {
		return nil, err
	}
	if es, err = c.take(es, sub); err != nil {
		return nil, err
	}
	mine := minus(without(own.changed, resetFields(kind.Kind, sub)), stripped)
	if mine != nil {
		e := es.find(id)
		if e == nil {
			es = append(es, entry{identity: id, apiVersion: version})
			e = &es[len(es)-1]
		}
		if err := e.read(); err != nil {
			return nil, err
		}
		if all := union(mine, e.set); !equal(all, e.set) {
			e.change(all)
		}
		e.time = stamp(now)
	}
	return es.cap()
}

// created gives the fields of a new object in a version that its creator comes to own.
func (m *Manager) created(kind api.Served, obj api.Object, version, sub string) (*metav1.FieldsV1, error) {
	shape, ok := shapeOf(kind.Kind, version)
	if !ok {
		return nil, errUneven
	}
	obj = shaped(shape, obj)
	lazy, err := m.planned(obj)
	if err != nil {
		return nil, err
	}
	return lazy.created(obj, resetFields(kind.Kind, sub))
}

// startWith chooses whose entries a write starts from: those that the request
// sends, so that clients can edit them, or else those that are stored.
func startWith(live, obj api.Object, sub string) entries {
	stored := managed(live)
	if sub == "" {
		sent := obj.GetManagedFields()
		if isReset(sent) {
			return nil
		}
		if es, err := decode(sent, stored); err == nil && len(es) > 0 {
			return es
		}
	}
	es, err := decode(stored, stored)
	if err != nil {
		return nil
	}
	return es
}

// managed fields of an object, none of nil.
func managed(obj api.Object) []metav1.ManagedFieldsEntry {
	if obj == nil {
		return nil
	}
	return obj.GetManagedFields()
}

// isReset says that a client asks for all entries to be taken away: [] or [{}].
func isReset(fields []metav1.ManagedFieldsEntry) bool {
	if len(fields) == 0 {
		return fields != nil
	}
	return len(fields) == 1 && reflect.DeepEqual(fields[0], metav1.ManagedFieldsEntry{})
}

// comparison compares live and new in the versions that managers speak.
type comparison struct {
	m         *Manager
	kind      api.Served
	live, obj api.Object
	done      []versioned
}

type versioned struct {
	version          string
	plan             *plan // nil = the version is not served any more
	changed, removed *set
	compared         bool
	live, obj        any
}

// in gives the plan and values of a version.
func (c *comparison) in(version string) (*versioned, error) {
	for i := range c.done {
		if c.done[i].version == version {
			return &c.done[i], nil
		}
	}
	v := versioned{version: version}
	if shape, ok := shapeOf(c.kind.Kind, version); ok {
		obj := shaped(shape, c.obj)
		lazy, err := c.m.planned(obj)
		if err != nil {
			return nil, err
		}
		v.plan, v.live, v.obj = lazy.plan, any(lazy.zero), any(obj)
		if c.live != nil {
			v.live = shaped(shape, c.live)
		}
	}
	c.done = append(c.done, v)
	return &c.done[len(c.done)-1], nil
}

// shaped is an object in a shape, itself if that is the storage shape.
func shaped(shape *api.Shape, obj api.Object) api.Object {
	if shape == nil {
		return obj
	}
	return shape.From(obj.DeepCopyObject().(api.Object))
}

// shapeOf finds the shape of a version, nil = the storage shape.
func shapeOf(kind *api.Kind, version string) (*api.Shape, bool) {
	if kind.GroupVersion().String() == version {
		return nil, true
	}
	for i := range kind.Shapes {
		if kind.Shapes[i].GroupVersion().String() == version {
			return &kind.Shapes[i], true
		}
	}
	return nil, false
}

// at compares live and new in a version, but for reset fields.
func (c *comparison) at(version, sub string) (*versioned, error) {
	v, err := c.in(version)
	if err != nil || v.plan == nil || v.compared {
		return v, err
	}
	changed, removed, err := diff(v.plan, v.live, v.obj)
	if err != nil {
		return nil, err
	}
	reset := resetFields(c.kind.Kind, sub)
	v.changed, v.removed, v.compared = without(changed, reset), without(removed, reset), true
	return v, nil
}

// take takes from all managers what was changed or removed. It drops managers
// whose version is gone, and brings sets that were written under another schema
// (of a list or map that is one field by now) into line.
func (c *comparison) take(es entries, sub string) (entries, error) {
	var failed error
	es = es.remove(func(e *entry) bool {
		v, err := c.at(e.apiVersion, sub)
		if err != nil {
			failed = err
			return false
		}
		if v.plan == nil {
			return true
		}
		if !e.touches(v.changed) && !e.touches(v.removed) {
			return false
		}
		if err := e.read(); err != nil {
			failed = err
			return false
		}
		e.change(settled(v.plan, e.set))
		e.change(minus(minus(e.set, v.changed), v.removed))
		return e.set.empty()
	})
	return es, failed
}

// plan is the plan of an object's type.
func (m *Manager) plan(obj api.Object) (*plan, error) {
	lazy, err := m.planned(obj)
	return lazy.plan, err
}

func (m *Manager) planned(obj api.Object) (*lazyPlan, error) {
	t := reflect.TypeOf(obj).Elem()
	got, ok := m.plans.Load(t)
	if !ok {
		got, _ = m.plans.LoadOrStore(t, &lazyPlan{})
	}
	lazy := got.(*lazyPlan)
	lazy.once.Do(func() {
		lazy.zero = reflect.New(t).Interface().(api.Object)
		of, err := openapi.ReadType(openapi.NameOf(obj))
		if err != nil {
			lazy.err = err
			return
		}
		lazy.plan, lazy.err = m.compiler.compile(t, of)
	})
	return lazy, lazy.err
}

// settled is a set without what lies below a field that is whole: the field
// takes its place. It is s itself when that changes nothing.
func settled(p *plan, s *set) *set {
	if s == nil {
		return nil
	}
	var out *set
	for i, e := range s.elems {
		at := p.below(e.key)
		if at == nil || e.child == nil && e.member {
			if out != nil {
				out.elems = append(out.elems, e)
			}
			continue
		}
		n := e
		if whole := at.atomic && (at.form != leaf); whole {
			n.member, n.child = true, nil
		} else {
			n.child = settled(at, e.child)
		}
		if n != e && out == nil {
			out = &set{elems: append([]elem(nil), s.elems[:i]...)}
		}
		if out != nil {
			out.keep(n.key, n.member, n.child)
		}
	}
	if out == nil {
		return s
	}
	return out
}

// below is the plan of what a path element leads to, nil when the schema does not know it.
func (p *plan) below(key string) *plan {
	switch p.form {
	case structure:
		if f := p.field(key); f != nil {
			return f.plan
		}
	case dict, list:
		return p.elem
	}
	return nil
}

// field is the field of a structure with a key.
func (p *plan) field(key string) *fieldPlan {
	i := sort.Search(len(p.fields), func(i int) bool { return p.fields[i].key >= key })
	if i < len(p.fields) && p.fields[i].key == key {
		return &p.fields[i]
	}
	return nil
}
