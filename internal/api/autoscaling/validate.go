package autoscaling

import (
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api/validate"
)

const (
	maxPeriod = 1800 // seconds
	maxWindow = 3600 // seconds
)

func validateScaler(h, old *autoscalingv2.HorizontalPodAutoscaler, sub string) field.ErrorList {
	var e validate.Errs
	if sub == "status" {
		validate.NotBelowZero(&e, h.Status.CurrentReplicas, validate.Root("status").Child("currentReplicas"))
		validate.NotBelowZero(&e, h.Status.DesiredReplicas, validate.Root("status").Child("desiredReplicas"))
		return e.List()
	}
	p, s := validate.Root("spec"), &h.Spec
	lowest := int32(1) // scaling to zero is behind a gate that is off in 1.36
	if old != nil && old.Spec.MinReplicas != nil && *old.Spec.MinReplicas == 0 {
		lowest = 0
	}
	if n := s.MinReplicas; n != nil && *n < lowest {
		e.Invalid(p.Child("minReplicas"), *n, fmt.Sprintf("must be greater than or equal to %d", lowest))
	}
	if s.MaxReplicas == 0 {
		e.Required(p.Child("maxReplicas"), "must be set and greater than 0")
	} else if s.MaxReplicas < 0 {
		e.Invalid(p.Child("maxReplicas"), s.MaxReplicas, "must be greater than or equal to 1")
	}
	if s.MinReplicas != nil && s.MaxReplicas < *s.MinReplicas {
		e.Invalid(p.Child("maxReplicas"), s.MaxReplicas, "must be greater than or equal to `minReplicas`")
	}
	ref := &s.ScaleTargetRef
	same := old != nil && old.Spec.ScaleTargetRef.APIVersion == ref.APIVersion && old.Spec.ScaleTargetRef.Kind == ref.Kind
	objectRef(&e, *ref, same, ref.Kind == "ReplicationController", p.Child("scaleTargetRef"))
	metrics(&e, s, old, p.Child("metrics"))
	if b := s.Behavior; b != nil {
		scalingRules(&e, b.ScaleUp, p.Child("behavior").Child("scaleUp"))
		scalingRules(&e, b.ScaleDown, p.Child("behavior").Child("scaleDown"))
	}
	return e.List()
}

func segment(e *validate.Errs, s, missing string, p *validate.Path) {
	if s == "" {
		e.Required(p, missing)
		return
	}
	e.Invalids(p, s, validate.PathSegmentName(s, false))
}

func objectRef(e *validate.Errs, ref autoscalingv2.CrossVersionObjectReference, anyVersion, coreGroup bool, p *validate.Path) {
	segment(e, ref.Kind, "", p.Child("kind"))
	segment(e, ref.Name, "", p.Child("name"))
	if why := badVersion(ref.APIVersion, coreGroup); why != "" && !anyVersion {
		e.Invalid(p.Child("apiVersion"), ref.APIVersion, why)
	}
}

func badVersion(version string, coreGroup bool) string {
	gv, err := schema.ParseGroupVersion(version)
	if err != nil {
		return err.Error()
	}
	if gv.Group == "" && !coreGroup {
		return "apiVersion must specify API group"
	}
	return ""
}

