package verbs

import (
	"fmt"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/cache"
)

// Selector picks objects by labels, by fields and by an index; the zero Selector
// picks all.
type Selector struct {
	Labels labels.Selector // nil = all
	Fields fields.Selector // nil = all
	Index  string          // "" = all; else one of Kind.Indexes …
	Value  string          // … in which an object has to have this value
}

// Everything says that the selector picks all objects.
func (s Selector) Everything() bool {
	return (s.Labels == nil || s.Labels.Empty()) && (s.Fields == nil || s.Fields.Empty()) && s.Index == ""
}

// ParseSelector reads selectors as a query writes them. Errors are BadRequests,
// also for a field that objects of the kind cannot be selected by.
func (v *Verbs) ParseSelector(k api.Served, label, field string) (Selector, error) {
	var s Selector
	var err error
	if label != "" {
		if s.Labels, err = labels.Parse(label); err != nil {
			return s, apierrors.NewBadRequest(err.Error())
		}
	}
	if field != "" {
		if s.Fields, err = fields.ParseSelector(field); err != nil {
			return s, apierrors.NewBadRequest(err.Error())
		}
		s.Fields, err = s.Fields.Transform(func(name, value string) (string, string, error) {
			name, err := v.fields.known(k.Kind, name)
			return name, value, err
		})
		if err != nil {
			return s, apierrors.NewBadRequest(err.Error())
		}
	}
	return s, nil
}

// fieldNames remembers which fields objects of a kind are selected by.
type fieldNames struct{ byKind sync.Map } // *api.Kind → fields.Set of a new object

func (f *fieldNames) known(k *api.Kind, name string) (string, error) {
	switch {
	case name == "metadata.name", name == "metadata.namespace" && (!k.Cluster || k.Fields == nil):
		return name, nil
	case k.Fields == nil:
		return "", fmt.Errorf("%q is not a known field selector: only %q, %q", name, "metadata.name", "metadata.namespace")
	case k.Group == "" && k.Kind == "Pod" && name == "spec.host":
		return "spec.nodeName", nil // as clients of the oldest days write it
	}
	set, ok := f.byKind.Load(k)
	if !ok {
		set, _ = f.byKind.LoadOrStore(k, k.Fields(k.New()))
	}
	if _, known := set.(fields.Set)[name]; !known {
		return "", fmt.Errorf("field label not supported: %s", name)
	}
	return name, nil
}

// Matches says whether an object is picked.
func (s Selector) Matches(k *api.Kind, item *cache.Item) bool {
	if s.Labels != nil && !s.Labels.Empty() && !s.Labels.Matches(labels.Set(item.Object.GetLabels())) {
		return false
	}
	if s.Index != "" && !slices.Contains(k.Indexes[s.Index](item.Object), s.Value) {
		return false
	}
	if s.Fields == nil || s.Fields.Empty() {
		return true
	}
	if name, ok := s.Fields.RequiresExactMatch("metadata.name"); ok && name != item.Object.GetName() {
		return false
	}
	set, _ := item.Remember("fields", func() (any, error) { return fieldsOf(k, item.Object), nil })
	return s.Fields.Matches(set.(fields.Set))
}

func fieldsOf(k *api.Kind, obj api.Object) fields.Set {
	all := fields.Set{"metadata.name": obj.GetName()}
	if !k.Cluster {
		all["metadata.namespace"] = obj.GetNamespace()
	}
	if k.Fields != nil {
		for name, value := range k.Fields(obj) {
			all[name] = value
		}
	}
	return all
}

// scope narrows what has to be looked at to what the selector could pick.
func (s Selector) scope(k *api.Kind, namespace, name string) cache.Scope {
	scope := cache.Scope{Namespace: namespace, Name: name}
	if name == "" {
		scope.Index, scope.Value = s.Index, s.Value
	}
	if s.Fields == nil {
		return scope
	}
	if ns, ok := s.Fields.RequiresExactMatch("metadata.namespace"); ok && namespace == "" && !k.Cluster {
		scope.Namespace = ns
	}
	if n, ok := s.Fields.RequiresExactMatch("metadata.name"); ok && name == "" {
		scope.Name = n
	}
	if scope.Name != "" || scope.Index != "" {
		return scope
	}
	for index := range k.Indexes {
		if value, ok := s.Fields.RequiresExactMatch(index); ok {
			scope.Index, scope.Value = index, value
			break
		}
	}
	return scope
}
