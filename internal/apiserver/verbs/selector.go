package verbs

import (
	"fmt"
	"maps"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/index"
	"github.com/proa-dev/proa/internal/cache"
)

// Selector picks objects by labels, by fields and by an index; the zero Selector
// picks all.
type Selector struct {
	Labels labels.Selector // nil = all
	Fields fields.Selector // nil = all
	Index  string          // "" = all; else one of Kind.Indexes …
	Value  string          // … in which an object has to have this value

	equal []cache.Label // of one value, all that Labels says; nil = it says more than this could
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
			name, err := known(k, name)
			return name, value, err
		})
		if err != nil {
			return s, apierrors.NewBadRequest(err.Error())
		}
	}
	return s, nil
}

// known is a field that objects can be selected by in a version, by its name today.
func known(k api.Served, name string) (string, error) {
	hub := k.Hub()
	custom := k.Encoding == api.JSON
	switch {
	case name == "metadata.name", name == "metadata.namespace" && (!k.Cluster || hub.Fields == nil && !custom):
		return name, nil
	case hub.Fields == nil && !custom:
		return "", fmt.Errorf("%q is not a known field selector: only %q, %q", name, "metadata.name", "metadata.namespace")
	case k.Group == "" && k.Kind.Kind == "Pod" && name == "spec.host":
		return "spec.nodeName", nil // as clients of the oldest days write it
	}
	if hub.Fields != nil {
		if _, ok := hub.Fields(hub.New())[name]; ok {
			return name, nil
		}
	}
	return "", fmt.Errorf("field label not supported: %s", name)
}

// Matches says whether an object is picked. It fails when the object cannot be had
// in the version that the selector is about.
func (s Selector) Matches(k api.Served, item *cache.Item) (bool, error) {
	if !s.matchesMeta(k.Kind, item) {
		return false, nil
	}
	if s.Fields == nil || s.Fields.Empty() {
		return true, nil
	}
	set, err := item.Remember(inVersion("fields", k), func() (any, error) { return fieldsOf(k, item) })
	if err != nil {
		return false, err
	}
	return s.Fields.Matches(set.(fields.Set)), nil
}

// forMany is the same selector for those who ask about many objects: labels that have
// to have one value are looked up, not interpreted.
func (s Selector) forMany() Selector {
	if s.Labels == nil {
		return s
	}
	requirements, _ := s.Labels.Requirements()
	required := s.required()
	if len(required) == len(requirements) && !slices.ContainsFunc(required, func(l cache.Label) bool { return len(l.Values) != 1 }) {
		s.equal = required
	}
	return s
}

func (s Selector) matchesLabels(item *cache.Item) bool {
	has := item.Object.GetLabels()
	if s.equal == nil {
		return s.Labels.Matches(labels.Set(has))
	}
	for _, l := range s.equal {
		if v, ok := has[l.Key]; !ok || v != l.Values[0] {
			return false
		}
	}
	return true
}

// matchesMeta is Matches as far as it can be told in any version.
func (s Selector) matchesMeta(k *api.Kind, item *cache.Item) bool {
	if s.Labels != nil && !s.Labels.Empty() && !s.matchesLabels(item) {
		return false
	}
	if s.Index != "" && !slices.Contains(k.Indexes[s.Index](item.Object), s.Value) {
		return false
	}
	if s.Fields == nil || s.Fields.Empty() {
		return true
	}
	name, ok := s.Fields.RequiresExactMatch("metadata.name")
	return !ok || name == item.Object.GetName()
}

// onFields says that the selector asks for more than metadata of a version.
func (s Selector) onFields() bool { return s.Fields != nil && !s.Fields.Empty() }

func fieldsOf(k api.Served, item *cache.Item) (fields.Set, error) {
	all := fields.Set{"metadata.name": item.Object.GetName()}
	if !k.Cluster {
		all["metadata.namespace"] = item.Object.GetNamespace()
	}
	hub := k.Hub()
	if hub.Fields == nil {
		return all, nil
	}
	obj := item.Object
	if k.Convert != nil {
		var err error
		if obj, err = ShapedItem(item, k); err != nil {
			return nil, err
		}
	}
	maps.Copy(all, hub.Fields(obj))
	return all, nil
}

// scope narrows what has to be looked at to what the selector could pick.
func (s Selector) scope(k api.Served, namespace, name string) cache.Scope {
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
	if scope.Name != "" || scope.Index != "" || k.Hub() != k.Kind { // indexes are of the storage version
		return scope
	}
	for name := range k.Indexes {
		if name == index.Owner || name == index.Owners { // no fields, whatever fields are called
			continue
		}
		if value, ok := s.Fields.RequiresExactMatch(name); ok {
			scope.Index, scope.Value = name, value
			break
		}
	}
	return scope
}
