package autoscaling

import (
	"fmt"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/table"
)

// Kinds of the group.
func Kinds() []*api.Kind {
	return []*api.Kind{{
		GroupVersionKind: autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"),
		Resource:         "horizontalpodautoscalers",
		ShortNames:       []string{"hpa"},
		Categories:       []string{"all"},
		New:              func() api.Object { return &autoscalingv2.HorizontalPodAutoscaler{} },
		NewList:          func() runtime.Object { return &autoscalingv2.HorizontalPodAutoscalerList{} },
		Default:          api.Of(defaultScaler),
		Reset:            api.Resets(resetScaler),
		Validate:         api.Validates(validateScaler),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Reference", "string", autoscalingv2.HorizontalPodAutoscalerSpec{}.SwaggerDoc()["scaleTargetRef"]),
			table.Col("Targets", "string", autoscalingv2.HorizontalPodAutoscalerSpec{}.SwaggerDoc()["metrics"]),
			table.Col("MinPods", "string", autoscalingv2.HorizontalPodAutoscalerSpec{}.SwaggerDoc()["minReplicas"]),
			table.Col("MaxPods", "string", autoscalingv2.HorizontalPodAutoscalerSpec{}.SwaggerDoc()["maxReplicas"]),
			table.Col("Replicas", "string", autoscalingv2.HorizontalPodAutoscalerStatus{}.SwaggerDoc()["currentReplicas"]),
			table.Age(),
		},
		Row: api.Rows(func(h *autoscalingv2.HorizontalPodAutoscaler) []any {
			s := &h.Spec
			return []any{h.Name, s.ScaleTargetRef.Kind + "/" + s.ScaleTargetRef.Name, metricsCell(s.Metrics, h.Status.CurrentMetrics),
				table.Text(s.MinReplicas), int64(s.MaxReplicas), int64(h.Status.CurrentReplicas), table.AgeOf(h)}
		}),
		Subresources: []api.Subresource{{Name: "status"}},
		Shapes:       []api.Shape{scalerV1()},
	}}
}

func defaultScaler(h *autoscalingv2.HorizontalPodAutoscaler) {
	defaults.Ptr(&h.Spec.MinReplicas, 1)
	if len(h.Spec.Metrics) == 0 {
		h.Spec.Metrics = []autoscalingv2.MetricSpec{cpuMetric(80)}
	}
	b := h.Spec.Behavior
	if b == nil {
		return
	}
	defaults.Ptr(&b.ScaleUp, autoscalingv2.HPAScalingRules{})
	defaults.Ptr(&b.ScaleDown, autoscalingv2.HPAScalingRules{})
	defaults.Ptr(&b.ScaleUp.StabilizationWindowSeconds, 0)
	if b.ScaleUp.Policies == nil {
		b.ScaleUp.Policies = []autoscalingv2.HPAScalingPolicy{
			{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15},
			{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
		}
	}
	if b.ScaleDown.Policies == nil {
		b.ScaleDown.Policies = []autoscalingv2.HPAScalingPolicy{{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15}}
	}
	defaults.Ptr(&b.ScaleUp.SelectPolicy, autoscalingv2.MaxChangePolicySelect)
	defaults.Ptr(&b.ScaleDown.SelectPolicy, autoscalingv2.MaxChangePolicySelect)
}

func cpuMetric(percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.ResourceMetricSourceType,
		Resource: &autoscalingv2.ResourceMetricSource{
			Name:   corev1.ResourceCPU,
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
		},
	}
}

// Upstream does not count the generations of autoscalers.
func resetScaler(h, old *autoscalingv2.HorizontalPodAutoscaler, sub string) {
	switch {
	case old == nil:
		h.Status = autoscalingv2.HorizontalPodAutoscalerStatus{}
	case sub == "status":
		h.Spec = old.Spec
	default:
		h.Status = old.Status
	}
}

// metricsCell shows the first two metrics as "current/target".
func metricsCell(specs []autoscalingv2.MetricSpec, statuses []autoscalingv2.MetricStatus) string {
	const most = 2
	if len(specs) == 0 {
		return "<none>"
	}
	var list []string
	for i := range specs {
		if i == most {
			break
		}
		var now *autoscalingv2.MetricStatus
		if i < len(statuses) {
			now = &statuses[i]
		}
		list = append(list, metricCell(&specs[i], now))
	}
	text := strings.Join(list, ", ")
	if len(specs) > most {
		text += fmt.Sprintf(" + %d more...", len(specs)-most)
	}
	return text
}

func metricCell(spec *autoscalingv2.MetricSpec, now *autoscalingv2.MetricStatus) string {
	current := currentOf(spec.Type, now)
	switch {
	case spec.Type == autoscalingv2.ExternalMetricSourceType && spec.External != nil:
		return amountCell(current, spec.External.Target)
	case spec.Type == autoscalingv2.ObjectMetricSourceType && spec.Object != nil:
		return amountCell(current, spec.Object.Target)
	case spec.Type == autoscalingv2.PodsMetricSourceType && spec.Pods != nil:
		return quantity(current.AverageValue) + "/" + quantity(spec.Pods.Target.AverageValue)
	case spec.Type == autoscalingv2.ResourceMetricSourceType && spec.Resource != nil:
		return resourceCell(spec.Resource.Name, current, spec.Resource.Target)
	case spec.Type == autoscalingv2.ContainerResourceMetricSourceType && spec.ContainerResource != nil:
		return resourceCell(spec.ContainerResource.Name, current, spec.ContainerResource.Target)
	}
	return "<unknown type>"
}

// currentOf is the value of the metric of a type, empty if it is not known.
func currentOf(t autoscalingv2.MetricSourceType, now *autoscalingv2.MetricStatus) (v autoscalingv2.MetricValueStatus) {
	switch {
	case now == nil:
	case t == autoscalingv2.ExternalMetricSourceType && now.External != nil:
		return now.External.Current
	case t == autoscalingv2.ObjectMetricSourceType && now.Object != nil:
		return now.Object.Current
	case t == autoscalingv2.PodsMetricSourceType && now.Pods != nil:
		return now.Pods.Current
	case t == autoscalingv2.ResourceMetricSourceType && now.Resource != nil:
		return now.Resource.Current
	case t == autoscalingv2.ContainerResourceMetricSourceType && now.ContainerResource != nil:
		return now.ContainerResource.Current
	}
	return v
}

func amountCell(current autoscalingv2.MetricValueStatus, target autoscalingv2.MetricTarget) string {
	if target.AverageValue != nil {
		return quantity(current.AverageValue) + "/" + quantity(target.AverageValue) + " (avg)"
	}
	return quantity(current.Value) + "/" + quantity(target.Value)
}

func resourceCell(name corev1.ResourceName, current autoscalingv2.MetricValueStatus, target autoscalingv2.MetricTarget) string {
	if target.AverageValue != nil {
		return fmt.Sprintf("%s: %s/%s", name, quantity(current.AverageValue), quantity(target.AverageValue))
	}
	return fmt.Sprintf("%s: %s/%s", name, percent(current.AverageUtilization, "<unknown>"), percent(target.AverageUtilization, "<auto>"))
}

func quantity(q *resource.Quantity) string {
	if q == nil {
		return "<unknown>"
	}
	return q.String()
}

func percent(n *int32, absent string) string {
	if n == nil {
		return absent
	}
	return fmt.Sprintf("%d%%", *n)
}
