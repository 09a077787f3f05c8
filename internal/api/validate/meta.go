package validate

import (
	"fmt"
	"sort"
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
)

// Labels of an object or a template.
func Labels(e *Errs, labels map[string]string, p *Path) {
	for k, v := range labels {
		LabelKey(e, k, p)
		if why := LabelValue(v); why != nil {
			e.Invalids(p, v, why)
		}
	}
}

// LabelKey is a label's key, or a selector's.
func LabelKey(e *Errs, key string, p *Path) {
	if why := QualifiedName(key); why != nil {
		e.Invalids(p, key, why)
	}
}

// Annotations of an object or a template: keys as labels', in any case, and
// 256 kB in all.
func Annotations(e *Errs, annotations map[string]string, p *Path) {
	size := 0
	for k, v := range annotations {
		size += len(k) + len(v)
		if !isQualifiedName(k) {
			e.Invalids(p, k, QualifiedName(strings.ToLower(k)))
		}
	}
	if size > apivalidation.TotalAnnotationSizeLimitB {
		e.TooLong(p, apivalidation.TotalAnnotationSizeLimitB)
	}
}

// Selector checks a label selector; nil is good.
func Selector(e *Errs, s *metav1.LabelSelector, p *Path) {
	selector(e, s, p, false)
}

// SelectorUpdate is Selector for an update: label values that were bad already
// are let be.
func SelectorUpdate(e *Errs, s, old *metav1.LabelSelector, p *Path) {
	selector(e, s, p, metavalidation.LabelSelectorHasInvalidLabelValue(old))
}

func selector(e *Errs, s *metav1.LabelSelector, p *Path, anyValue bool) {
	if s == nil {
		return
	}
	Labels(e, s.MatchLabels, p.Child("matchLabels"))
	for i := range s.MatchExpressions {
		r := &s.MatchExpressions[i]
		at := p.Child("matchExpressions").Index(i)
		switch r.Operator {
		case metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn:
			if len(r.Values) == 0 {
				e.Required(at.Child("values"), "must be specified when `operator` is 'In' or 'NotIn'")
			}
		case metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist:
			if len(r.Values) > 0 {
				e.Forbidden(at.Child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
			}
		default:
			e.Invalid(at.Child("operator"), r.Operator, "not a valid selector operator")
		}
		LabelKey(e, r.Key, at.Child("key"))
		for j, v := range r.Values {
			if why := LabelValue(v); why != nil && !anyValue {
				e.Invalids(at.Child("values").Index(j), v, why)
			}
		}
	}
}

// ObjectMeta checks the metadata of an object that is created, its name
// generated already. validName is the kind's; nil = Subdomain.
func ObjectMeta(e *Errs, m metav1.Object, namespaced bool, validName func(string, bool) []string, p *Path) {
	if validName == nil {
		validName = SubdomainName
	}
	if g := m.GetGenerateName(); g != "" {
		e.Invalids(p.Child("generateName"), g, validName(g, true))
	}
	if m.GetName() == "" {
		e.Required(p.Child("name"), "name or generateName is required")
	} else if why := validName(m.GetName(), false); why != nil {
		e.Invalids(p.Child("name"), m.GetName(), why)
	}
	switch ns := m.GetNamespace(); {
	case !namespaced && ns != "":
		e.Forbidden(p.Child("namespace"), "not allowed on this type")
	case namespaced && ns == "":
		e.Required(p.Child("namespace"), "")
	case namespaced:
		if why := Label(ns); why != nil {
			e.Invalids(p.Child("namespace"), ns, why)
		}
	}
	if m.GetGeneration() < 0 {
		e.Invalid(p.Child("generation"), m.GetGeneration(), NotNegative)
	}
	commonMeta(e, m, p)
	Finalizers(e, m.GetFinalizers(), p.Child("finalizers"))
}

// ObjectMetaUpdate checks the metadata of an object that replaces old.
func ObjectMetaUpdate(e *Errs, m, old metav1.Object, p *Path) {
	if old.GetDeletionTimestamp() != nil {
		var added []string
		had := map[string]bool{}
		for _, f := range old.GetFinalizers() {
			had[f] = true
		}
		for _, f := range m.GetFinalizers() {
			if !had[f] {
				had[f] = true
				added = append(added, f)
			}
		}
		if added != nil {
			sort.Strings(added)
			e.Forbidden(p.Child("finalizers"), fmt.Sprintf("no new finalizers can be added if the object is being deleted, found new finalizers %#v", added))
		}
	}
	if m.GetResourceVersion() == "" {
		e.Invalid(p.Child("resourceVersion"), "", "must be specified for an update")
	}
	if m.GetGeneration() < old.GetGeneration() {
		e.Invalid(p.Child("generation"), m.GetGeneration(), "must not be decremented")
	}
	if m.GetName() != old.GetName() {
		e.Invalid(p.Child("name"), m.GetName(), IsImmutable)
	}
	if m.GetNamespace() != old.GetNamespace() {
		e.Invalid(p.Child("namespace"), m.GetNamespace(), IsImmutable)
	}
	if m.GetUID() != old.GetUID() {
		e.Invalid(p.Child("uid"), m.GetUID(), IsImmutable)
	}
	if a, b := m.GetCreationTimestamp(), old.GetCreationTimestamp(); !a.Equal(&b) {
		e.Invalid(p.Child("creationTimestamp"), a, IsImmutable)
	}
	if a, b := m.GetDeletionTimestamp(), old.GetDeletionTimestamp(); !a.Equal(b) {
		e.Invalid(p.Child("deletionTimestamp"), a, IsImmutable)
	}
	if a, b := m.GetDeletionGracePeriodSeconds(), old.GetDeletionGracePeriodSeconds(); (a == nil) != (b == nil) || a != nil && *a != *b {
		e.Invalid(p.Child("deletionGracePeriodSeconds"), a, IsImmutable)
	}
	commonMeta(e, m, p)
}

func commonMeta(e *Errs, m metav1.Object, p *Path) {
	Labels(e, m.GetLabels(), p.Child("labels"))
	Annotations(e, m.GetAnnotations(), p.Child("annotations"))
	if refs := m.GetOwnerReferences(); len(refs) > 0 {
		e.Add(apivalidation.ValidateOwnerReferences(refs, p.Child("ownerReferences").Field())...)
	}
	if mf := m.GetManagedFields(); len(mf) > 0 {
		e.Add(metavalidation.ValidateManagedFields(mf, p.Child("managedFields").Field())...)
	}
}

// Finalizers are qualified names; orphaning and foreground deletion exclude
// each other.
func Finalizers(e *Errs, finalizers []string, p *Path) {
	orphan, foreground := false, false
	for _, f := range finalizers {
		LabelKey(e, f, p)
		orphan = orphan || f == metav1.FinalizerOrphanDependents
		foreground = foreground || f == metav1.FinalizerDeleteDependents
	}
	if orphan && foreground {
		e.Invalid(p, finalizers, "finalizer "+metav1.FinalizerOrphanDependents+" and "+metav1.FinalizerDeleteDependents+" cannot be both set")
	}
}
