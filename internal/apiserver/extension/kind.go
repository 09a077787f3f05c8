package extension

import (
	"fmt"
	"sort"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kubeversion "k8s.io/apimachinery/pkg/version"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/index"
)

// custom is a definition that is served.
type custom struct {
	uid        string
	generation int64
	names      apiextensionsv1.CustomResourceDefinitionNames
	kind       *api.Kind
	versions   map[string]*version // all, also those that are not served
	served     []*version
	webhook    converter
	types      func() managedfields.TypeConverter // merges objects of all versions
}

// converter brings objects, none of which it changes, into a version. It is the
// webhook of a definition.
type converter func(objs []*unstructured.Unstructured, to schema.GroupVersionKind) ([]*unstructured.Unstructured, error)

// newCustom makes the kind that a definition describes. webhook is nil when
// versions differ in nothing but their name.
func newCustom(d *apiextensionsv1.CustomResourceDefinition, webhook converter) (*custom, error) {
	c := &custom{uid: string(d.UID), generation: d.Generation, names: d.Status.AcceptedNames, versions: map[string]*version{}, webhook: webhook}
	var storage *version
	for i := range d.Spec.Versions {
		v, err := newVersion(d, &d.Spec.Versions[i])
		if err != nil {
			return nil, err
		}
		c.versions[v.gvk.Version] = v
		if v.spec.Served {
			c.served = append(c.served, v)
		}
		if v.spec.Storage {
			storage = v
		}
	}
	if storage == nil {
		return nil, fmt.Errorf("no version is the one that is stored")
	}
	c.types = sync.OnceValue(func() managedfields.TypeConverter { return typesOf(c.versions, d.Spec.PreserveUnknownFields) })
	k := c.hub(d, storage)
	k.Indexes = c.indexes(storage)
	index.Add(k)
	for _, v := range c.served {
		if v != storage {
			hub := c.hub(d, v)
			k.Shapes = append(k.Shapes, api.Shape{GroupVersionKind: v.gvk, New: hub.New, NewList: hub.NewList, Deprecated: hub.Deprecated, Hub: hub})
		}
	}
	sort.Slice(k.Shapes, func(i, j int) bool {
		return kubeversion.CompareKubeAwareVersionStrings(k.Shapes[i].Version, k.Shapes[j].Version) > 0
	})
	c.kind = k
	return c, nil
}

// hub is the kind as requests in a version see it. Its functions take objects in
// any version, and do what the version of the object asks for.
func (c *custom) hub(d *apiextensionsv1.CustomResourceDefinition, v *version) *api.Kind {
	of, names := d.Status.AcceptedNames, d.Spec.Names
	k := &api.Kind{
		GroupVersionKind: v.gvk,
		Resource:         names.Plural,
		Singular:         of.Singular,
		ShortNames:       of.ShortNames,
		Categories:       of.Categories,
		Cluster:          d.Spec.Scope == apiextensionsv1.ClusterScoped,
		Path:             d.Spec.Group + "/" + names.Plural,
		Encoding:         api.JSON,
		StrictUpdate:     true,
		New:              newObject(v.gvk),
		NewList:          newList(v.gvk, of.ListKind),
		Reset:            c.reset,
		Prune: func(obj api.Object) ([]string, error) {
			if v := c.of(obj); v != nil {
				return v.prune(obj.(*unstructured.Unstructured))
			}
			return nil, nil
		},
		Default: func(obj api.Object) {
			if v := c.of(obj); v != nil {
				v.setDefaults(obj.(*unstructured.Unstructured))
			}
		},
		Validate:     c.validate,
		Warn:         warn,
		Convert:      c.convert,
		Fields:       c.fields(v),
		Subresources: c.subresources(v),
		Deprecated:   deprecation(d, v),
	}
	k.Columns, k.Row = columns(v.spec.AdditionalPrinterColumns)
	if c.webhook != nil {
		k.ConvertAll = c.convertAll
	}
	if d.DeletionTimestamp != nil || apihelpers.IsCRDConditionTrue(d, apiextensionsv1.Terminating) {
		k.Verbs = []string{"delete", "deletecollection", "get", "list", "patch", "update", "watch"}
	}
	return k
}

