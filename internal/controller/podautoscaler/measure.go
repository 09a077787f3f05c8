package podautoscaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// usualWindow of custom metrics that do not tell theirs.
const usualWindow = time.Minute

// measure every metric of a spec. What the target's pods use is asked for once,
// however many metrics are about it.
func (a *remote) measure(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, selector labels.Selector) []measurement {
	all := make([]measurement, len(h.Spec.Metrics))
	var used *metricsv1beta1.PodMetricsList
	var usedErr error
	resources := func() ([]metricsv1beta1.PodMetrics, error) {
		if used == nil && usedErr == nil {
			used, usedErr = a.usage(ctx, h.Namespace, selector)
		}
		if usedErr != nil {
			return nil, usedErr
		}
		return used.Items, nil
	}
	for i := range h.Spec.Metrics {
		spec, m := &h.Spec.Metrics[i], &all[i]
		switch {
		case spec.Type == autoscalingv2.ResourceMetricSourceType && spec.Resource != nil:
			var items []metricsv1beta1.PodMetrics
			if items, m.err = resources(); m.err == nil {
				m.pods = samples(items, spec.Resource.Name, "")
			}
		case spec.Type == autoscalingv2.ContainerResourceMetricSourceType && spec.ContainerResource != nil:
			var items []metricsv1beta1.PodMetrics
			if items, m.err = resources(); m.err == nil {
				m.pods = samples(items, spec.ContainerResource.Name, spec.ContainerResource.Container)
			}
		case spec.Type == autoscalingv2.PodsMetricSourceType && spec.Pods != nil:
			m.pods, m.err = a.ofPods(ctx, h.Namespace, selector, spec.Pods.Metric)
		case spec.Type == autoscalingv2.ObjectMetricSourceType && spec.Object != nil:
			m.values, m.err = a.ofObject(ctx, h.Namespace, spec.Object)
		case spec.Type == autoscalingv2.ExternalMetricSourceType && spec.External != nil:
			m.values, m.err = a.external(ctx, h.Namespace, spec.External.Metric)
		}
	}
	return all
}

// samples of a resource from what pods use; container "" = the sum of all. Pods
// of which a container says nothing are not in it.
func samples(items []metricsv1beta1.PodMetrics, name corev1.ResourceName, container string) map[string]sample {
	all := make(map[string]sample, len(items))
	for i := range items {
		m := &items[i]
		s, complete := sample{at: m.Timestamp.Time, window: m.Window.Duration}, false
		for j := range m.Containers {
			c := &m.Containers[j]
			if container != "" && c.Name != container {
				continue
			}
			q, ok := c.Usage[name]
			if complete = ok; !ok {
				break
			}
			s.value += q.MilliValue()
		}
		if complete {
			all[m.Name] = s
		}
	}
	return all
}

// usage of the pods that a selector picks (metrics.k8s.io).
func (a *remote) usage(ctx context.Context, namespace string, selector labels.Selector) (*metricsv1beta1.PodMetricsList, error) {
	const failed = "unable to fetch metrics from resource metrics API: %w"
	data, err := a.get(ctx, metricsv1beta1.SchemeGroupVersion, namespace, "pods", nil, map[string]string{"labelSelector": selector.String()})
	if err != nil {
		return nil, fmt.Errorf(failed, err)
	}
	list := &metricsv1beta1.PodMetricsList{}
	if err := json.Unmarshal(data, list); err != nil {
		return nil, fmt.Errorf(failed, err)
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from resource metrics API")
	}
	return list, nil
}

const customGroup = "custom.metrics.k8s.io"

// custom are the versions that are known of customGroup. What is read of their
// answers is the same in both, but for the window.
func custom(version string) bool { return version == "v1beta2" || version == "v1beta1" }

// values is a list of custom or external metrics.
type values struct {
	Items []struct {
		Described corev1.ObjectReference `json:"describedObject"`
		Timestamp metav1.Time            `json:"timestamp"`
		Seconds   *int64                 `json:"windowSeconds"`
		Window    *int64                 `json:"window"` // v1beta1 and external metrics; seconds, too
		Value     resource.Quantity      `json:"value"`
	} `json:"items"`
}

