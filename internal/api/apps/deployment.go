package apps

import (
	"fmt"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/autoscaling"
	"github.com/proa-dev/proa/internal/api/core"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func deployment() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("Deployment"),
		Resource:         "deployments",
		ShortNames:       []string{"deploy"},
		Categories:       []string{"all"},
		New:              func() api.Object { return &appsv1.Deployment{} },
		NewList:          func() runtime.Object { return &appsv1.DeploymentList{} },
		Default:          api.Of(defaultDeployment),
		Reset:            api.Resets(resetDeployment),
		Validate:         api.Validates(validateDeployment),
		Warn: api.Warns(func(d, old *appsv1.Deployment) []string {
			if old != nil {
				return warnTemplate(d, old, &d.Spec.Template)
			}
			return append(longName(d.Name), warnTemplate(d, nil, &d.Spec.Template)...)
		}),
		Columns: append([]metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Ready", "string", "Number of the pod with ready state"),
			table.Col("Up-to-date", "string", appsv1.DeploymentStatus{}.SwaggerDoc()["updatedReplicas"]),
			table.Col("Available", "string", appsv1.DeploymentStatus{}.SwaggerDoc()["availableReplicas"]),
			table.Age(),
		}, append(table.Containers(), table.Wide("Selector", "string", appsv1.DeploymentSpec{}.SwaggerDoc()["selector"]))...),
		Row: api.Rows(func(d *appsv1.Deployment) []any {
			names, images := table.ContainerCells(d.Spec.Template.Spec.Containers)
			return []any{d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, *d.Spec.Replicas), int64(d.Status.UpdatedReplicas),
				int64(d.Status.AvailableReplicas), table.AgeOf(d), names, images, autoscaling.SelectorText(d.Spec.Selector)}
		}),
		Subresources: []api.Subresource{
			status(),
			autoscaling.Scale(resource("deployments"), func(d *appsv1.Deployment) autoscaling.Replicas {
				return autoscaling.Replicas{Wanted: &d.Spec.Replicas, Current: d.Status.Replicas, Selector: autoscaling.SelectorText(d.Spec.Selector)}
			}),
		},
	}
}

func defaultDeployment(d *appsv1.Deployment) {
	s := &d.Spec
	defaults.Ptr(&s.Replicas, 1)
	if s.Strategy.Type == "" {
		s.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if s.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		defaults.Ptr(&s.Strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
		defaults.Ptr(&s.Strategy.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
		defaults.Ptr(&s.Strategy.RollingUpdate.MaxSurge, intstr.FromString("25%"))
	}
	defaults.Ptr(&s.RevisionHistoryLimit, 10)
	defaults.Ptr(&s.ProgressDeadlineSeconds, 600)
	core.DefaultPodTemplate(&s.Template)
}

func resetDeployment(d, old *appsv1.Deployment, sub string) {
	switch {
	case old == nil:
		d.Status = appsv1.DeploymentStatus{}
		d.Generation = 1
	case sub == "status":
		d.Spec, d.Labels = old.Spec, old.Labels
		d.Generation = old.Generation
	default:
		d.Status = old.Status
		// Annotations too: the controller copies them to the ReplicaSets.
		reset.Generation(d, old, reset.Differ(d.Spec, old.Spec) || !maps.Equal(d.Annotations, old.Annotations))
	}
}

func validateDeployment(d, old *appsv1.Deployment, sub string) field.ErrorList {
	var e validate.Errs
	if sub == "status" {
		deploymentStatus(&e, &d.Status, validate.Root("status"))
		collisions(&e, d.Status.CollisionCount, old.Status.CollisionCount, validate.Root("status").Child("collisionCount"))
		return e.List()
	}
	p := validate.Root("spec")
	if old == nil {
		deploymentSpec(&e, &d.Spec, nil, p)
	} else {
		deploymentSpec(&e, &d.Spec, &old.Spec, p)
		e.Immutable(p.Child("selector"), d.Spec.Selector, old.Spec.Selector)
	}
	return e.List()
}

func deploymentSpec(e *validate.Errs, s, old *appsv1.DeploymentSpec, p *validate.Path) {
	optional(e, s.Replicas, p.Child("replicas"))
	if old == nil {
		selectorAndTemplate(e, s.Selector, &s.Template, nil, "deployment", "invalid label selector", p)
	} else {
		selectorAndTemplate(e, s.Selector, &s.Template, &old.Template, "deployment", "invalid label selector", p)
	}
	runsForEver(e, &s.Template.Spec, "ReplicaSet", p)
	deploymentStrategy(e, &s.Strategy, p.Child("strategy"))
	validate.NotBelowZero(e, s.MinReadySeconds, p.Child("minReadySeconds"))
	optional(e, s.RevisionHistoryLimit, p.Child("revisionHistoryLimit"))
	if d := s.ProgressDeadlineSeconds; d != nil {
		at := p.Child("progressDeadlineSeconds")
		validate.NotBelowZero(e, *d, at)
		if *d <= s.MinReadySeconds {
			e.Invalid(at, *d, "must be greater than minReadySeconds")
		}
	}
}

func deploymentStrategy(e *validate.Errs, s *appsv1.DeploymentStrategy, p *validate.Path) {
	at := p.Child("rollingUpdate")
	switch s.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if s.RollingUpdate != nil {
			e.Forbidden(at, "may not be specified when strategy `type` is 'Recreate'")
		}
	case appsv1.RollingUpdateDeploymentStrategyType:
		r := s.RollingUpdate
		if r == nil {
			e.Required(at, "this should be defaulted and never be nil")
			return
		}
		if r.MaxUnavailable != nil {
			validate.CountOrPercent(e, *r.MaxUnavailable, at.Child("maxUnavailable"))
			validate.NotAbove100Percent(e, *r.MaxUnavailable, at.Child("maxUnavailable"))
		}
		if r.MaxSurge != nil {
			validate.CountOrPercent(e, *r.MaxSurge, at.Child("maxSurge"))
		}
		if zero(r.MaxUnavailable) && zero(r.MaxSurge) {
			e.Invalid(at.Child("maxUnavailable"), r.MaxUnavailable, "may not be 0 when `maxSurge` is 0")
		}
	default:
		validate.NotSupported(e, p, *s, appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType)
	}
}

func deploymentStatus(e *validate.Errs, s *appsv1.DeploymentStatus, p *validate.Path) {
	validate.NotBelowZero(e, s.ObservedGeneration, p.Child("observedGeneration"))
	validate.NotBelowZero(e, s.Replicas, p.Child("replicas"))
	validate.NotBelowZero(e, s.UpdatedReplicas, p.Child("updatedReplicas"))
	validate.NotBelowZero(e, s.ReadyReplicas, p.Child("readyReplicas"))
	validate.NotBelowZero(e, s.AvailableReplicas, p.Child("availableReplicas"))
	validate.NotBelowZero(e, s.UnavailableReplicas, p.Child("unavailableReplicas"))
	optional(e, s.TerminatingReplicas, p.Child("terminatingReplicas"))
	optional(e, s.CollisionCount, p.Child("collisionCount"))
	atMost(e, s.UpdatedReplicas, s.Replicas, p.Child("updatedReplicas"), "status.replicas")
	atMost(e, s.ReadyReplicas, s.Replicas, p.Child("readyReplicas"), "status.replicas")
	atMost(e, s.AvailableReplicas, s.Replicas, p.Child("availableReplicas"), "status.replicas")
	atMost(e, s.AvailableReplicas, s.ReadyReplicas, p.Child("availableReplicas"), "readyReplicas")
}
