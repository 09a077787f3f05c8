package apps

import (
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/autoscaling"
	"github.com/proa-dev/proa/internal/api/core"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/index"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func replicaSet() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("ReplicaSet"),
		Resource:         "replicasets",
		ShortNames:       []string{"rs"},
		Categories:       []string{"all"},
		New:              func() api.Object { return &appsv1.ReplicaSet{} },
		NewList:          func() runtime.Object { return &appsv1.ReplicaSetList{} },
		Default: api.Of(func(r *appsv1.ReplicaSet) {
			defaults.Ptr(&r.Spec.Replicas, 1)
			core.DefaultPodTemplate(&r.Spec.Template)
		}),
		Reset: reset.SpecStatus(func(r *appsv1.ReplicaSet) (*appsv1.ReplicaSetSpec, *appsv1.ReplicaSetStatus) {
			return &r.Spec, &r.Status
		}),
		Validate: api.Validates(validateReplicaSet),
		Warn: api.Warns(func(r, old *appsv1.ReplicaSet) []string {
			if old != nil {
				return warnTemplate(r, old, &r.Spec.Template)
			}
			return append(longName(r.Name), warnTemplate(r, nil, &r.Spec.Template)...)
		}),
		Columns: append([]metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Desired", "integer", appsv1.ReplicaSetSpec{}.SwaggerDoc()["replicas"]),
			table.Col("Current", "integer", appsv1.ReplicaSetStatus{}.SwaggerDoc()["replicas"]),
			table.Col("Ready", "integer", appsv1.ReplicaSetStatus{}.SwaggerDoc()["readyReplicas"]),
			table.Age(),
		}, append(table.Containers(), table.Wide("Selector", "string", appsv1.ReplicaSetSpec{}.SwaggerDoc()["selector"]))...),
		Row: api.Rows(func(r *appsv1.ReplicaSet) []any {
			names, images := table.ContainerCells(r.Spec.Template.Spec.Containers)
			return []any{r.Name, int64(*r.Spec.Replicas), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas), table.AgeOf(r),
				names, images, metav1.FormatLabelSelector(r.Spec.Selector)}
		}),
		Fields: api.FieldsOf(func(r *appsv1.ReplicaSet) fields.Set {
			return fields.Set{"status.replicas": strconv.Itoa(int(r.Status.Replicas))}
		}),
		Indexes: index.ByOwner(),
		Subresources: []api.Subresource{
			status(),
			autoscaling.Scale(resource("replicasets"), func(r *appsv1.ReplicaSet) autoscaling.Replicas {
				return autoscaling.Replicas{Wanted: &r.Spec.Replicas, Current: r.Status.Replicas, Selector: autoscaling.SelectorText(r.Spec.Selector)}
			}),
		},
	}
}

func validateReplicaSet(r, old *appsv1.ReplicaSet, sub string) field.ErrorList {
	var e validate.Errs
	if sub == "status" {
		replicaSetStatus(&e, &r.Status, validate.Root("status"))
		return e.List()
	}
	p, s := validate.Root("spec"), &r.Spec
	optional(&e, s.Replicas, p.Child("replicas"))
	validate.NotBelowZero(&e, s.MinReadySeconds, p.Child("minReadySeconds"))
	if old == nil {
		selectorAndTemplate(&e, s.Selector, &s.Template, nil, "deployment", "invalid label selector", p)
	} else {
		selectorAndTemplate(&e, s.Selector, &s.Template, &old.Spec.Template, "deployment", "invalid label selector", p)
		e.Immutable(p.Child("selector"), s.Selector, old.Spec.Selector)
	}
	runsForEver(&e, &s.Template.Spec, "ReplicaSet", p)
	return e.List()
}

func replicaSetStatus(e *validate.Errs, s *appsv1.ReplicaSetStatus, p *validate.Path) {
	validate.NotBelowZero(e, s.Replicas, p.Child("replicas"))
	validate.NotBelowZero(e, s.FullyLabeledReplicas, p.Child("fullyLabeledReplicas"))
	validate.NotBelowZero(e, s.ReadyReplicas, p.Child("readyReplicas"))
	validate.NotBelowZero(e, s.AvailableReplicas, p.Child("availableReplicas"))
	validate.NotBelowZero(e, s.ObservedGeneration, p.Child("observedGeneration"))
	optional(e, s.TerminatingReplicas, p.Child("terminatingReplicas"))
	atMost(e, s.FullyLabeledReplicas, s.Replicas, p.Child("fullyLabeledReplicas"), "status.replicas")
	atMost(e, s.ReadyReplicas, s.Replicas, p.Child("readyReplicas"), "status.replicas")
	atMost(e, s.AvailableReplicas, s.Replicas, p.Child("availableReplicas"), "status.replicas")
	atMost(e, s.AvailableReplicas, s.ReadyReplicas, p.Child("availableReplicas"), "readyReplicas")
}
