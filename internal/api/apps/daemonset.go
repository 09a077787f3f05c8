package apps

import (
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/core"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func daemonSet() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("DaemonSet"),
		Resource:         "daemonsets",
		ShortNames:       []string{"ds"},
		Categories:       []string{"all"},
		New:              func() api.Object { return &appsv1.DaemonSet{} },
		NewList:          func() runtime.Object { return &appsv1.DaemonSetList{} },
		Default:          api.Of(defaultDaemonSet),
		Reset:            api.Resets(resetDaemonSet),
		Validate:         api.Validates(validateDaemonSet),
		Warn: api.Warns(func(d, old *appsv1.DaemonSet) []string {
			if old != nil && templateGeneration(d) == templateGeneration(old) {
				return nil
			}
			return warnTemplate(d, nil, &d.Spec.Template)
		}),
		Columns: append([]metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Desired", "integer", appsv1.DaemonSetStatus{}.SwaggerDoc()["desiredNumberScheduled"]),
			table.Col("Current", "integer", appsv1.DaemonSetStatus{}.SwaggerDoc()["currentNumberScheduled"]),
			table.Col("Ready", "integer", appsv1.DaemonSetStatus{}.SwaggerDoc()["numberReady"]),
			table.Col("Up-to-date", "integer", appsv1.DaemonSetStatus{}.SwaggerDoc()["updatedNumberScheduled"]),
			table.Col("Available", "integer", appsv1.DaemonSetStatus{}.SwaggerDoc()["numberAvailable"]),
			table.Col("Node Selector", "string", "NodeSelector is a selector which must be true for the pod to fit on a node. Selector which must match a node's labels for the pod to be scheduled on that node. More info: https://kubernetes.io/docs/concepts/configuration/assign-pod-node/"),
			table.Age(),
		}, append(table.Containers(), table.Wide("Selector", "string", appsv1.DaemonSetSpec{}.SwaggerDoc()["selector"]))...),
		Row: api.Rows(func(d *appsv1.DaemonSet) []any {
			names, images := table.ContainerCells(d.Spec.Template.Spec.Containers)
			s := &d.Status
			return []any{d.Name, int64(s.DesiredNumberScheduled), int64(s.CurrentNumberScheduled), int64(s.NumberReady),
				int64(s.UpdatedNumberScheduled), int64(s.NumberAvailable), labels.FormatLabels(d.Spec.Template.Spec.NodeSelector), table.AgeOf(d),
				names, images, metav1.FormatLabelSelector(d.Spec.Selector)}
		}),
		Subresources: []api.Subresource{status()},
	}
}

func defaultDaemonSet(d *appsv1.DaemonSet) {
	s := &d.Spec.UpdateStrategy
	if s.Type == "" {
		s.Type = appsv1.RollingUpdateDaemonSetStrategyType
	}
	if s.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		defaults.Ptr(&s.RollingUpdate, appsv1.RollingUpdateDaemonSet{})
		defaults.Ptr(&s.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
		defaults.Ptr(&s.RollingUpdate.MaxSurge, intstr.FromInt32(0))
	}
	defaults.Ptr(&d.Spec.RevisionHistoryLimit, 10)
	core.DefaultPodTemplate(&d.Spec.Template)
}

// A DaemonSet counts the changes of its template in an annotation that clients
// cannot set, once a field of extensions/v1beta1.

func resetDaemonSet(d, old *appsv1.DaemonSet, sub string) {
	switch {
	case old == nil:
		d.Status = appsv1.DaemonSetStatus{}
		d.Generation = 1
		setTemplateGeneration(d, max(templateGeneration(d), 1))
	case sub == "status":
		d.Spec = old.Spec
		d.Generation = old.Generation
		setTemplateGeneration(d, templateGeneration(old))
	default:
		d.Status = old.Status
		n := templateGeneration(old)
		if reset.Differ(d.Spec.Template, old.Spec.Template) {
			n++
		}
		setTemplateGeneration(d, n)
		reset.Generation(d, old, reset.Differ(d.Spec, old.Spec))
	}
}

func templateGeneration(d *appsv1.DaemonSet) int64 {
	n, _ := strconv.ParseInt(d.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
	return n
}

func setTemplateGeneration(d *appsv1.DaemonSet, n int64) {
	text := strconv.FormatInt(n, 10)
	if d.Annotations[appsv1.DeprecatedTemplateGeneration] == text {
		return
	}
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	} else {
		d.Annotations = maps.Clone(d.Annotations)
	}
	d.Annotations[appsv1.DeprecatedTemplateGeneration] = text
}

