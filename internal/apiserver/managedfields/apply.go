package managedfields

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/yaml"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
)

// Apply merges a configuration (the body of an apply patch, YAML or JSON) into
// the live object, nil if there is none, and returns the object that shall be
// stored, in the shape that the request works on, with defaults and managed fields. live is not
// changed. If the configuration changes nothing, what is returned differs from
// live in nothing but perhaps its managed fields.
//
// Errors: BadRequest StatusErrors (no YAML, another kind or version than the
// request's, managed fields in the body), Conflict with one cause per field
// when others own what it would change and force is not set; any other is a
// configuration that does not fit the schema.
func (m *Manager) Apply(kind api.Served, live api.Object, patch []byte, manager, sub string, force bool, now time.Time) (api.Object, error) {
	config, err := decodeConfig(patch)
	if err != nil {
		return nil, err
	}
	if obj := m.applyPlain(kind, live, config, manager, sub, force, now); obj != nil {
		return obj, nil
	}
	lib, err := m.library(kind, sub)
	if err != nil {
		return nil, err
	}
	var from runtime.Object = live
	if live == nil {
		hub := kind.Hub()
		from = hub.New()
		from.GetObjectKind().SetGroupVersionKind(hub.GroupVersionKind)
	}
	got, err := lib.Apply(from, config, manager, force)
	if err != nil {
		return nil, err
	}
	obj, ok := got.(api.Object)
	if !ok {
		return nil, fmt.Errorf("apply made a %T, which is no object", got)
	}
	if kind.Encoding == api.Protobuf {
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	}
	return obj, nil
}

func decodeConfig(patch []byte) (*unstructured.Unstructured, error) {
	text, err := yaml.YAMLToJSON(patch)
	if err != nil {
		return nil, errors.NewBadRequest(fmt.Sprintf("error decoding YAML: error converting YAML to JSON: %v", err))
	}
	config := &unstructured.Unstructured{Object: map[string]any{}}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &config.Object); err != nil {
		return nil, errors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err))
	}
	return config, nil
}

// library is apimachinery's field manager of a served kind.
func (m *Manager) library(kind api.Served, sub string) (*managedfields.FieldManager, error) {
	l := library{m: m, kind: kind.Kind}
	var types managedfields.TypeConverter = l
	if kind.Encoding != api.Protobuf {
		types = managedfields.NewDeducedTypeConverter()
		if m.custom != nil {
			if c := m.custom(kind.GVK()); c != nil {
				types = c
			}
		}
	}
	filters := map[fieldpath.APIVersion]fieldpath.Filter{}
	versions := []api.Served{{Kind: kind.Kind}}
	for i := range kind.Shapes {
		versions = append(versions, api.Served{Kind: kind.Kind, Shape: &kind.Shapes[i]})
	}
	for _, v := range versions {
		if filter := filterOf(v.Hub(), sub); filter != nil {
			filters[fieldpath.APIVersion(v.GVK().GroupVersion().String())] = filter
		}
	}
	create := managedfields.NewDefaultFieldManager
	if kind.Encoding != api.Protobuf {
		create = managedfields.NewDefaultCRDFieldManager
	}
	return create(types, l, l, l, kind.GVK(), kind.Hub().GroupVersion(), sub, filters)
}

// updateCustom is Update of a kind that has no Go type of its own.
func (m *Manager) updateCustom(kind api.Served, live, obj api.Object, manager, sub string) error {
	lib, err := m.library(kind, sub)
	if err == nil {
		var from runtime.Object = live
		if live == nil {
			empty := &unstructured.Unstructured{}
			empty.SetGroupVersionKind(kind.Hub().GroupVersionKind)
			from = empty
		}
		var got runtime.Object
		if got, err = lib.Update(from, obj, manager); err == nil && got != runtime.Object(obj) {
			obj.SetManagedFields(got.(api.Object).GetManagedFields())
		}
	}
	if err != nil {
		obj.SetManagedFields(nil)
		return fmt.Errorf("managed fields of %s %s: %w", kind.GVK().Kind, key(obj), err)
	}
	return nil
}

// library lets the library see one kind: its types, shapes, defaults.
type library struct {
	m    *Manager
	kind *api.Kind
}

// filterOf is the library's form of resetFields.
func filterOf(kind *api.Kind, sub string) fieldpath.Filter {
	if kind.GroupResource() == (schema.GroupResource{Resource: "pods"}) {
		any := fieldpath.MatchAnyPathElement()
		switch sub {
		case "ephemeralcontainers":
			return fieldpath.NewIncludeMatcherFilter(fieldpath.MakePrefixMatcherOrDie("spec", "ephemeralContainers"))
		case "resize":
			return fieldpath.NewIncludeMatcherFilter(
				fieldpath.MakePrefixMatcherOrDie("spec", "containers", any, "resources"),
				fieldpath.MakePrefixMatcherOrDie("spec", "containers", any, "resizePolicy"),
				fieldpath.MakePrefixMatcherOrDie("spec", "initContainers", any, "resources"),
				fieldpath.MakePrefixMatcherOrDie("spec", "initContainers", any, "resizePolicy"),
			)
		}
	}
	reset := resetFields(kind, sub)
	if reset == nil {
		return nil
	}
	return fieldpath.NewExcludeSetFilter(librarySet(reset))
}

