package apiextensions

import (
	"fmt"

	internal "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"

	"github.com/proa-dev/proa/internal/api"
)

// storedV1beta1 is how kube-apiserver keeps definitions to this day, although
// v1beta1 has not been served since v1.22.
func storedV1beta1() api.Shape {
	return api.Shape{
		GroupVersionKind: v1beta1.SchemeGroupVersion.WithKind("CustomResourceDefinition"),
		New:              func() api.Object { return &v1beta1.CustomResourceDefinition{} },
		Default:          api.Of(v1beta1.SetObjectDefaults_CustomResourceDefinition),
		To: func(obj api.Object) api.Object {
			hub, out := &internal.CustomResourceDefinition{}, &apiextensionsv1.CustomResourceDefinition{}
			err := v1beta1.Convert_v1beta1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(obj.(*v1beta1.CustomResourceDefinition), hub, nil)
			if err == nil {
				err = apiextensionsv1.Convert_apiextensions_CustomResourceDefinition_To_v1_CustomResourceDefinition(hub, out, nil)
			}
			if err != nil { // of the schema's JSON, which was just decoded
				panic(fmt.Sprintf("a definition of v1beta1 cannot be one of v1: %v", err))
			}
			return out
		},
	}
}
