// Package autoscaling describes HorizontalPodAutoscaler and the scale
// subresource that every kind with replicas has.
package autoscaling

import (
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/validate"
)

// Replicas are the parts of an object that its scale shows.
type Replicas struct {
	Wanted   **int32 // where spec.replicas is kept
	Current  int32   // status.replicas
	Selector string  // of the pods, in the form of a query
}

// Scale is the scale subresource of a resource ("deployments.apps"), over what
// replicas finds in an object.
func Scale[T api.Object](resource schema.GroupResource, replicas func(T) Replicas) api.Subresource {
	return api.Subresource{
		Name: "scale",
		Kind: autoscalingv1.SchemeGroupVersion.WithKind("Scale"),
		Body: func() runtime.Object { return &autoscalingv1.Scale{} },
		Get: func(obj api.Object) (runtime.Object, error) {
			r := replicas(obj.(T))
			scale := &autoscalingv1.Scale{
				ObjectMeta: metav1.ObjectMeta{
					Name:              obj.GetName(),
					Namespace:         obj.GetNamespace(),
					UID:               obj.GetUID(),
					ResourceVersion:   obj.GetResourceVersion(),
					CreationTimestamp: obj.GetCreationTimestamp(),
				},
				Status: autoscalingv1.ScaleStatus{Replicas: r.Current, Selector: r.Selector},
			}
			if *r.Wanted != nil {
				scale.Spec.Replicas = **r.Wanted
			}
			return scale, nil
		},
		Set: func(obj api.Object, body runtime.Object) error {
			return setScale(resource, obj, body.(*autoscalingv1.Scale), replicas(obj.(T)).Wanted)
		},
	}
}

func setScale(resource schema.GroupResource, obj api.Object, scale *autoscalingv1.Scale, wanted **int32) error {
	var errs validate.Errs
	validate.ObjectMeta(&errs, scale, true, nil, validate.Root("metadata"))
	validate.NotBelowZero(&errs, scale.Spec.Replicas, validate.Root("spec").Child("replicas"))
	if errs.Len() > 0 {
		return errors.NewInvalid(schema.GroupKind{Group: "autoscaling", Kind: "Scale"}, obj.GetName(), errs.List())
	}
	if scale.UID != "" && scale.UID != obj.GetUID() {
		resource.Resource += "/scale"
		return errors.NewConflict(resource, obj.GetName(),
			fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", scale.UID, obj.GetUID()))
	}
	n := scale.Spec.Replicas
	*wanted = &n
	obj.SetResourceVersion(scale.ResourceVersion)
	return nil
}

// SelectorText is a label selector in the form of a query, as Scale shows it.
func SelectorText(s *metav1.LabelSelector) string {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return "<invalid>"
	}
	return selector.String()
}