// customMetric reads a metric of custom.metrics.k8s.io, in whichever version there is.
func (a *remote) customMetric(ctx context.Context, namespace, resource string, rest []string, params map[string]string) (*values, error) {
	version, err := a.customVersion(ctx)
	if err != nil {
		return nil, err
	}
	data, err := a.get(ctx, version, namespace, resource, rest, params)
	if err != nil {
		return nil, err
	}
	list := &values{}
	return list, json.Unmarshal(data, list)
}

// customVersion is the one that is preferred by who serves it, if it is known.
func (a *remote) customVersion(ctx context.Context) (schema.GroupVersion, error) {
	g, err := a.group(ctx, customGroup)
	if apierrors.IsNotFound(err) {
		return schema.GroupVersion{}, fmt.Errorf("no custom metrics API (%s) registered", customGroup)
	}
	if err != nil {
		return schema.GroupVersion{}, err
	}
	for _, v := range append([]metav1.GroupVersionForDiscovery{g.PreferredVersion}, g.Versions...) {
		if custom(v.Version) {
			return schema.GroupVersion{Group: customGroup, Version: v.Version}, nil
		}
	}
	return schema.GroupVersion{}, errors.New("no known available metric versions found")
}

func (a *remote) ofPods(ctx context.Context, namespace string, pods labels.Selector, id autoscalingv2.MetricIdentifier) (map[string]sample, error) {
	params, err := metricParams(id)
	if err != nil {
		return nil, err
	}
	params["labelSelector"] = pods.String()
	list, err := a.customMetric(ctx, namespace, "pods", []string{"*", id.Name}, params)
	if err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from custom metrics API: %w", err)
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from custom metrics API")
	}
	all := make(map[string]sample, len(list.Items))
	for i := range list.Items {
		v := &list.Items[i]
		s := sample{at: v.Timestamp.Time, window: usualWindow, value: v.Value.MilliValue()}
		for _, seconds := range []*int64{v.Window, v.Seconds} {
			if seconds != nil {
				s.window = time.Duration(*seconds) * time.Second
			}
		}
		all[v.Described.Name] = s
	}
	return all, nil
}

func (a *remote) ofObject(ctx context.Context, namespace string, src *autoscalingv2.ObjectMetricSource) ([]int64, error) {
	params, err := metricParams(src.Metric)
	if err != nil {
		return nil, err
	}
	const failed = "unable to fetch metrics from custom metrics API: %w"
	ref := &src.DescribedObject
	kind := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).GroupKind()
	// A reference does not lead out of its namespace: a Namespace is the own one.
	resource, rest := "metrics", []string{src.Metric.Name}
	if kind != (schema.GroupKind{Kind: "Namespace"}) {
		found, err := a.resources(ctx, kind)
		if err != nil {
			return nil, fmt.Errorf(failed, fmt.Errorf("unable to map kind %s to resource: %w", kind, err))
		}
		resource, rest = found[0].GroupResource().String(), []string{ref.Name, src.Metric.Name}
	}
	list, err := a.customMetric(ctx, namespace, resource, rest, params)
	if err == nil && len(list.Items) != 1 {
		err = fmt.Errorf("the custom metrics API server returned %d results when we asked for exactly one", len(list.Items))
	}
	if err != nil {
		return nil, fmt.Errorf(failed, err)
	}
	return []int64{list.Items[0].Value.MilliValue()}, nil
}

func metricParams(id autoscalingv2.MetricIdentifier) (map[string]string, error) {
	params := map[string]string{}
	selector, err := metav1.LabelSelectorAsSelector(id.Selector)
	if err == nil {
		params["metricLabelSelector"] = selector.String()
	}
	return params, err
}

func (a *remote) external(ctx context.Context, namespace string, id autoscalingv2.MetricIdentifier) ([]int64, error) {
	const failed = "unable to fetch metrics from external metrics API: %w"
	selector, err := metav1.LabelSelectorAsSelector(id.Selector)
	if err != nil {
		return nil, err
	}
	version := schema.GroupVersion{Group: "external.metrics.k8s.io", Version: "v1beta1"}
	data, err := a.get(ctx, version, namespace, id.Name, nil, map[string]string{"labelSelector": selector.String()})
	if err != nil {
		return nil, fmt.Errorf(failed, err)
	}
	list := &values{}
	if err := json.Unmarshal(data, list); err != nil {
		return nil, fmt.Errorf(failed, err)
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from external metrics API")
	}
	all := make([]int64, len(list.Items))
	for i := range list.Items {
		all[i] = list.Items[i].Value.MilliValue()
	}
	return all, nil
}
