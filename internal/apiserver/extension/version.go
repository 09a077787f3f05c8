package extension

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"

	internal "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"
)

// version is one version of a definition and what its schema does to objects.
type version struct {
	gvk      schema.GroupVersionKind
	spec     *apiextensionsv1.CustomResourceDefinitionVersion
	preserve bool // what the schema does not know is kept (definitions of the oldest days)

	schema *structural.Structural // nil = anything goes
	judge  func() (*judge, error)
}

// judge is what validation needs; made when first needed.
type judge struct {
	whole, status validation.SchemaValidator
	rules         *cel.Validator // nil = the schema has none
}

func newVersion(d *apiextensionsv1.CustomResourceDefinition, spec *apiextensionsv1.CustomResourceDefinitionVersion) (*version, error) {
	v := &version{
		gvk:  schema.GroupVersionKind{Group: d.Spec.Group, Version: spec.Name, Kind: d.Spec.Names.Kind},
		spec: spec, preserve: d.Spec.PreserveUnknownFields,
	}
	var props *internal.JSONSchemaProps
	if spec.Schema != nil && spec.Schema.OpenAPIV3Schema != nil {
		in := &internal.CustomResourceValidation{}
		if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(spec.Schema, in, nil); err != nil {
			return nil, err
		}
		props = in.OpenAPIV3Schema
		var err error
		if v.schema, err = structural.NewStructural(props); err != nil {
			return nil, fmt.Errorf("the schema of version %s is not structural: %w", spec.Name, err)
		}
	}
	v.judge = sync.OnceValues(func() (*judge, error) { return newJudge(props, v.schema) })
	return v, nil
}

func newJudge(props *internal.JSONSchemaProps, s *structural.Structural) (*judge, error) {
	j := &judge{}
	if props == nil {
		return j, nil
	}
	var err error
	if j.whole, _, err = validation.NewSchemaValidator(props); err != nil {
		return nil, err
	}
	if status, ok := props.Properties["status"]; ok {
		if j.status, _, err = validation.NewSchemaValidator(&status); err != nil {
			return nil, err
		}
	}
	j.rules = cel.NewValidator(s, true, celconfig.PerCallLimit)
	return j, nil
}

// prune drops what the schema does not know, and returns the paths of it.
func (v *version) prune(u *unstructured.Unstructured) ([]string, error) {
	meta, found, unknown, err := objectmeta.GetObjectMetaWithOptions(u.Object, objectmeta.ObjectMetaOptions{ReturnUnknownFieldPaths: true})
	if err != nil {
		return nil, err
	}
	apiVersion, kind := u.GetAPIVersion(), u.GetKind()
	if !v.preserve {
		unknown = append(unknown, pruning.PruneWithOptions(u.Object, v.schema, true, structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})...)
		defaulting.PruneNonNullableNullsWithoutDefaults(u.Object, v.schema)
	}
	bad, more := objectmeta.CoerceWithOptions(nil, u.Object, v.schema, false, objectmeta.CoerceOptions{ReturnUnknownFieldPaths: true})
	if bad != nil {
		return nil, bad
	}
	u.SetAPIVersion(apiVersion)
	u.SetKind(kind)
	if found {
		if err := objectmeta.SetObjectMeta(u.Object, meta); err != nil {
			return nil, err
		}
	}
	return append(unknown, more...), nil
}

func (v *version) setDefaults(u *unstructured.Unstructured) {
	if v.schema != nil {
		defaulting.Default(u.Object, v.schema)
	}
}

// validate an object that is in this version. old is nil on create.
func (v *version) validate(u, old *unstructured.Unstructured, sub string) field.ErrorList {
	j, err := v.judge()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	var all field.ErrorList
	var related *common.CorrelatedObject
	var ratchet []validation.ValidationOption
	var lenient []cel.Option
	if old != nil && v.schema != nil {
		related = common.NewCorrelatedObject(u.Object, old.Object, &model.Structural{Structural: v.schema})
		ratchet = append(ratchet, validation.WithRatcheting(related))
		lenient = append(lenient, cel.WithRatcheting(related))
	}
	status := sub == "status"
	switch {
	case old == nil && j.whole != nil:
		all = validation.ValidateCustomResource(nil, u.Object, j.whole)
	case status && j.status != nil && u.Object["status"] != nil:
		var part []validation.ValidationOption
		if related != nil {
			if k := related.Key("status"); k != nil {
				part = append(part, validation.WithRatcheting(k))
			}
		}
		all = validation.ValidateCustomResourceUpdate(field.NewPath("status"), u.Object["status"], old.Object["status"], j.status, part...)
	case !status && j.whole != nil:
		all = validation.ValidateCustomResourceUpdate(nil, u.Object, old.Object, j.whole, ratchet...)
	}
	if s := v.spec.Subresources; s != nil && s.Scale != nil {
		all = append(all, checkScale(u, s.Scale, !status)...)
	}
	if v.schema == nil {
		return all
	}
	if !status {
		all = append(all, objectmeta.Validate(nil, u.Object, v.schema, false)...)
	}
	if old == nil || len(listtype.ValidateListSetsAndMaps(nil, v.schema, old.Object)) == 0 {
		all = append(all, listtype.ValidateListSetsAndMaps(nil, v.schema, u.Object)...)
	}
	if j.rules == nil {
		return all
	}
	if blocks(all) {
		return append(all, field.Invalid(nil, nil, "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"))
	}
	var was any
	if old != nil {
		was = old.Object
	}
	broken, _ := j.rules.Validate(context.Background(), nil, v.schema, u.Object, was, celconfig.RuntimeCELCostBudget, lenient...)
	return append(all, broken...)
}

// blocks says that an object is so wrong that rules cannot be evaluated.
func blocks(all field.ErrorList) bool {
	for _, e := range all {
		switch e.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return true
		}
	}
	return false
}

// checkScale holds the fields that the scale is made of against what a scale can say.
func checkScale(u *unstructured.Unstructured, s *apiextensionsv1.CustomResourceSubresourceScale, spec bool) (all field.ErrorList) {
	number := func(path string) {
		p := field.NewPath(path)
		n, _, err := unstructured.NestedInt64(u.Object, steps(path)...)
		switch {
		case err != nil:
			all = append(all, field.Invalid(p, n, err.Error()))
		case n < 0:
			all = append(all, field.Invalid(p, n, "should be a non-negative integer"))
		case n > math.MaxInt32:
			all = append(all, field.Invalid(p, n, fmt.Sprintf("should be less than or equal to %v", math.MaxInt32)))
		}
	}
	if spec {
		number(s.SpecReplicasPath)
	}
	number(s.StatusReplicasPath)
	if s.LabelSelectorPath != nil {
		if text, _, err := unstructured.NestedString(u.Object, steps(*s.LabelSelectorPath)...); err != nil {
			all = append(all, field.Invalid(field.NewPath(*s.LabelSelectorPath), text, err.Error()))
		}
	}
	return all
}

// steps of a simple JSON path: ".spec.replicas".
func steps(path string) []string { return strings.Split(strings.TrimPrefix(path, "."), ".") }
