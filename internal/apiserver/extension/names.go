package extension

import (
	"fmt"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	internal "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// taken are the names that the definitions of a group have been given.
type taken struct{ resources, kinds map[string]bool }

func takenIn(group, butNot string, all []*apiextensionsv1.CustomResourceDefinition) taken {
	t := taken{map[string]bool{}, map[string]bool{}}
	for _, d := range all {
		if d.Spec.Group != group || d.Name == butNot {
			continue
		}
		n := d.Status.AcceptedNames
		for _, name := range append([]string{n.Plural, n.Singular}, n.ShortNames...) {
			t.resources[name] = name != ""
		}
		t.kinds[n.Kind], t.kinds[n.ListKind] = n.Kind != "", n.ListKind != ""
	}
	return t
}

// decide what a definition's status has to say: which of its names it is given,
// whether it can be served, and what is wrong with it. d is changed.
func decide(d *apiextensionsv1.CustomResourceDefinition, all []*apiextensionsv1.CustomResourceDefinition) {
	names, accepted := accept(d, takenIn(d.Spec.Group, d.Name, all))
	d.Status.AcceptedNames = names
	apihelpers.SetCRDCondition(d, accepted)
	if !apihelpers.IsCRDConditionTrue(d, apiextensionsv1.Established) {
		established := apiextensionsv1.CustomResourceDefinitionCondition{
			Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionFalse, Reason: "NotAccepted", Message: "not all names are accepted",
		}
		if accepted.Status == apiextensionsv1.ConditionTrue {
			established.Status, established.Reason, established.Message = apiextensionsv1.ConditionTrue, "InitialNamesAccepted", "the initial names have been accepted"
		}
		apihelpers.SetCRDCondition(d, established)
	}
	if apihelpers.IsProtectedCommunityGroup(d.Spec.Group) {
		apihelpers.SetCRDCondition(d, approval(d))
	}
	if bad := unstructural(d); bad != nil {
		apihelpers.SetCRDCondition(d, *bad)
	} else {
		apihelpers.RemoveCRDCondition(d, apiextensionsv1.NonStructuralSchema)
	}
}

// accept gives a definition those of its names that nobody else in its group has.
func accept(d *apiextensionsv1.CustomResourceDefinition, t taken) (apiextensionsv1.CustomResourceDefinitionNames, apiextensionsv1.CustomResourceDefinitionCondition) {
	want, has := d.Spec.Names, *d.Status.AcceptedNames.DeepCopy()
	cond := apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionTrue, Reason: "NoConflicts", Message: "no conflicts found",
	}
	refuse := func(reason string, err error) {
		cond.Status, cond.Reason, cond.Message = apiextensionsv1.ConditionFalse, reason, err.Error()
	}
	give := func(to *string, name string, taken map[string]bool, reason string) {
		if name != *to && taken[name] {
			refuse(reason, fmt.Errorf("%q is already in use", name))
			return
		}
		*to = name
	}
	give(&has.Plural, want.Plural, t.resources, "PluralConflict")
	give(&has.Singular, want.Singular, t.resources, "SingularConflict")
	var short []error
	for _, name := range want.ShortNames {
		if !slices.Contains(has.ShortNames, name) && t.resources[name] {
			short = append(short, fmt.Errorf("%q is already in use", name))
		}
	}
	if err := utilerrors.NewAggregate(short); err != nil {
		refuse("ShortNamesConflict", err)
	} else {
		has.ShortNames = want.ShortNames
	}
	give(&has.Kind, want.Kind, t.kinds, "KindConflict")
	give(&has.ListKind, want.ListKind, t.kinds, "ListKindConflict")
	has.Categories = want.Categories
	return has, cond
}

// approval says whether a group that belongs to the Kubernetes community has its consent.
func approval(d *apiextensionsv1.CustomResourceDefinition) apiextensionsv1.CustomResourceDefinitionCondition {
	state, message := apihelpers.GetAPIApprovalState(d.Annotations)
	cond := apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.KubernetesAPIApprovalPolicyConformant, Status: apiextensionsv1.ConditionFalse, Message: message,
	}
	switch state {
	case apihelpers.APIApprovalInvalid:
		cond.Reason = "InvalidAnnotation"
	case apihelpers.APIApprovalMissing:
		cond.Reason = "MissingAnnotation"
	case apihelpers.APIApproved:
		cond.Status, cond.Reason = apiextensionsv1.ConditionTrue, "ApprovedAnnotation"
	case apihelpers.APIApprovalBypassed:
		cond.Reason = "UnapprovedAnnotation"
	default:
		cond.Status, cond.Reason = apiextensionsv1.ConditionUnknown, "UnknownAnnotation"
	}
	return cond
}

// unstructural says what is wrong with the schemas of an old definition, nil = nothing.
func unstructural(d *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinitionCondition {
	cond := &apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.NonStructuralSchema, Status: apiextensionsv1.ConditionTrue, Reason: "Violations"}
	var all field.ErrorList
	if d.Spec.PreserveUnknownFields {
		all = append(all, field.Invalid(field.NewPath("spec", "preserveUnknownFields"), true, "must be false"))
	}
	for i, v := range d.Spec.Versions {
		if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
			continue
		}
		in := &internal.CustomResourceValidation{}
		if apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(v.Schema, in, nil) != nil {
			continue
		}
		s, err := structural.NewStructural(in.OpenAPIV3Schema)
		if err != nil {
			cond.Status, cond.Reason = apiextensionsv1.ConditionUnknown, "StructuralError"
			cond.Message = fmt.Sprintf("failed to check validation schema for version %s: %v", v.Name, err)
			return cond
		}
		all = append(all, structural.ValidateStructural(field.NewPath("spec", "versions").Index(i).Child("schema", "openAPIV3Schema"), s)...)
	}
	if len(all) == 0 {
		return nil
	}
	cond.Message = all.ToAggregate().Error()
	return cond
}