func newObject(gvk schema.GroupVersionKind) func() api.Object {
	return func() api.Object {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(gvk)
		return u
	}
}

func newList(gvk schema.GroupVersionKind, kind string) func() runtime.Object {
	return func() runtime.Object {
		u := &unstructured.UnstructuredList{}
		u.SetGroupVersionKind(gvk.GroupVersion().WithKind(kind))
		return u
	}
}

// of is the version that an object says it has.
func (c *custom) of(obj api.Object) *version {
	return c.versions[obj.GetObjectKind().GroupVersionKind().Version]
}

// validate an object by the rules of the version that it is in. old is in the same.
func (c *custom) validate(obj, old api.Object, sub string) field.ErrorList {
	v := c.of(obj)
	if v == nil {
		return field.ErrorList{field.InternalError(nil, fmt.Errorf("%v is no version of the definition", obj.GetObjectKind().GroupVersionKind()))}
	}
	var was *unstructured.Unstructured
	if old != nil {
		was = old.(*unstructured.Unstructured)
	}
	return v.validate(obj.(*unstructured.Unstructured), was, sub)
}

// reset keeps status and the rest apart, and counts generations.
func (c *custom) reset(obj, old api.Object, sub string) {
	u := obj.(*unstructured.Unstructured)
	v := c.of(obj)
	status := v != nil && v.spec.Subresources != nil && v.spec.Subresources.Status != nil
	if old == nil {
		if status {
			delete(u.Object, "status")
		}
		u.SetGeneration(1)
		return
	}
	was := old.(*unstructured.Unstructured)
	if sub == "status" {
		now, has := u.Object["status"]
		fields := u.GetManagedFields()
		u.Object = was.DeepCopy().Object
		u.SetManagedFields(fields)
		if has {
			u.Object["status"] = now
		} else {
			delete(u.Object, "status")
		}
		return
	}
	if status {
		if s, has := was.Object["status"]; has {
			u.Object["status"] = runtime.DeepCopyJSONValue(s)
		} else {
			delete(u.Object, "status")
		}
	}
	if !apiequality.Semantic.DeepEqual(content(u), content(was)) {
		u.SetGeneration(was.GetGeneration() + 1)
	}
}

// content is an object without its metadata.
func content(u *unstructured.Unstructured) map[string]any {
	out := make(map[string]any, len(u.Object))
	for name, v := range u.Object {
		if name != "metadata" && name != "apiVersion" {
			out[name] = v
		}
	}
	return out
}

// warn of finalizers that others could take for theirs.
func warn(obj, old api.Object) (warnings []string) {
	had := map[string]bool{metav1.FinalizerOrphanDependents: true, metav1.FinalizerDeleteDependents: true, "kubernetes": true}
	if old != nil {
		for _, f := range old.GetFinalizers() {
			had[f] = true
		}
	}
	for _, f := range obj.GetFinalizers() {
		if had[f] || strings.Contains(f, "/") {
			continue
		}
		path := ""
		if strings.Contains(f, ".") {
			path = " including a path (/)"
		}
		warnings = append(warnings, fmt.Sprintf("metadata.finalizers: %q: prefer a domain-qualified finalizer name%s to avoid accidental conflicts with other finalizer writers", f, path))
	}
	return warnings
}

// deprecation is what clients of a version are told, "" if it is not deprecated.
func deprecation(d *apiextensionsv1.CustomResourceDefinition, v *version) string {
	if !v.spec.Deprecated {
		return ""
	}
	if v.spec.DeprecationWarning != nil {
		return *v.spec.DeprecationWarning
	}
	text := fmt.Sprintf("%s/%s %s is deprecated", v.gvk.Group, v.gvk.Version, v.gvk.Kind)
	best := ""
	for _, other := range d.Spec.Versions {
		if other.Served && !other.Deprecated && kubeversion.CompareKubeAwareVersionStrings(v.gvk.Version, other.Name) < 0 &&
			(best == "" || kubeversion.CompareKubeAwareVersionStrings(other.Name, best) > 0) {
			best = other.Name
		}
	}
	if best != "" {
		text += fmt.Sprintf("; use %s/%s %s", v.gvk.Group, best, v.gvk.Kind)
	}
	return text
}
