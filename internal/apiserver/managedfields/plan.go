package managedfields

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"sort"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// form says how values of a type are compared.
type form uint8

const (
	leaf      form = iota // as a whole
	structure             // field by field
	dict                  // key by key
	list                  // item by item, by keys or by value
	dynamic               // JSON of any shape: by the library
)

// plan is how values of one Go type under one schema type are walked. It is
// compiled once per type, and never changed after.
type plan struct {
	form   form
	atomic bool
	fields []fieldPlan // of a structure, by JSON name
	elem   *plan       // of a dict or a list
	keys   []keyPlan   // of a list whose items have keys, by name; nil = by value
	slice  bool        // a list in Go, whatever its form
	goMap  bool        // a map in Go, whatever its form

	null func(reflect.Value) bool      // for types that may marshal as null
	same func(l, r reflect.Value) bool // for what is no struct, map or list; nil otherwise

	sameMap func(l, r reflect.Value) bool // for maps of well-known types, of one length

	typ *typed.ParseableType // dynamic: a wrapper with the one field "x" of the type
}

type fieldPlan struct {
	key       string // "f:NAME"
	quoted    string // `"f:NAME":`
	index     int
	nested    []int // when the field is in an embedded struct
	omitEmpty bool
	omitZero  func(reflect.Value) bool
	plan      *plan
}

type keyPlan struct {
	prefix string // `"NAME":`
	field  *fieldPlan
	absent string // JSON of the default, "" = an item without it has one key less
}

// compiler makes plans, and shares among them what they have in common.
type compiler struct {
	mu     sync.Mutex
	made   map[compiled]*plan
	schema *schema.Schema // of the plan that is being made
}

type compiled struct {
	typ       reflect.Type
	name, rel string
}

// compile makes the plan of a Go type whose schema is given.
func (c *compiler) compile(t reflect.Type, of *typed.ParseableType) (*plan, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil {
		c.made = map[compiled]*plan{}
	}
	c.schema = of.Schema
	made, err := c.plan(t, of.TypeRef)
	if err != nil {
		c.made = nil // it may hold half a plan
		return nil, err
	}
	p := *made
	return &p, p.forget("f:apiVersion", "f:kind")
}

// forget drops fields that no manager ever owns: they are not looked at.
func (p *plan) forget(root ...string) error {
	drop := func(p *plan, keys ...string) {
		kept := p.fields[:0:0]
	fields:
		for _, f := range p.fields {
			for _, key := range keys {
				if f.key == key {
					continue fields
				}
			}
			kept = append(kept, f)
		}
		p.fields = kept
	}
	drop(p, root...)
	for i := range p.fields {
		if p.fields[i].key == "f:metadata" {
			meta := *p.fields[i].plan // ObjectMeta elsewhere, as in a pod template, is walked whole
			drop(&meta, "f:name", "f:namespace", "f:creationTimestamp", "f:selfLink", "f:uid", "f:generation", "f:managedFields", "f:resourceVersion")
			p.fields[i].plan = &meta
			return nil
		}
	}
	return fmt.Errorf("an object without metadata")
}

var marshalers = reflect.TypeFor[json.Marshaler]()

func (c *compiler) plan(t reflect.Type, ref schema.TypeRef) (*plan, error) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	id := compiled{typ: t}
	if ref.NamedType != nil {
		id.name = *ref.NamedType
	}
	if ref.ElementRelationship != nil {
		id.rel = string(*ref.ElementRelationship)
	}
	if p := c.made[id]; p != nil && id.name != "" {
		return p, nil
	}
	atom, ok := c.schema.Resolve(ref)
	if !ok {
		return nil, fmt.Errorf("no schema for %v", t)
	}
	p := &plan{}
	if id.name != "" {
		c.made[id] = p
	}
	return p, c.fill(p, t, ref, atom)
}