func validateDaemonSet(d, old *appsv1.DaemonSet, sub string) field.ErrorList {
	var e validate.Errs
	if sub == "status" {
		daemonSetStatus(&e, &d.Status, validate.Root("status"))
		collisions(&e, d.Status.CollisionCount, old.Status.CollisionCount, validate.Root("status").Child("collisionCount"))
		return e.List()
	}
	p := validate.Root("spec")
	if old != nil {
		e.Immutable(p.Child("selector"), d.Spec.Selector, old.Spec.Selector)
	}
	daemonSetSpec(&e, d, old, p)
	return e.List()
}

func daemonSetSpec(e *validate.Errs, d, old *appsv1.DaemonSet, p *validate.Path) {
	s := &d.Spec
	if old == nil {
		validate.Selector(e, s.Selector, p.Child("selector"))
	} else {
		validate.SelectorUpdate(e, s.Selector, old.Spec.Selector, p.Child("selector"))
	}
	if selector, err := metav1.LabelSelectorAsSelector(s.Selector); err == nil {
		matches(e, selector, &s.Template, p)
	}
	if s.Selector != nil {
		notEmpty(e, s.Selector, "daemonset", p)
	}
	if old == nil {
		core.ValidatePodTemplate(e, &s.Template, nil, p.Child("template"))
	} else {
		core.ValidatePodTemplate(e, &s.Template, &old.Spec.Template, p.Child("template"))
	}
	runsForEver(e, &s.Template.Spec, "DaemonSet", p)
	validate.NotBelowZero(e, s.MinReadySeconds, p.Child("minReadySeconds"))
	daemonSetStrategy(e, &s.UpdateStrategy, p.Child("updateStrategy"))
	optional(e, s.RevisionHistoryLimit, p.Child("revisionHistoryLimit"))
}

func daemonSetStrategy(e *validate.Errs, s *appsv1.DaemonSetUpdateStrategy, p *validate.Path) {
	switch s.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
	case appsv1.RollingUpdateDaemonSetStrategyType:
		if s.RollingUpdate == nil {
			e.Required(p.Child("rollingUpdate"), "")
			return
		}
		daemonSetRollingUpdate(e, s.RollingUpdate, p.Child("rollingUpdate"))
	default:
		validate.NotSupported(e, p, *s, appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType)
	}
}

func daemonSetRollingUpdate(e *validate.Errs, r *appsv1.RollingUpdateDaemonSet, p *validate.Path) {
	for _, f := range []struct {
		name  string
		value *intstr.IntOrString
	}{{"maxUnavailable", r.MaxUnavailable}, {"maxSurge", r.MaxSurge}} {
		if f.value != nil {
			validate.CountOrPercent(e, *f.value, p.Child(f.name))
			validate.NotAbove100Percent(e, *f.value, p.Child(f.name))
		}
	}
	switch unavailable, surge := !zero(r.MaxUnavailable), !zero(r.MaxSurge); {
	case unavailable && surge:
		e.Invalid(p.Child("maxSurge"), r.MaxSurge, "may not be set when maxUnavailable is non-zero")
	case !unavailable && !surge:
		e.Required(p.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0")
	}
}

func daemonSetStatus(e *validate.Errs, s *appsv1.DaemonSetStatus, p *validate.Path) {
	validate.NotBelowZero(e, s.CurrentNumberScheduled, p.Child("currentNumberScheduled"))
	validate.NotBelowZero(e, s.NumberMisscheduled, p.Child("numberMisscheduled"))
	validate.NotBelowZero(e, s.DesiredNumberScheduled, p.Child("desiredNumberScheduled"))
	validate.NotBelowZero(e, s.NumberReady, p.Child("numberReady"))
	validate.NotBelowZero(e, s.ObservedGeneration, p.Child("observedGeneration"))
	validate.NotBelowZero(e, s.UpdatedNumberScheduled, p.Child("updatedNumberScheduled"))
	validate.NotBelowZero(e, s.NumberAvailable, p.Child("numberAvailable"))
	validate.NotBelowZero(e, s.NumberUnavailable, p.Child("numberUnavailable"))
	optional(e, s.CollisionCount, p.Child("collisionCount"))
}