func scalingRules(e *validate.Errs, r *autoscalingv2.HPAScalingRules, p *validate.Path) {
	if r == nil {
		return
	}
	if n := r.StabilizationWindowSeconds; n != nil && *n < 0 {
		e.Invalid(p.Child("stabilizationWindowSeconds"), *n, "must be greater than or equal to zero")
	} else if n != nil && *n > maxWindow {
		e.Invalid(p.Child("stabilizationWindowSeconds"), *n, fmt.Sprintf("must be less than or equal to %v", maxWindow))
	}
	if r.SelectPolicy != nil {
		validate.OneOf(e, p.Child("selectPolicy"), *r.SelectPolicy,
			autoscalingv2.DisabledPolicySelect, autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect)
	}
	if len(r.Policies) == 0 {
		e.Required(p.Child("policies"), "must specify at least one Policy")
	}
	for i, policy := range r.Policies {
		at := p.Child("policies").Index(i)
		validate.OneOf(e, at.Child("type"), policy.Type, autoscalingv2.PercentScalingPolicy, autoscalingv2.PodsScalingPolicy)
		if policy.Value <= 0 {
			e.Invalid(at.Child("value"), policy.Value, "must be greater than zero")
		}
		if policy.PeriodSeconds <= 0 {
			e.Invalid(at.Child("periodSeconds"), policy.PeriodSeconds, "must be greater than zero")
		}
		if policy.PeriodSeconds > maxPeriod {
			e.Invalid(at.Child("periodSeconds"), policy.PeriodSeconds, fmt.Sprintf("must be less than or equal to %v", maxPeriod))
		}
	}
	if r.Tolerance != nil && r.Tolerance.Sign() < 0 {
		e.Invalid(p.Child("tolerance"), r.Tolerance.String(), validate.NotNegative)
	}
}

func metrics(e *validate.Errs, s *autoscalingv2.HorizontalPodAutoscalerSpec, old *autoscalingv2.HorizontalPodAutoscaler, p *validate.Path) {
	anyVersion := false // bad versions that were let in stay good
	if old != nil {
		for _, m := range old.Spec.Metrics {
			if m.Object != nil && m.Type == autoscalingv2.ObjectMetricSourceType && badVersion(m.Object.DescribedObject.APIVersion, true) != "" {
				anyVersion = true
			}
		}
	}
	outside := false
	for i := range s.Metrics {
		m := &s.Metrics[i]
		outside = outside || m.Type == autoscalingv2.ObjectMetricSourceType || m.Type == autoscalingv2.ExternalMetricSourceType
		metric(e, m, anyVersion, p.Index(i))
	}
	if s.MinReplicas != nil && *s.MinReplicas == 0 && !outside {
		e.Forbidden(p, "must specify at least one Object or External metric to support scaling to zero replicas")
	}
}

func metric(e *validate.Errs, m *autoscalingv2.MetricSpec, anyVersion bool, p *validate.Path) {
	if m.Type == "" {
		e.Required(p.Child("type"), "must specify a metric source type")
	}
	sources := []struct {
		kind  autoscalingv2.MetricSourceType
		name  string
		given bool
		check func(*validate.Path)
	}{
		{autoscalingv2.ObjectMetricSourceType, "object", m.Object != nil, func(p *validate.Path) { objectMetric(e, m.Object, anyVersion, p) }},
		{autoscalingv2.ExternalMetricSourceType, "external", m.External != nil, func(p *validate.Path) { externalMetric(e, m.External, p) }},
		{autoscalingv2.PodsMetricSourceType, "pods", m.Pods != nil, func(p *validate.Path) { podsMetric(e, m.Pods, p) }},
		{autoscalingv2.ResourceMetricSourceType, "resource", m.Resource != nil, func(p *validate.Path) { resourceMetric(e, m.Resource, p) }},
		{autoscalingv2.ContainerResourceMetricSourceType, "containerResource", m.ContainerResource != nil, func(p *validate.Path) { containerMetric(e, m.ContainerResource, p) }},
	}
	given, known := 0, false
	for _, s := range sources {
		if s.given {
			if given++; given == 1 {
				s.check(p.Child(s.name))
			}
		}
	}
	for _, s := range sources {
		known = known || s.kind == m.Type
		if s.kind == m.Type && !s.given {
			e.Required(p.Child(s.name), "must populate information for the given metric source")
		}
		if given != 1 && s.given && s.kind != m.Type {
			e.Forbidden(p.Child(s.name), "must populate the given metric source only")
		}
	}
	if !known {
		validate.NotSupported(e, p.Child("type"), m.Type, autoscalingv2.ContainerResourceMetricSourceType, autoscalingv2.ExternalMetricSourceType,
			autoscalingv2.ObjectMetricSourceType, autoscalingv2.PodsMetricSourceType, autoscalingv2.ResourceMetricSourceType)
	}
}

