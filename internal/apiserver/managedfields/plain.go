package managedfields

import (
	"encoding/json"
	"errors"
	"reflect"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
)

// applyPlain applies the plain case right on a copy of the Go value: one version,
// nothing given up since the manager's last apply, no conflict, no nulls, no zeros
// spelt out, no reordering. It returns nil for all else, errors included: the
// library, which gives the same result in the plain case, decides that.
func (m *Manager) applyPlain(kind api.Served, live api.Object, config *unstructured.Unstructured, manager, sub string, force bool, now time.Time) api.Object {
	version := kind.GVK().GroupVersion().String()
	if kind.Encoding != api.Protobuf || kind.Shape != nil || config.GroupVersionKind() != kind.GVK() {
		return nil
	}
	if kind.GroupResource() == (schema.GroupResource{Resource: "pods"}) && sub != "" && sub != "status" {
		return nil // owned are only certain paths
	}
	if manager == "" || manager == "kubectl" { // kubectl may take over what it applied on the client side
		return nil
	}
	var es entries
	base := live
	if live == nil {
		base = kind.New()
	} else {
		var err error
		stored := live.GetManagedFields()
		if es, err = decode(stored, stored); err != nil || len(es) == 0 {
			return nil
		}
	}
	for i := range es {
		if es[i].apiVersion != version {
			return nil
		}
	}
	p, err := m.plan(base)
	if err != nil {
		return nil
	}
	reset := resetFields(kind.Kind, sub)
	wanted := m.configured(base, config)
	if wanted == nil {
		return nil
	}

	obj := base.DeepCopyObject().(api.Object)
	obj.SetManagedFields(nil)
	if graftObject(p, obj, config.Object) != nil {
		return nil
	}
	there, _, err := diff(p, kind.New(), obj)
	if err != nil || minus(wanted, there) != nil {
		return nil // something that the Go value does not hold as it was written
	}
	changed, removed, err := diff(p, base, obj)
	if err != nil || removed != nil {
		return nil
	}
	changed = asked(without(changed, reset), wanted)

	id := identify(manager, sub, version, metav1.ManagedFieldsOperationApply)
	own := minus(without(wanted, reset), stripped)
	mine := es.find(id)
	if mine != nil && (mine.read() != nil || minus(mine.set, own) != nil) {
		return nil
	}
	failed := false
	es = es.remove(func(e *entry) bool {
		if e.identity == id || !e.touches(changed) {
			return false
		}
		failed = failed || e.read() != nil
		e.change(settled(p, e.set))
		left := minus(e.set, changed)
		failed = failed || !force && left != e.set
		e.change(left)
		return left.empty()
	})
	if failed {
		return nil
	}
	mine = es.find(id)
	switch {
	case own == nil:
		es = es.remove(func(e *entry) bool { return e.identity == id })
		mine = nil
	case mine == nil:
		es = append(es, entry{identity: id, apiVersion: version})
		mine = &es[len(es)-1]
		fallthrough
	default:
		if !equal(mine.set, own) {
			mine.change(own)
		}
	}
	if live == nil || base.GetName() != obj.GetName() || base.GetNamespace() != obj.GetNamespace() ||
		!p.equal(reflect.ValueOf(base).Elem(), reflect.ValueOf(obj).Elem()) {
		if mine != nil {
			mine.time = stamp(now)
		}
		if kind.Default != nil {
			kind.Default(obj)
		}
	}
	obj.SetManagedFields(es.encode(managed(live)))
	return obj
}

// configured is what a configuration sets, nil if it does not fit the schema.
func (m *Manager) configured(obj api.Object, config *unstructured.Unstructured) *set {
	t, err := m.types.Type(openapi.NameOf(obj))
	if err != nil {
		return nil
	}
	v, err := t.FromUnstructured(config.Object)
	if err != nil {
		return nil
	}
	found, err := v.ToFieldSet()
	if err != nil {
		return nil
	}
	out := &set{}
	ownSet(out, found)
	return minus(made(out), stripped)
}

// ownSet copies a set of the library's into ours.
func ownSet(into *set, from *fieldpath.Set) {
	from.Members.Iterate(func(pe fieldpath.PathElement) { into.at(keyOf(pe)).member = true })
	from.Children.Iterate(func(pe fieldpath.PathElement) {
		below, _ := from.Children.Get(pe)
		child := &set{}
		ownSet(child, below)
		into.at(keyOf(pe)).child = made(child)
	})
}

func keyOf(pe fieldpath.PathElement) string {
	if pe.FieldName != nil {
		return "f:" + *pe.FieldName
	}
	key, err := fieldpath.SerializePathElement(pe)
	if err != nil {
		return "" // cannot be: the library made it from a value
	}
	return key
}

// asked is what of the changes was asked for, with what lies above it: without
// the empty fields that a Go value has though nobody wrote them.
func asked(changed, wanted *set) *set {
	if changed.empty() || wanted.empty() {
		return nil
	}
	out := &set{}
	zip(changed, wanted, func(x, y elem) {
		child := asked(x.child, y.child)
		out.keep(x.key, x.member && (y.member || child != nil), child)
	})
	return made(out)
}

// errNotPlain says that a configuration is none that graft knows how to merge.
var errNotPlain = errors.New("not a plain merge")