func (c *compiler) fill(p *plan, t reflect.Type, ref schema.TypeRef, atom schema.Atom) error {
	if special(p, t) {
		return nil
	}
	if t.Implements(marshalers) || reflect.PointerTo(t).Implements(marshalers) {
		p.form, p.null, p.same = dynamic, marshalsNull, sameJSON
		p.typ = wrapper(c.schema, ref)
		return nil
	}
	switch t.Kind() {
	case reflect.Struct:
		if atom.Map == nil {
			return fmt.Errorf("%v is a struct, its schema is none", t)
		}
		p.form, p.atomic = structure, atom.Map.ElementRelationship == schema.Atomic
		if err := c.fields(p, t, nil, atom.Map); err != nil {
			return err
		}
		sort.Slice(p.fields, func(i, j int) bool { return p.fields[i].key < p.fields[j].key })
	case reflect.Map:
		if atom.Map == nil {
			return fmt.Errorf("%v is a map, its schema is none", t)
		}
		p.form, p.goMap, p.atomic = dict, true, atom.Map.ElementRelationship == schema.Atomic
		switch t {
		case stringMap:
			p.sameMap = func(l, r reflect.Value) bool {
				return maps.Equal(l.Interface().(map[string]string), r.Interface().(map[string]string))
			}
		case reflect.TypeFor[corev1.ResourceList]():
			p.sameMap = func(l, r reflect.Value) bool {
				return maps.EqualFunc(l.Interface().(corev1.ResourceList), r.Interface().(corev1.ResourceList), sameQuantity)
			}
		}
		return c.element(p, t, atom.Map.ElementType)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			p.same = func(l, r reflect.Value) bool { return string(l.Bytes()) == string(r.Bytes()) }
			return nil
		}
		if atom.List == nil {
			return fmt.Errorf("%v is a list, its schema is none", t)
		}
		p.form, p.slice, p.atomic = list, true, atom.List.ElementRelationship != schema.Associative
		if err := c.element(p, t, atom.List.ElementType); err != nil || p.atomic {
			return err
		}
		return c.keys(p, atom.List)
	case reflect.String:
		p.same = func(l, r reflect.Value) bool { return l.String() == r.String() }
	case reflect.Bool:
		p.same = func(l, r reflect.Value) bool { return l.Bool() == r.Bool() }
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		p.same = func(l, r reflect.Value) bool { return l.Int() == r.Int() }
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32:
		p.same = func(l, r reflect.Value) bool { return l.Uint() == r.Uint() }
	case reflect.Float32, reflect.Float64:
		p.same = func(l, r reflect.Value) bool { return l.Float() == r.Float() }
	default:
		return fmt.Errorf("%v is of a kind that no API type has", t)
	}
	return nil
}

func (c *compiler) element(p *plan, t reflect.Type, of schema.TypeRef) error {
	elem, err := c.plan(t.Elem(), of)
	p.elem = elem
	return err
}

func (c *compiler) fields(p *plan, t reflect.Type, above []int, m *schema.Map) error {
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" && opts == "" || !f.IsExported() && !f.Anonymous {
			continue
		}
		inline := false
		field := fieldPlan{index: i}
		for opt := range strings.SplitSeq(opts, ",") {
			switch opt {
			case "inline":
				inline = true
			case "omitempty":
				field.omitEmpty = true
			case "omitzero":
				field.omitZero = value.OmitZeroFunc(f.Type)
			}
		}
		if above != nil || inline {
			field.nested = append(append([]int(nil), above...), i)
		}
		if inline {
			if f.Type.Kind() != reflect.Struct {
				return fmt.Errorf("%v.%s: only structs are inlined", t, f.Name)
			}
			if err := c.fields(p, f.Type, field.nested, m); err != nil {
				return err
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		ref := m.ElementType
		if sf, ok := m.FindField(name); ok {
			ref = sf.Type
		}
		field.key = "f:" + name
		field.quoted = string(appendQuoted(nil, field.key, false)) + ":"
		var err error
		if field.plan, err = c.plan(f.Type, ref); err != nil {
			return fmt.Errorf("%v.%s: %w", t, f.Name, err)
		}
		p.fields = append(p.fields, field)
	}
	return nil
}