func objectMetric(e *validate.Errs, m *autoscalingv2.ObjectMetricSource, anyVersion bool, p *validate.Path) {
	objectRef(e, m.DescribedObject, anyVersion, true, p.Child("describedObject"))
	segment(e, m.Metric.Name, "must specify a metric name", p.Child("metric").Child("name"))
	target(e, &m.Target, p.Child("target"))
	if m.Target.Value == nil && m.Target.AverageValue == nil {
		e.Required(p.Child("target").Child("averageValue"), "must set either a target value or averageValue")
	}
}

func externalMetric(e *validate.Errs, m *autoscalingv2.ExternalMetricSource, p *validate.Path) {
	segment(e, m.Metric.Name, "must specify a metric name", p.Child("metric").Child("name"))
	target(e, &m.Target, p.Child("target"))
	if m.Target.Value == nil && m.Target.AverageValue == nil {
		e.Required(p.Child("target").Child("averageValue"), "must set either a target value for metric or a per-pod target")
	}
	if m.Target.Value != nil && m.Target.AverageValue != nil {
		e.Forbidden(p.Child("target").Child("value"), "may not set both a target value for metric and a per-pod target")
	}
}

func podsMetric(e *validate.Errs, m *autoscalingv2.PodsMetricSource, p *validate.Path) {
	segment(e, m.Metric.Name, "must specify a metric name", p.Child("metric").Child("name"))
	target(e, &m.Target, p.Child("target"))
	if m.Target.AverageValue == nil {
		e.Required(p.Child("target").Child("averageValue"), "must specify a positive target averageValue")
	}
}

func resourceMetric(e *validate.Errs, m *autoscalingv2.ResourceMetricSource, p *validate.Path) {
	if m.Name == "" {
		e.Required(p.Child("name"), "must specify a resource name")
	}
	resourceTarget(e, &m.Target, p.Child("target"))
}

func containerMetric(e *validate.Errs, m *autoscalingv2.ContainerResourceMetricSource, p *validate.Path) {
	if m.Name == "" {
		e.Required(p.Child("name"), "must specify a resource name")
	} else {
		e.Invalids(p.Child("name"), m.Name, validate.QualifiedName(string(m.Name)))
	}
	if m.Container == "" {
		e.Required(p.Child("container"), "must specify a container")
	} else {
		e.Invalids(p.Child("container"), m.Container, validate.Label(m.Container))
	}
	resourceTarget(e, &m.Target, p.Child("target"))
}

func resourceTarget(e *validate.Errs, t *autoscalingv2.MetricTarget, p *validate.Path) {
	target(e, t, p)
	if t.AverageUtilization == nil && t.AverageValue == nil {
		e.Required(p.Child("averageUtilization"), "must set either a target raw value or a target utilization")
	}
	if t.AverageUtilization != nil && t.AverageValue != nil {
		e.Forbidden(p.Child("averageValue"), "may not set both a target raw value and a target utilization")
	}
}

func target(e *validate.Errs, t *autoscalingv2.MetricTarget, p *validate.Path) {
	if t.Type == "" {
		e.Required(p.Child("type"), "must specify a metric target type")
	}
	switch t.Type {
	case autoscalingv2.UtilizationMetricType, autoscalingv2.ValueMetricType, autoscalingv2.AverageValueMetricType:
	default:
		e.Invalid(p.Child("type"), t.Type, "must be either Utilization, Value, or AverageValue")
	}
	if t.Value != nil && t.Value.Sign() != 1 {
		e.Invalid(p.Child("value"), t.Value, "must be positive")
	}
	if t.AverageValue != nil && t.AverageValue.Sign() != 1 {
		e.Invalid(p.Child("averageValue"), t.AverageValue, "must be positive")
	}
	if t.AverageUtilization != nil && *t.AverageUtilization < 1 {
		e.Invalid(p.Child("averageUtilization"), *t.AverageUtilization, "must be greater than 0")
	}
}
