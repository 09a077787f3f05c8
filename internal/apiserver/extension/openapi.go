package extension

import (
	"encoding/json"

	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	openapiv2 "k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/proa-dev/proa/internal/apiserver/openapi"
)

const objectMeta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

// definition is the schema of a version as clients read it.
func definition(v *version) (openapi.Definition, error) {
	three, err := json.Marshal(published(v, 3))
	if err != nil {
		return openapi.Definition{}, err
	}
	two, err := json.Marshal(published(v, 2))
	return openapi.Definition{V3: three, V2: two}, err
}

func published(v *version, of int) *spec.Schema {
	s := publishedSchema(v, of)
	if fields := v.spec.SelectableFields; len(fields) > 0 {
		paths := make([]any, len(fields))
		for i, f := range fields {
			paths[i] = map[string]any{"fieldPath": fieldName(f)}
		}
		s.AddExtension(openapi.SelectableFields, paths)
	}
	return s
}

func publishedSchema(v *version, of int) *spec.Schema {
	// Clients take properties for all there are, so none are given when others may be.
	s := v.schema
	if s == nil || of == 2 && (s.XPreserveUnknownFields || v.preserve) {
		return &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
	}
	at := "#/components/schemas/"
	if of == 2 {
		at = "#/definitions/"
		s = openapiv2.ToStructuralOpenAPIV2(s)
	}
	out := s.ToKubeOpenAPI()
	ref := meta(at, of).WithDescription(metav1.PartialObjectMetadata{}.SwaggerDoc()["metadata"])
	typeMeta(out)
	out.SetProperty("metadata", *ref)
	embedded(s, out, at, of)
	return out
}

// meta refers to the schema of metadata.
func meta(at string, of int) *spec.Schema {
	ref := spec.RefSchema(at + objectMeta)
	if of == 2 {
		return ref
	}
	return &spec.Schema{SchemaProps: spec.SchemaProps{AllOf: []spec.Schema{*ref}}}
}

func typeMeta(s *spec.Schema) {
	doc := metav1.TypeMeta{}.SwaggerDoc()
	s.SetProperty("apiVersion", *spec.StringProperty().WithDescription(doc["apiVersion"]))
	s.SetProperty("kind", *spec.StringProperty().WithDescription(doc["kind"]))
}

// embedded resources have apiVersion, kind and metadata, too.
func embedded(s *structural.Structural, out *spec.Schema, at string, of int) {
	if s == nil || out == nil {
		return
	}
	mark := func(s *structural.Structural, out *spec.Schema) {
		embedded(s, out, at, of)
		if s.XEmbeddedResource {
			typeMeta(out)
			out.SetProperty("metadata", *meta(at, of).WithDescription(metav1.ObjectMeta{}.SwaggerDoc()["metadata"]))
		}
	}
	if s.Items != nil && out.Items != nil {
		mark(s.Items, out.Items.Schema)
	}
	for name := range s.Properties {
		if p, ok := out.Properties[name]; ok {
			of := s.Properties[name]
			mark(&of, &p)
			out.Properties[name] = p
		}
	}
	if a := s.AdditionalProperties; a != nil && out.AdditionalProperties != nil && a.Structural != nil {
		mark(a.Structural, out.AdditionalProperties.Schema)
	}
}

// typesOf lets apply merge objects as the schema of the version they are in says;
// nil = the schemas say nothing.
func typesOf(versions map[string]*version, preserve bool) managedfields.TypeConverter {
	all := map[string]*spec.Schema{objectMeta: metadata()}
	for name, v := range versions {
		s := deduced()
		if v.schema != nil {
			s = v.schema.ToKubeOpenAPI()
		}
		typeMeta(s)
		s.SetProperty("metadata", *spec.RefSchema("#/components/schemas/" + objectMeta))
		s.AddExtension("x-kubernetes-group-version-kind", []any{map[string]any{"group": v.gvk.Group, "version": v.gvk.Version, "kind": v.gvk.Kind}})
		all["object."+name] = s
	}
	types, err := managedfields.NewTypeConverter(all, preserve)
	if err != nil {
		return nil
	}
	return types
}

// metadata is the schema of ObjectMeta as far as merging goes.
func metadata() *spec.Schema {
	text := spec.StringProperty()
	object := func() *spec.Schema { return &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}} }
	atomic := object()
	atomic.AddExtension("x-kubernetes-map-type", "atomic")
	owner := object()
	for _, name := range []string{"apiVersion", "kind", "name", "uid"} {
		owner.SetProperty(name, *text)
	}
	for _, name := range []string{"controller", "blockOwnerDeletion"} {
		owner.SetProperty(name, *spec.BoolProperty())
	}
	owner.AddExtension("x-kubernetes-map-type", "atomic")
	owners := spec.ArrayProperty(owner)
	owners.AddExtension("x-kubernetes-list-type", "map")
	owners.AddExtension("x-kubernetes-list-map-keys", []any{"uid"})
	finalizers := spec.ArrayProperty(text)
	finalizers.AddExtension("x-kubernetes-list-type", "set")
	fields := spec.ArrayProperty(deduced())
	fields.AddExtension("x-kubernetes-list-type", "atomic")
	m := object()
	for _, name := range []string{"name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"} {
		m.SetProperty(name, *text)
	}
	m.SetProperty("generation", *spec.Int64Property())
	m.SetProperty("deletionGracePeriodSeconds", *spec.Int64Property())
	m.SetProperty("labels", *spec.MapProperty(text))
	m.SetProperty("annotations", *spec.MapProperty(text))
	m.SetProperty("finalizers", *finalizers)
	m.SetProperty("ownerReferences", *owners)
	m.SetProperty("managedFields", *fields)
	return m
}

// deduced is anything.
func deduced() *spec.Schema {
	s := &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
	s.AddExtension("x-kubernetes-preserve-unknown-fields", true)
	return s
}
