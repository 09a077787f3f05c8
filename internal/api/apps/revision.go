package apps

import (
	"encoding/json"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/index"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func controllerRevision() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("ControllerRevision"),
		Resource:         "controllerrevisions",
		New:              func() api.Object { return &appsv1.ControllerRevision{} },
		NewList:          func() runtime.Object { return &appsv1.ControllerRevisionList{} },
		Validate:         api.Validates(validateRevision),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Controller", "string", "Controller of the object"),
			table.Col("Revision", "string", appsv1.ControllerRevision{}.SwaggerDoc()["revision"]),
			table.Age(),
		},
		Row: api.Rows(func(r *appsv1.ControllerRevision) []any {
			return []any{r.Name, controllerName(r), r.Revision, table.AgeOf(r)}
		}),
		Indexes: index.ByOwner(),
	}
}

func controllerName(obj metav1.Object) string {
	ref := metav1.GetControllerOfNoCopy(obj)
	if ref == nil {
		return "<none>"
	}
	kind := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).GroupKind()
	return strings.ToLower(kind.String()) + "/" + ref.Name
}

func validateRevision(r, old *appsv1.ControllerRevision, _ string) field.ErrorList {
	var e validate.Errs
	validate.NotBelowZero(&e, r.Revision, validate.Root("revision"))
	at := validate.Root("data")
	if old != nil {
		e.Immutable(at, r.Data, old.Data)
		return e.List()
	}
	var data any
	if r.Data.Raw == nil {
		e.Required(at, "data is mandatory")
	} else if err := json.Unmarshal(r.Data.Raw, &data); err != nil {
		e.Invalid(at, "<value omitted>", fmt.Sprintf("error parsing data: %v", err))
	} else if data == nil {
		e.Required(at, "data is mandatory")
	} else if _, object := data.(map[string]any); !object {
		e.Required(at, "data must be a valid JSON object")
	}
	return e.List()
}