func librarySet(s *set) *fieldpath.Set {
	out := fieldpath.NewSet()
	if s == nil {
		return out
	}
	for _, e := range s.elems {
		pe, err := fieldpath.DeserializePathElement(e.key)
		if err != nil {
			continue // cannot be: keys are canonical
		}
		if e.member {
			out.Members.Insert(pe)
		}
		if e.child != nil {
			*out.Children.Descend(pe) = *librarySet(e.child)
		}
	}
	return out
}

// ObjectToTyped implements managedfields.TypeConverter.
func (l library) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		served, ok := l.m.catalog.Kind(u.GroupVersionKind())
		if !ok {
			return nil, runtime.NewNotRegisteredErrForKind("the catalog", u.GroupVersionKind())
		}
		t, err := l.m.types.Type(openapi.NameOf(create(served)))
		if err != nil {
			return nil, err
		}
		return t.FromUnstructured(u.Object, opts...)
	}
	t, err := l.m.types.Type(openapi.NameOf(obj))
	if err != nil {
		return nil, err
	}
	return t.FromStructured(obj, opts...)
}

// TypedToObject implements managedfields.TypeConverter.
func (l library) TypedToObject(v *typed.TypedValue) (runtime.Object, error) {
	switch o := v.AsValue().Unstructured().(type) {
	case map[string]any:
		return &unstructured.Unstructured{Object: o}, nil
	default:
		return nil, fmt.Errorf("failed to convert value to unstructured for type %T", o)
	}
}

func create(s api.Served) api.Object {
	if s.Shape != nil {
		return s.Shape.New()
	}
	return s.New()
}

// New implements runtime.ObjectCreater.
func (l library) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	served, ok := l.m.catalog.Kind(gvk)
	if !ok {
		return nil, runtime.NewNotRegisteredErrForKind("the catalog", gvk)
	}
	obj := create(served)
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}

// Default implements runtime.ObjectDefaulter.
func (l library) Default(obj runtime.Object) {
	served, ok := l.m.catalog.Kind(obj.GetObjectKind().GroupVersionKind())
	if !ok {
		return
	}
	switch {
	case (served.Shape == nil || served.Convert != nil) && served.Default != nil:
		served.Default(obj.(api.Object))
	case served.Shape != nil && served.Shape.Default != nil:
		served.Shape.Default(obj.(api.Object))
	}
}

// ConvertToVersion implements runtime.ObjectConvertor. It never changes its
// argument; parts may be shared.
func (l library) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	gv, ok := target.(schema.GroupVersion)
	if !ok {
		return nil, fmt.Errorf("cannot convert to %v, which is no group and version", target)
	}
	shape, ok := shapeOf(l.kind, gv.String())
	if !ok && gv.Version == l.kind.Version {
		ok = true // the library asks for the hub in the group of the shape
	}
	to := l.kind.GroupVersionKind
	if shape != nil {
		to = shape.GroupVersionKind
	}
	if !ok {
		return nil, runtime.NewNotRegisteredErrForKind("the catalog", gv.WithKind(l.kind.GroupVersionKind.Kind))
	}
	if l.kind.Encoding != api.Protobuf {
		return l.convertCustom(in, to)
	}
	obj, err := l.storage(in)
	if err != nil {
		return nil, err
	}
	if shape != nil {
		obj = shape.From(obj.DeepCopyObject().(api.Object))
	} else {
		obj = shallow(obj)
	}
	obj.GetObjectKind().SetGroupVersionKind(to)
	return obj, nil
}

func (l library) convertCustom(in runtime.Object, to schema.GroupVersionKind) (runtime.Object, error) {
	u, ok := in.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("a custom resource cannot be a %T", in)
	}
	if u.GroupVersionKind() == to {
		return u, nil
	}
	c := u.DeepCopy()
	if l.kind.Convert != nil && u.GetName() != "" { // an empty object is in any version
		return l.kind.Convert(c, to)
	}
	c.SetGroupVersionKind(to)
	return c, nil
}

// gvk of an object, which may be typed and without TypeMeta: then it is in the
// storage shape.
func (l library) gvk(in runtime.Object) schema.GroupVersionKind {
	if gvk := in.GetObjectKind().GroupVersionKind(); !gvk.Empty() {
		return gvk
	}
	return l.kind.GroupVersionKind
}

// storage is an object in the storage shape.
func (l library) storage(in runtime.Object) (api.Object, error) {
	served, ok := l.m.catalog.Kind(l.gvk(in))
	if !ok || served.Kind != l.kind {
		return nil, runtime.NewNotRegisteredErrForKind("the catalog", l.gvk(in))
	}
	obj, isObject := in.(api.Object)
	if u, ok := in.(*unstructured.Unstructured); ok {
		obj = create(served)
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, obj); err != nil {
			return nil, err
		}
	} else if !isObject {
		return nil, fmt.Errorf("%T is no object", in)
	} else if served.Shape != nil {
		obj = obj.DeepCopyObject().(api.Object)
	}
	if served.Shape != nil {
		obj = served.Shape.To(obj)
	}
	return obj, nil
}

// Convert implements runtime.ObjectConvertor; nobody calls it.
func (l library) Convert(_, _, _ any) error { return fmt.Errorf("not a conversion that applies need") }

// ConvertFieldLabel implements runtime.ObjectConvertor; nobody calls it.
func (l library) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}
