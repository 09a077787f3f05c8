package extension

import (
	"fmt"
	"sort"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
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
}

// newCustom makes the kind that a definition describes. convert is nil when
// versions differ in nothing but their name.
func newCustom(d *apiextensionsv1.CustomResourceDefinition, convert func(*unstructured.Unstructured, schema.GroupVersionKind) (*unstructured.Unstructured, error)) (*custom, error) {
	c := &custom{uid: string(d.UID), generation: d.Generation, names: d.Status.AcceptedNames, versions: map[string]*version{}}
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
	of, names := d.Status.AcceptedNames, d.Spec.Names
	k := &api.Kind{
		GroupVersionKind: storage.gvk,
		Resource:         names.Plural,
		Singular:         of.Singular,
		ShortNames:       of.ShortNames,
		Categories:       of.Categories,
		Cluster:          d.Spec.Scope == apiextensionsv1.ClusterScoped,
		Path:             d.Spec.Group + "/" + names.Plural,
		Encoding:         api.JSON,
		StrictUpdate:     true,
		New:              newObject(storage.gvk),
		NewList:          newList(storage.gvk, of.ListKind),
		Reset:            c.reset,
		Prune: func(obj api.Object) ([]string, error) {
			if v := c.of(obj); v != nil {
				return v.prune(obj.(*unstructured.Unstructured))
			}
			return nil, nil
		},
		Default: func(obj api.Object) {
			v := c.of(obj)
			if v != nil && v != storage && convert == nil { // it was stored in a version that is not served any more
				renamed(storage)(obj)
			} else if v != nil {
				v.setDefaults(obj.(*unstructured.Unstructured))
			}
		},
		Validate:     storage.rules(storage.gvk, nil),
		Warn:         warn,
		Subresources: subresources(storage),
		Deprecated:   deprecation(d, storage),
	}
	k.Columns, k.Row = columns(storage.spec.AdditionalPrinterColumns)
	k.Fields = selectable(storage.spec.SelectableFields)
	if d.DeletionTimestamp != nil || apihelpers.IsCRDConditionTrue(d, apiextensionsv1.Terminating) {
		k.Verbs = []string{"delete", "deletecollection", "get", "list", "patch", "update", "watch"}
	}
	if convert != nil {
		k.Convert = func(obj api.Object, to schema.GroupVersionKind) (api.Object, error) {
			out, err := convert(obj.(*unstructured.Unstructured), to)
			if err != nil {
				return nil, err
			}
			v := c.versions[to.Version]
			if _, err := v.prune(out); err != nil {
				return nil, err
			}
			v.setDefaults(out)
			return out, nil
		}
	}
	for _, v := range c.served {
		if v == storage {
			continue
		}
		k.Shapes = append(k.Shapes, api.Shape{
			GroupVersionKind: v.gvk,
			New:              newObject(v.gvk),
			NewList:          newList(v.gvk, of.ListKind),
			From:             renamed(v),
			To:               renamed(storage),
			Default:          func(obj api.Object) { v.setDefaults(obj.(*unstructured.Unstructured)) },
			Validate:         v.rules(v.gvk, k.Convert),
			Deprecated:       deprecation(d, v),
		})
	}
	sort.Slice(k.Shapes, func(i, j int) bool {
		return kubeversion.CompareKubeAwareVersionStrings(k.Shapes[i].Version, k.Shapes[j].Version) > 0
	})
	c.kind = k
	index.Add(k)
	return c, nil
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

// renamed is a conversion that changes the version and nothing else.
func renamed(v *version) func(api.Object) api.Object {
	return func(obj api.Object) api.Object {
		obj.GetObjectKind().SetGroupVersionKind(v.gvk)
		if u := obj.(*unstructured.Unstructured); u.GetName() != "" {
			v.prune(u) //nolint:errcheck // its metadata has been read before
			v.setDefaults(u)
		}
		return obj
	}
}

// rules validates objects of the storage version by the rules of another.
func (v *version) rules(gvk schema.GroupVersionKind, convert func(api.Object, schema.GroupVersionKind) (api.Object, error)) func(obj, old api.Object, sub string) field.ErrorList {
	in := func(obj api.Object) (*unstructured.Unstructured, error) {
		u, ok := obj.(*unstructured.Unstructured)
		if !ok || u.GroupVersionKind() == gvk {
			return u, nil
		}
		c := u.DeepCopy()
		if convert != nil {
			out, err := convert(c, gvk)
			if err != nil {
				return nil, err
			}
			return out.(*unstructured.Unstructured), nil
		}
		c.SetGroupVersionKind(gvk)
		return c, nil
	}
	return func(obj, old api.Object, sub string) field.ErrorList {
		u, err := in(obj)
		if err != nil {
			return field.ErrorList{field.InternalError(nil, err)}
		}
		var was *unstructured.Unstructured
		if old != nil {
			if was, err = in(old); err != nil {
				return field.ErrorList{field.InternalError(nil, err)}
			}
		}
		return v.validate(u, was, sub)
	}
}

// reset keeps status and the rest apart, and counts generations.
func (c *custom) reset(obj, old api.Object, sub string) {
	u := obj.(*unstructured.Unstructured)
	status := c.kind.Subresource("status") != nil
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
