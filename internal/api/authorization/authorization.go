// Package authorization describes the reviews of authorization.k8s.io/v1, which
// say what somebody may do. They are answered, never stored.
package authorization

import (
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/validate"
)

// Kinds of the group.
func Kinds() []*api.Kind {
	return []*api.Kind{
		review("LocalSubjectAccessReview", "localsubjectaccessreviews", false,
			func() api.Object { return &authorizationv1.LocalSubjectAccessReview{} }, api.Validates(validateLocal)),
		review("SelfSubjectAccessReview", "selfsubjectaccessreviews", true,
			func() api.Object { return &authorizationv1.SelfSubjectAccessReview{} }, api.Validates(validateSelf)),
		review("SelfSubjectRulesReview", "selfsubjectrulesreviews", true,
			func() api.Object { return &authorizationv1.SelfSubjectRulesReview{} }, nil),
		review("SubjectAccessReview", "subjectaccessreviews", true,
			func() api.Object { return &authorizationv1.SubjectAccessReview{} }, api.Validates(validateSubject)),
	}
}

func review(kind, resource string, cluster bool, create func() api.Object, check func(obj, old api.Object, sub string) field.ErrorList) *api.Kind {
	return &api.Kind{
		GroupVersionKind: authorizationv1.SchemeGroupVersion.WithKind(kind),
		Resource:         resource,
		Cluster:          cluster,
		Verbs:            []string{"create"},
		Virtual:          true,
		New:              create,
		Validate:         check,
	}
}

func validateSubject(r, _ *authorizationv1.SubjectAccessReview, _ string) field.ErrorList {
	var e validate.Errs
	attributes(&e, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	subject(&e, &r.Spec)
	noMeta(&e, r.ObjectMeta, "must be empty")
	return e.List()
}

func validateSelf(r, _ *authorizationv1.SelfSubjectAccessReview, _ string) field.ErrorList {
	var e validate.Errs
	attributes(&e, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	noMeta(&e, r.ObjectMeta, "must be empty")
	return e.List()
}

func validateLocal(r, _ *authorizationv1.LocalSubjectAccessReview, _ string) field.ErrorList {
	var e validate.Errs
	attributes(&e, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	subject(&e, &r.Spec)
	meta := r.ObjectMeta
	meta.Namespace = ""
	noMeta(&e, meta, "must be empty except for namespace")
	p := validate.Root("spec")
	if a := r.Spec.ResourceAttributes; a != nil && a.Namespace != r.Namespace {
		e.Invalid(p.Child("resourceAttributes").Child("namespace"), a.Namespace, "must match metadata.namespace")
	}
	if a := r.Spec.NonResourceAttributes; a != nil {
		e.Invalid(p.Child("nonResourceAttributes"), a, "disallowed on this kind of request")
	}
	return e.List()
}

func subject(e *validate.Errs, s *authorizationv1.SubjectAccessReviewSpec) {
	if s.User == "" && len(s.Groups) == 0 {
		e.Invalid(validate.Root("spec").Child("user"), s.User, "at least one of user or group must be specified")
	}
}

// noMeta requires metadata that says nothing; the API server may have stamped it.
func noMeta(e *validate.Errs, meta metav1.ObjectMeta, message string) {
	meta.ManagedFields, meta.UID, meta.CreationTimestamp = nil, "", metav1.Time{}
	if !apiequality.Semantic.DeepEqual(metav1.ObjectMeta{}, meta) {
		e.Invalid(validate.Root("metadata"), meta, message)
	}
}

func attributes(e *validate.Errs, r *authorizationv1.ResourceAttributes, n *authorizationv1.NonResourceAttributes) {
	p := validate.Root("spec")
	if r != nil && n != nil {
		e.Invalid(p.Child("nonResourceAttributes"), n, "cannot be specified in combination with resourceAttributes")
	}
	if r == nil && n == nil {
		e.Invalid(p.Child("resourceAttributes"), n, "exactly one of nonResourceAttributes or resourceAttributes must be specified")
	}
	if r == nil {
		return
	}
	if s := r.FieldSelector; s != nil {
		at := p.Child("resourceAttributes").Child("fieldSelector")
		selector(e, s.RawSelector, len(s.Requirements), at)
		for i, q := range s.Requirements {
			e.Add(metavalidation.ValidateFieldSelectorRequirement(q,
				metavalidation.FieldSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, at.Child("requirements").Index(i).Field())...)
		}
	}
	if s := r.LabelSelector; s != nil {
		at := p.Child("resourceAttributes").Child("labelSelector")
		selector(e, s.RawSelector, len(s.Requirements), at)
		for i, q := range s.Requirements {
			e.Add(metavalidation.ValidateLabelSelectorRequirement(q,
				metavalidation.LabelSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, at.Child("requirements").Index(i).Field())...)
		}
	}
}

func selector(e *validate.Errs, raw string, requirements int, p *validate.Path) {
	if raw != "" && requirements > 0 {
		e.Invalid(p.Child("rawSelector"), raw, "may not specified at the same time as requirements")
	}
	if raw == "" && requirements == 0 {
		e.Required(p.Child("requirements"), fmt.Sprintf("when %s is specified, requirements or rawSelector is required", p))
	}
}
