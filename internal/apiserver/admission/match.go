package admission

import (
	"slices"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/cache"
)

// What webhooks and policies of a user match.

// exempt are writes that no webhook and no policy sees, lest a mistake in one
// could not be mended.
func exempt(w *Write) bool {
	if w.Kind.Kind == nil || w.Kind.Virtual {
		return true
	}
	return w.Kind.Kind.Group == admissionv1.GroupName
}

// criteria choose writes.
type criteria struct {
	rules, except     []admissionv1.RuleWithOperations
	names, exceptName [][]string // of objects, for each rule; nil = all
	policy            *admissionv1.MatchPolicyType
	namespaces        *metav1.LabelSelector
	objects           *metav1.LabelSelector
}

// policyCriteria are those of a policy or binding.
func policyCriteria(m *admissionv1.MatchResources) criteria {
	c := criteria{policy: m.MatchPolicy, namespaces: m.NamespaceSelector, objects: m.ObjectSelector}
	for _, r := range m.ResourceRules {
		c.rules, c.names = append(c.rules, r.RuleWithOperations), append(c.names, r.ResourceNames)
	}
	for _, r := range m.ExcludeResourceRules {
		c.except, c.exceptName = append(c.except, r.RuleWithOperations), append(c.exceptName, r.ResourceNames)
	}
	return c
}

// match says whether a write is chosen and as which version of its kind.
func (c *criteria) match(w *Write, namespaces cache.Typed[*corev1.Namespace]) (api.Served, bool, error) {
	if ok, err := c.matchNamespace(w, namespaces); !ok || err != nil {
		return w.Kind, false, err
	}
	if ok, err := c.matchObject(w); !ok || err != nil {
		return w.Kind, false, err
	}
	if _, ok := find(c.except, c.exceptName, c.policy, w); ok {
		return w.Kind, false, nil
	}
	k, ok := find(c.rules, c.names, c.policy, w)
	return k, ok, nil
}

// find the version of a write's kind that a rule is about: the one that was asked
// for, or else an equivalent one.
func find(rules []admissionv1.RuleWithOperations, names [][]string, policy *admissionv1.MatchPolicyType, w *Write) (api.Served, bool) {
	try := func(k api.Served) bool {
		for i := range rules {
			if (len(names) == 0 || len(names[i]) == 0 || slices.Contains(names[i], w.Name)) && ruleMatches(&rules[i], k, w) {
				return true
			}
		}
		return false
	}
	if try(w.Kind) {
		return w.Kind, true
	}
	if policy != nil && *policy == admissionv1.Exact {
		return w.Kind, false
	}
	if w.Kind.Shape != nil && try(api.Served{Kind: w.Kind.Kind}) {
		return api.Served{Kind: w.Kind.Kind}, true
	}
	for i := range w.Kind.Shapes {
		if k := (api.Served{Kind: w.Kind.Kind, Shape: &w.Kind.Shapes[i]}); try(k) {
			return k, true
		}
	}
	return w.Kind, false
}

func ruleMatches(r *admissionv1.RuleWithOperations, k api.Served, w *Write) bool {
	gvk := k.GVK()
	has := func(list []string, want string) bool {
		return slices.Contains(list, "*") || slices.Contains(list, want)
	}
	if !has(r.APIGroups, gvk.Group) || !has(r.APIVersions, gvk.Version) ||
		!slices.Contains(r.Operations, admissionv1.OperationAll) && !slices.Contains(r.Operations, admissionv1.OperationType(w.Operation)) {
		return false
	}
	if r.Scope != nil && *r.Scope != admissionv1.AllScopes && (*r.Scope == admissionv1.NamespacedScope) != (w.Namespace != "" && !k.Cluster) {
		return false
	}
	plural := k.Plural()
	for _, want := range r.Resources {
		switch want {
		case "*/*":
			return true
		case "*":
			if w.Subresource == "" {
				return true
			}
		case plural:
			if w.Subresource == "" {
				return true
			}
		case plural + "/*", "*/" + w.Subresource, plural + "/" + w.Subresource:
			if w.Subresource != "" || want == plural+"/*" {
				return true
			}
		}
	}
	return false
}

func (c *criteria) matchNamespace(w *Write, namespaces cache.Typed[*corev1.Namespace]) (bool, error) {
	if c.namespaces == nil || len(c.namespaces.MatchLabels)+len(c.namespaces.MatchExpressions) == 0 {
		return true, nil
	}
	sel, err := metav1.LabelSelectorAsSelector(c.namespaces)
	if err != nil {
		return false, err
	}
	if isKind(w, "", "Namespace") {
		if w.Object != nil {
			return sel.Matches(labels.Set(w.Object.GetLabels())), nil
		}
		return w.Old == nil || sel.Matches(labels.Set(w.Old.GetLabels())), nil
	}
	if w.Namespace == "" {
		return true, nil
	}
	ns, ok := namespaces.Get("", w.Namespace)
	return ok && sel.Matches(labels.Set(ns.Labels)), nil
}

func (c *criteria) matchObject(w *Write) (bool, error) {
	if c.objects == nil || len(c.objects.MatchLabels)+len(c.objects.MatchExpressions) == 0 {
		return true, nil
	}
	sel, err := metav1.LabelSelectorAsSelector(c.objects)
	if err != nil {
		return false, err
	}
	return w.Object != nil && sel.Matches(labels.Set(w.Object.GetLabels())) || w.Old != nil && sel.Matches(labels.Set(w.Old.GetLabels())), nil
}

// inVersion is an object that a write works on in a served version, with its kind
// written on it; nil for nil. It is the caller's.
func inVersion(obj api.Object, k api.Served) (api.Object, error) {
	if obj == nil {
		return nil, nil
	}
	out := obj.DeepCopyObject().(api.Object)
	switch {
	case k.Convert != nil:
		var err error
		if out, err = k.Convert(out, k.GVK()); err != nil {
			return nil, err
		}
	case k.Shape != nil:
		out = k.Shape.From(out)
	}
	out.GetObjectKind().SetGroupVersionKind(k.GVK())
	return out, nil
}

// toHub is the way back.
func toHub(obj api.Object, k api.Served, w *Write) (api.Object, error) {
	switch {
	case k.Convert != nil:
		return k.Convert(obj, w.Object.GetObjectKind().GroupVersionKind())
	case k.Shape != nil:
		obj = k.Shape.To(obj)
	}
	if k.Encoding == api.Protobuf {
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	}
	return obj, nil
}

// replace makes w.Object what another object says.
func replace(w *Write, by api.Object) {
	if k := w.Kind.Kind; k.Default != nil {
		k.Default(by)
	}
	assign(w.Object, by)
}
