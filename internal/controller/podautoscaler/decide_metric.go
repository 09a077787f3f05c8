package podautoscaler

import (
	"errors"
	"fmt"
	"math"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// demand is how many replicas a metric asks for.
type demand struct {
	replicas int32
	name     string // of the metric, in events and conditions
	status   autoscalingv2.MetricStatus
}

// failure of a metric: short is what event and condition say, err is short with
// which metric it was.
type failure struct {
	reason     string
	short, err error
}

// demand of the i-th metric.
func (s *snapshot) demand(i int) (demand, *failure) {
	spec, m := &s.scaler.Spec.Metrics[i], &s.measured[i]
	switch spec.Type {
	case autoscalingv2.ObjectMetricSourceType:
		return s.objectDemand(spec.Object, m)
	case autoscalingv2.PodsMetricSourceType:
		return s.podsDemand(spec.Pods, m)
	case autoscalingv2.ResourceMetricSourceType:
		r := spec.Resource
		d, err := s.resourceDemand(r.Name, "", r.Target, m)
		if err != nil {
			return d, &failure{"FailedGetResourceMetric", err, fmt.Errorf("failed to get %s resource metric value: %w", r.Name, err)}
		}
		d.status.Type, d.status.Resource = spec.Type, &autoscalingv2.ResourceMetricStatus{Name: r.Name, Current: d.status.Resource.Current}
		return d, nil
	case autoscalingv2.ContainerResourceMetricSourceType:
		r := spec.ContainerResource
		d, err := s.resourceDemand(r.Name, r.Container, r.Target, m)
		if err != nil {
			return d, &failure{"FailedGetContainerResourceMetric", err, fmt.Errorf("failed to get %s container metric value: %w", r.Container, err)}
		}
		d.status = autoscalingv2.MetricStatus{
			Type:              spec.Type,
			ContainerResource: &autoscalingv2.ContainerResourceMetricStatus{Name: r.Name, Container: r.Container, Current: d.status.Resource.Current},
		}
		return d, nil
	case autoscalingv2.ExternalMetricSourceType:
		return s.externalDemand(spec.External, m)
	}
	err := fmt.Errorf("unknown metric source type %q", spec.Type)
	return demand{}, &failure{"InvalidMetricSourceType", err, err}
}

// resourceDemand of CPU or memory, of pods or of one of their containers. The
// status is in Resource, whichever it is.
func (s *snapshot) resourceDemand(name corev1.ResourceName, container string, target autoscalingv2.MetricTarget, m *measurement) (d demand, err error) {
	var now autoscalingv2.MetricValueStatus
	var raw int64
	tell := func(what string, err error) error { return fmt.Errorf("failed to get %s %s: %w", name, what, err) }
	fetched := func() error { return fmt.Errorf("unable to get metrics for resource %s: %w", name, m.err) }
	switch {
	case target.AverageValue != nil:
		if m.err != nil {
			return d, tell("usage", fetched())
		}
		if d.replicas, raw, err = s.byAverage(m.pods, target.AverageValue.MilliValue(), name); err != nil {
			return d, tell("usage", err)
		}
		d.name = fmt.Sprintf("%s resource", name)
	case target.AverageUtilization != nil:
		if m.err != nil {
			return d, tell("utilization", fetched())
		}
		var percent int32
		if d.replicas, percent, raw, err = s.byUtilization(m.pods, *target.AverageUtilization, name, container); err != nil {
			return d, tell("utilization", err)
		}
		d.name = fmt.Sprintf("%s resource utilization (percentage of request)", name)
		if container != "" {
			d.name = fmt.Sprintf("%s container resource utilization (percentage of request)", name)
		}
		now.AverageUtilization = &percent
	default:
		return d, errors.New("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set")
	}
	now.AverageValue = amount(name, raw)
	d.status.Resource = &autoscalingv2.ResourceMetricStatus{Name: name, Current: now}
	return d, nil
}

// amount of a resource from thousandths, memory as Ki, Mi, …
func amount(name corev1.ResourceName, milli int64) *resource.Quantity {
	if name == corev1.ResourceMemory {
		return resource.NewMilliQuantity(milli, resource.BinarySI)
	}
	return thousandths(milli)
}

func thousandths(milli int64) *resource.Quantity {
	return resource.NewMilliQuantity(milli, resource.DecimalSI)
}

func (s *snapshot) podsDemand(src *autoscalingv2.PodsMetricSource, m *measurement) (d demand, f *failure) {
	fail := func(err error) (demand, *failure) {
		return demand{}, &failure{"FailedGetPodsMetric", err, fmt.Errorf("failed to get pods metric value: %w", err)}
	}
	if m.err != nil {
		return fail(fmt.Errorf("unable to get metric %s: %w", src.Metric.Name, m.err))
	}
	if src.Target.AverageValue == nil {
		return fail(errors.New("invalid pods metric source: no average value target was set"))
	}
	replicas, average, err := s.byAverage(m.pods, src.Target.AverageValue.MilliValue(), "")
	if err != nil {
		return fail(err)
	}
	return demand{replicas, "pods metric " + src.Metric.Name, autoscalingv2.MetricStatus{
		Type: autoscalingv2.PodsMetricSourceType,
		Pods: &autoscalingv2.PodsMetricStatus{Metric: src.Metric, Current: autoscalingv2.MetricValueStatus{AverageValue: thousandths(average)}},
	}}, nil
}

func (s *snapshot) objectDemand(src *autoscalingv2.ObjectMetricSource, m *measurement) (d demand, f *failure) {
	fail := func(err error, in ...string) (demand, *failure) {
		return demand{}, &failure{"FailedGetObjectMetric", err, within("failed to get object metric value", in, err)}
	}
	ref := &src.DescribedObject
	fetched := func() error { // in the order that upstream has these words in
		return fmt.Errorf("unable to get metric %s: %s on %s %s/%w", src.Metric.Name, ref.Kind, s.scaler.Namespace, ref.Name, m.err)
	}
	st := &autoscalingv2.ObjectMetricStatus{DescribedObject: *ref, Metric: src.Metric}
	d.status = autoscalingv2.MetricStatus{Type: autoscalingv2.ObjectMetricSourceType, Object: st}
	switch t := &src.Target; {
	case t.Type == autoscalingv2.ValueMetricType && t.Value != nil:
		if m.err != nil {
			return fail(fetched())
		}
		usage := sum(m.values)
		var err error
		if d.replicas, err = s.byRatio(float64(usage) / float64(t.Value.MilliValue())); err != nil {
			return fail(err)
		}
		st.Current.Value = thousandths(usage)
		d.name = fmt.Sprintf("%s metric %s", ref.Kind, src.Metric.Name)
	case t.Type == autoscalingv2.AverageValueMetricType && t.AverageValue != nil:
		if m.err != nil {
			return fail(fetched(), "failed to get "+src.Metric.Name+" object metric")
		}
		var average int64
		d.replicas, average = s.perPod(sum(m.values), t.AverageValue.MilliValue())
		st.Current.AverageValue = thousandths(average)
		d.name = fmt.Sprintf("external metric %s(%s)", src.Metric.Name, selectorText(src.Metric.Selector))
	default:
		return fail(errors.New("invalid object metric source: neither a value target nor an average value target was set"))
	}
	return d, nil
}

func (s *snapshot) externalDemand(src *autoscalingv2.ExternalMetricSource, m *measurement) (d demand, f *failure) {
	name := src.Metric.Name
	fail := func(err error, in ...string) (demand, *failure) {
		return demand{}, &failure{"FailedGetExternalMetric", err, within("failed to get "+name+" external metric value", in, err)}
	}
	fetched := func() error {
		return fmt.Errorf("unable to get external metric %s/%s/%s: %w", s.scaler.Namespace, name, selectorText(src.Metric.Selector), m.err)
	}
	st := &autoscalingv2.ExternalMetricStatus{Metric: src.Metric}
	d.name = fmt.Sprintf("external metric %s(%s)", name, selectorText(src.Metric.Selector))
	d.status = autoscalingv2.MetricStatus{Type: autoscalingv2.ExternalMetricSourceType, External: st}
	switch t := &src.Target; {
	case t.AverageValue != nil:
		if m.err != nil {
			return fail(fetched(), "failed to get "+name+" external metric")
		}
		var average int64
		d.replicas, average = s.perPod(sum(m.values), t.AverageValue.MilliValue())
		st.Current.AverageValue = thousandths(average)
	case t.Value != nil:
		if m.err != nil {
			return fail(fetched(), "failed to get external metric "+name)
		}
		usage := sum(m.values)
		var err error
		if d.replicas, err = s.byRatio(float64(usage) / float64(t.Value.MilliValue())); err != nil {
			return fail(err, "failed to get external metric "+name)
		}
		st.Current.Value = thousandths(usage)
	default:
		return fail(errors.New("invalid external metric source: neither a value target nor an average value target was set"))
	}
	return d, nil
}

// within says in what an error happened: the outermost first.
func within(outer string, in []string, err error) error {
	return fmt.Errorf("%s: %w", strings.Join(append([]string{outer}, in...), ": "), err)
}

// selectorText as upstream prints it into messages: "nil", or the fields.
func selectorText(l *metav1.LabelSelector) string { return fmt.Sprintf("%+v", l) }

// sum of values, the largest there is if it is larger.
func sum(values []int64) (all int64) {
	for _, v := range values {
		if v > 0 && all > math.MaxInt64-v {
			return math.MaxInt64
		}
		all += v
	}
	return all
}