func (c *compiler) keys(p *plan, l *schema.List) error {
	if len(l.Keys) == 0 {
		if p.elem.form != leaf {
			return fmt.Errorf("a set whose items are no plain values")
		}
		return nil
	}
	atom, _ := c.schema.Resolve(l.ElementType)
	names := append([]string(nil), l.Keys...)
	sort.Strings(names)
	for _, name := range names {
		quoted, _ := json.Marshal(name)
		key := keyPlan{prefix: string(quoted) + ":"}
		for i := range p.elem.fields {
			if p.elem.fields[i].key == "f:"+name {
				key.field = &p.elem.fields[i]
			}
		}
		if key.field == nil {
			return fmt.Errorf("a list with the key %q, which its items do not have", name)
		}
		if atom.Map != nil {
			if sf, ok := atom.Map.FindField(name); ok && sf.Default != nil {
				def, err := json.Marshal(sf.Default)
				if err != nil {
					return err
				}
				key.absent = string(def)
			}
		}
		p.keys = append(p.keys, key)
	}
	return nil
}

// special knows the types whose JSON is one plain value.
func special(p *plan, t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[metav1.Time]():
		p.null = func(v reflect.Value) bool { return of[metav1.Time](v).IsZero() }
		p.same = func(l, r reflect.Value) bool { return of[metav1.Time](l).Unix() == of[metav1.Time](r).Unix() }
	case reflect.TypeFor[metav1.MicroTime]():
		p.null = func(v reflect.Value) bool { return of[metav1.MicroTime](v).IsZero() }
		p.same = func(l, r reflect.Value) bool {
			return of[metav1.MicroTime](l).UnixMicro() == of[metav1.MicroTime](r).UnixMicro()
		}
	case reflect.TypeFor[metav1.Duration]():
		p.same = func(l, r reflect.Value) bool {
			return of[metav1.Duration](l).Duration == of[metav1.Duration](r).Duration
		}
	case reflect.TypeFor[intstr.IntOrString]():
		p.same = func(l, r reflect.Value) bool {
			a, b := of[intstr.IntOrString](l), of[intstr.IntOrString](r)
			if a.Type != b.Type {
				return false
			}
			return a.Type == intstr.Int && a.IntVal == b.IntVal || a.Type == intstr.String && a.StrVal == b.StrVal
		}
	case reflect.TypeFor[resource.Quantity]():
		p.same = func(l, r reflect.Value) bool {
			return sameQuantity(*of[resource.Quantity](l), *of[resource.Quantity](r))
		}
	default:
		return false
	}
	return true
}

// sameQuantity compares what is shown. Printing a quantity fills its cache: these are copies.
func sameQuantity(a, b resource.Quantity) bool {
	return a == b || a.Format == b.Format && a.Cmp(b) == 0 || a.String() == b.String()
}

// of is the value as a pointer, without a copy where that can be had.
func of[T any](v reflect.Value) *T {
	if v.CanAddr() {
		return v.Addr().Interface().(*T)
	}
	t := v.Interface().(T)
	return &t
}

func marshal(v reflect.Value) []byte {
	var m json.Marshaler
	if v.Type().Implements(marshalers) {
		m = v.Interface().(json.Marshaler)
	} else {
		if !v.CanAddr() {
			c := reflect.New(v.Type()).Elem()
			c.Set(v)
			v = c
		}
		m = v.Addr().Interface().(json.Marshaler)
	}
	b, err := m.MarshalJSON()
	if err != nil {
		return []byte("null")
	}
	return b
}

func marshalsNull(v reflect.Value) bool { return string(marshal(v)) == "null" }

func sameJSON(l, r reflect.Value) bool {
	a, b := marshal(l), marshal(r)
	if string(a) == string(b) {
		return true
	}
	x, errX := value.FromJSON(a)
	y, errY := value.FromJSON(b)
	return errX == nil && errY == nil && value.Equals(x, y)
}

// wrapper is a type that has the one field x of the type ref.
func wrapper(s *schema.Schema, ref schema.TypeRef) *typed.ParseableType {
	return &typed.ParseableType{Schema: s, TypeRef: schema.TypeRef{Inlined: schema.Atom{Map: &schema.Map{
		Fields: []schema.StructField{{Name: "x", Type: ref}},
	}}}}
}