// graftObject merges a configuration into an object. What it says of the
// object's own name and place must be what the object says, if that says anything.
func graftObject(p *plan, obj api.Object, config map[string]any) error {
	rest := make(map[string]any, len(config))
	for name, v := range config {
		switch name {
		case "apiVersion", "kind":
		case "metadata":
			given, ok := v.(map[string]any)
			if !ok {
				return errNotPlain
			}
			left := make(map[string]any, len(given))
			for name, v := range given {
				s, isString := v.(string)
				switch {
				case name == "name" && isString && (obj.GetName() == "" || obj.GetName() == s):
					obj.SetName(s)
				case name == "namespace" && isString && (obj.GetNamespace() == "" || obj.GetNamespace() == s):
					obj.SetNamespace(s)
				default:
					left[name] = v
				}
			}
			rest[name] = left
		default:
			rest[name] = v
		}
	}
	return graft(p, reflect.ValueOf(obj).Elem(), rest)
}

// graft merges a configured value into v, which is settable and nobody else's.
func graft(p *plan, v reflect.Value, config any) error {
	if config == nil {
		return errNotPlain
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			fresh := reflect.New(v.Type().Elem())
			if err := graft(p, fresh.Elem(), config); err != nil {
				return err
			}
			v.Set(fresh)
			return nil
		}
		v = v.Elem()
	}
	if p.atomic || p.form == leaf || p.form == dynamic {
		return assign(v, config)
	}
	if p.form == list {
		items, ok := config.([]any)
		if !ok || len(items) == 0 {
			return errNotPlain
		}
		return graftList(p, v, items)
	}
	fields, ok := config.(map[string]any)
	if !ok {
		return errNotPlain
	}
	if p.form == structure {
		for name, x := range fields {
			f := p.field("f:" + name)
			if f == nil {
				return errNotPlain
			}
			at := v.FieldByIndex(f.nested)
			if f.nested == nil {
				at = v.Field(f.index)
			}
			if err := graft(f.plan, at, x); err != nil {
				return err
			}
		}
		return nil
	}
	if len(fields) == 0 {
		return errNotPlain
	}
	if v.IsNil() {
		v.Set(reflect.MakeMapWithSize(v.Type(), len(fields)))
	}
	for name, x := range fields {
		key := reflect.ValueOf(name).Convert(v.Type().Key())
		merged := reflect.New(v.Type().Elem()).Elem()
		if old := v.MapIndex(key); old.IsValid() {
			merged.Set(old)
		}
		if err := graft(p.elem, merged, x); err != nil {
			return err
		}
		v.SetMapIndex(key, merged)
	}
	return nil
}

// graftList merges items by their keys. Those that are new come before the next
// that both have, as the library orders them.
func graftList(p *plan, v reflect.Value, items []any) error {
	w := walk{}
	at := make(map[string]int, v.Len())
	for i := range v.Len() {
		e, _ := settle(p.elem, v.Index(i))
		at[w.key(p, e, i)] = i
	}
	if len(at) != v.Len() {
		return errNotPlain
	}
	type given struct {
		fresh reflect.Value
		old   int // -1 = new
	}
	configured := make([]given, 0, len(items))
	shared, last, added := map[int]bool{}, -1, false
	for i, x := range items {
		g := given{fresh: reflect.New(v.Type().Elem()).Elem(), old: -1}
		if err := graft(p.elem, g.fresh, x); err != nil {
			return err
		}
		e, _ := settle(p.elem, g.fresh)
		if old, found := at[w.key(p, e, i)]; found {
			if old <= last {
				return errNotPlain
			}
			if err := graft(p.elem, v.Index(old), x); err != nil {
				return err
			}
			g.old, last, shared[old] = old, old, true
		} else {
			added = true
		}
		configured = append(configured, g)
	}
	if w.err != nil {
		return w.err
	}
	if !added {
		return nil
	}
	out := reflect.MakeSlice(v.Type(), 0, v.Len()+len(items))
	next := 0
	untilShared := func() {
		for ; next < v.Len() && !shared[next]; next++ {
			out = reflect.Append(out, v.Index(next))
		}
	}
	for _, g := range configured {
		untilShared()
		if g.old < 0 {
			out = reflect.Append(out, g.fresh)
		} else {
			out = reflect.Append(out, v.Index(g.old))
			next = g.old + 1
		}
	}
	untilShared()
	v.Set(out)
	return nil
}

// assign sets v to a configured value as a whole.
func assign(v reflect.Value, config any) error {
	switch c := config.(type) {
	case string:
		if v.Kind() == reflect.String {
			v.SetString(c)
			return nil
		}
	case bool:
		if v.Kind() == reflect.Bool {
			v.SetBool(c)
			return nil
		}
	case int64:
		if v.CanInt() && !v.OverflowInt(c) {
			v.SetInt(c)
			return nil
		}
	}
	text, err := json.Marshal(config)
	if err != nil {
		return errNotPlain
	}
	fresh := reflect.New(v.Type())
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, fresh.Interface()); err != nil {
		return errNotPlain
	}
	// What the Go type writes differently (1000m as 1, an empty field that the
	// configuration leaves out) is, to the library, another value.
	back, err := json.Marshal(fresh.Interface())
	if err != nil {
		return errNotPlain
	}
	if string(back) != string(text) {
		a, errA := value.FromJSON(back)
		b, errB := value.FromJSON(text)
		if errA != nil || errB != nil || !value.Equals(a, b) {
			return errNotPlain
		}
	}
	v.Set(fresh.Elem())
	return nil
}
