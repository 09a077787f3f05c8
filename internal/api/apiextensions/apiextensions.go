// Package apiextensions describes CustomResourceDefinition of
// apiextensions.k8s.io/v1. What definitions bring about, package
// apiserver/extension does.
//
// The rules for a definition (structural schemas, CEL and its cost, versions,
// conversion) are those of k8s.io/apiextensions-apiserver.
package apiextensions

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	internal "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
)

// Kinds of the group.
func Kinds() []*api.Kind {
	return []*api.Kind{{
		GroupVersionKind: apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"),
		Resource:         "customresourcedefinitions",
		Path:             "apiextensions.k8s.io/customresourcedefinitions",
		ShortNames:       []string{"crd", "crds"},
		Categories:       []string{"api-extensions"},
		Cluster:          true,
		StrictUpdate:     true,
		New:              func() api.Object { return &apiextensionsv1.CustomResourceDefinition{} },
		NewList:          func() runtime.Object { return &apiextensionsv1.CustomResourceDefinitionList{} },
		Default:          api.Of(apiextensionsv1.SetObjectDefaults_CustomResourceDefinition),
		Reset:            api.Resets(reset),
		Validate:         api.Validates(validate),
		Deleting:         api.Of(deleting),
		Columns: []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
			{Name: "Created At", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
		},
		Row: api.Rows(func(d *apiextensionsv1.CustomResourceDefinition) []any {
			return []any{d.Name, d.CreationTimestamp.UTC().Format("2006-01-02T15:04:05Z")}
		}),
		Subresources: []api.Subresource{{Name: "status"}},
		Stored:       []api.Shape{storedV1beta1()},
	}}
}

func reset(d, old *apiextensionsv1.CustomResourceDefinition, sub string) {
	switch {
	case old == nil:
		d.Status = apiextensionsv1.CustomResourceDefinitionStatus{}
		d.Generation = 1
	case sub == "status":
		d.Spec = old.Spec
		return
	default:
		d.Status = *old.Status.DeepCopy()
		if !apiequality.Semantic.DeepEqual(d.Spec, old.Spec) {
			d.Generation = old.Generation + 1
		}
	}
	for _, v := range d.Spec.Versions {
		if v.Storage && !slices.Contains(d.Status.StoredVersions, v.Name) {
			d.Status.StoredVersions = append(d.Status.StoredVersions, v.Name)
		}
	}
}

// deleting holds a definition until its objects are gone.
func deleting(d *apiextensionsv1.CustomResourceDefinition) {
	if !apihelpers.CRDHasFinalizer(d, apiextensionsv1.CustomResourceCleanupFinalizer) {
		d.Finalizers = append(d.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer)
	}
	apihelpers.SetCRDCondition(d, apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionTrue, Reason: "InstanceDeletionPending",
		Message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
	})
}

func validate(d, old *apiextensionsv1.CustomResourceDefinition, sub string) field.ErrorList {
	obj, err := hub(d)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	if old == nil {
		return validation.ValidateCustomResourceDefinition(context.Background(), obj)
	}
	was, err := hub(old)
	switch {
	case err != nil:
		return field.ErrorList{field.InternalError(nil, err)}
	case sub == "status":
		return validation.ValidateUpdateCustomResourceDefinitionStatus(obj, was)
	}
	return validation.ValidateCustomResourceDefinitionUpdate(context.Background(), obj, was)
}

// hub is a definition as the library's rules want it.
func hub(d *apiextensionsv1.CustomResourceDefinition) (*internal.CustomResourceDefinition, error) {
	out := &internal.CustomResourceDefinition{}
	err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(d.DeepCopy(), out, nil)
	if err != nil {
		return nil, fmt.Errorf("the definition cannot be read: %w", err)
	}
	return out, nil
}
