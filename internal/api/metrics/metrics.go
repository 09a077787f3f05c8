// Package metrics describes the kinds of metrics.k8s.io/v1beta1: what pods and
// nodes use now. They are worked out when somebody asks, never stored.
package metrics

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/proa-dev/proa/internal/api"
)

// Kinds of the group. Their resources are called nodes and pods, as those of core.
func Kinds() []*api.Kind {
	return []*api.Kind{
		{
			GroupVersionKind: metricsv1beta1.SchemeGroupVersion.WithKind("NodeMetrics"),
			Resource:         "nodes",
			Cluster:          true,
			Verbs:            []string{"get", "list"},
			Virtual:          true,
			New:              func() api.Object { return &metricsv1beta1.NodeMetrics{} },
			NewList:          func() runtime.Object { return &metricsv1beta1.NodeMetricsList{} },
			Columns:          columns(),
			Row: api.Rows(func(m *metricsv1beta1.NodeMetrics) []any {
				return row(m.Name, m.Usage, m.Window)
			}),
		},
		{
			GroupVersionKind: metricsv1beta1.SchemeGroupVersion.WithKind("PodMetrics"),
			Resource:         "pods",
			Verbs:            []string{"get", "list"},
			Virtual:          true,
			New:              func() api.Object { return &metricsv1beta1.PodMetrics{} },
			NewList:          func() runtime.Object { return &metricsv1beta1.PodMetricsList{} },
			Columns:          columns(),
			Row: api.Rows(func(m *metricsv1beta1.PodMetrics) []any {
				return row(m.Name, Sum(m.Containers), m.Window)
			}),
		},
	}
}

// Sum of what containers use.
func Sum(containers []metricsv1beta1.ContainerMetrics) corev1.ResourceList {
	sum := corev1.ResourceList{}
	for i := range containers {
		for name, q := range containers[i].Usage {
			so := sum[name]
			so.Add(q)
			sum[name] = so
		}
	}
	return sum
}

// columns as metrics-server has them.
func columns() []metav1.TableColumnDefinition {
	amount := func(name string) metav1.TableColumnDefinition {
		return metav1.TableColumnDefinition{Name: name, Type: "string", Format: "quantity"}
	}
	return []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: "Name of the resource"},
		amount("cpu"), amount("memory"),
		{Name: "Window", Type: "string", Format: "duration"},
	}
}

func row(name string, usage corev1.ResourceList, window metav1.Duration) []any {
	return []any{name, usage.Cpu().String(), usage.Memory().String(), window.Duration.String()}
}
