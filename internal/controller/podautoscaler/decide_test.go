package podautoscaler

import (
	"errors"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func utilization(name corev1.ResourceName, percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name: name, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
	}}
}

func average(q string) autoscalingv2.MetricTarget {
	return autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: ptr.To(resource.MustParse(q))}
}

func value(q string) autoscalingv2.MetricTarget {
	return autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: ptr.To(resource.MustParse(q))}
}

func ofObject(t autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{
		DescribedObject: autoscalingv2.CrossVersionObjectReference{Kind: "Service", Name: "s"}, Metric: autoscalingv2.MetricIdentifier{Name: "hits"}, Target: t,
	}}
}

func ofPods(t autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "qps"}, Target: t}}
}

func external(t autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: "queue", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"q": "a"}}}, Target: t,
	}}
}

func ofContainer(name string, percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ContainerResourceMetricSourceType, ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
		Name: corev1.ResourceCPU, Container: name, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
	}}
}

// outcome of a plan in words.
func outcome(p *plan) string {
	all := []string{reasons(p)}
	for _, n := range p.events {
		all = append(all, n.kind+" "+n.reason+": "+n.message)
	}
	return strings.Join(all, "\n")
}

func TestDecide(t *testing.T) {
	lost := errors.New("it is lost")
	down := measurement{err: lost}
	for _, c := range []struct {
		name     string
		replicas int32
		pods     string
		specs    []autoscalingv2.MetricSpec
		measured func(cpu map[string]sample) []measurement
		change   func(s *snapshot)
		desired  int32
		rescale  string // why
		outcome  string
		err      string
	}{
		{
			name: "CPU above target", replicas: 3, pods: "300 500 700", specs: []autoscalingv2.MetricSpec{utilization("cpu", 30)},
			desired: 5, rescale: "cpu resource utilization (percentage of request) above target",
			outcome: "ReadyForNewScale=True ValidMetricFound=True DesiredWithinRange=False",
		},
		{
			name: "a container above target", replicas: 3, pods: "300 500 700", specs: []autoscalingv2.MetricSpec{ofContainer("c", 30)},
			desired: 5, rescale: "cpu container resource utilization (percentage of request) above target",
			outcome: "ReadyForNewScale=True ValidMetricFound=True DesiredWithinRange=False",
		},
		{
			name: "a container that is not there", replicas: 3, pods: "300 500 700", specs: []autoscalingv2.MetricSpec{ofContainer("d", 30)},
			desired: 3,
			outcome: "SucceededGetScale=True FailedGetContainerResourceMetric=False\n" +
				"Warning FailedGetContainerResourceMetric: failed to get cpu utilization: container d not found in Pod pod-0\n" +
				"Warning FailedComputeMetricsReplicas: invalid metrics (1 invalid out of 1), first error is: failed to get d container metric value: failed to get cpu utilization: container d not found in Pod pod-0",
			err: "failed to compute desired number of replicas based on listed metrics for Deployment/ns/d: invalid metrics (1 invalid out of 1), first error is: failed to get d container metric value: failed to get cpu utilization: container d not found in Pod pod-0",
		},
		{
			name: "on target", replicas: 3, pods: "300 300 300", specs: []autoscalingv2.MetricSpec{utilization("cpu", 30)}, desired: 3,
			outcome: "ReadyForNewScale=True ValidMetricFound=True DesiredWithinRange=False",
		},
		{
			name: "all below target", replicas: 5, pods: "100 300 500 250 250", specs: []autoscalingv2.MetricSpec{utilization("cpu", 50)},
			change:  func(s *snapshot) { s.history = history{known: true} },
			desired: 3, rescale: "All metrics below target",
			outcome: "ReadyForNewScale=True ValidMetricFound=True DesiredWithinRange=False",
		},
		{
			name: "the size it had at first holds for a while", replicas: 5, pods: "100 300 500 250 250", specs: []autoscalingv2.MetricSpec{utilization("cpu", 50)},
			desired: 5, outcome: "ScaleDownStabilized=True ValidMetricFound=True DesiredWithinRange=False",
		},
		{
			name: "the largest of several demands", replicas: 3, pods: "300 500 700",
			specs: []autoscalingv2.MetricSpec{utilization("cpu", 30), external(value("2")), ofPods(average("1")), ofObject(value("100"))},
			measured: func(cpu map[string]sample) []measurement {
				return []measurement{{pods: cpu}, {values: []int64{3000, 1000}}, {pods: cpu}, {values: []int64{1000}}}
			},
			desired: 6, rescale: "external metric queue(&LabelSelector{MatchLabels:map[string]string{q: a,},MatchExpressions:[]LabelSelectorRequirement{},}) above target",
			outcome: "ReadyForNewScale=True ValidMetricFound=True DesiredWithinRange=False",
		},
		{
			name: "one fails, another scales up", replicas: 3, pods: "300 500 700", specs: []autoscalingv2.MetricSpec{external(value("2")), utilization("cpu", 30)},
			measured: func(cpu map[string]sample) []measurement { return []measurement{down, {pods: cpu}} },
			desired:  5, rescale: "cpu resource utilization (percentage of request) above target",
			outcome: "ReadyForNewScale=True ValidMetricFound=True DesiredWithinRange=False\n" +
				"Warning FailedGetExternalMetric: unable to get external metric ns/queue/&LabelSelector{MatchLabels:map[string]string{q: a,},MatchExpressions:[]LabelSelectorRequirement{},}: it is lost",
			err: "invalid metrics (1 invalid out of 2), first error is: failed to get queue external metric value: failed to get external metric queue: unable to get external metric ns/queue/&LabelSelector{MatchLabels:map[string]string{q: a,},MatchExpressions:[]LabelSelectorRequirement{},}: it is lost",
		},
		{
			name: "one fails, so it does not scale down", replicas: 5, pods: "100 100 100 100 100", specs: []autoscalingv2.MetricSpec{utilization("cpu", 50), ofObject(average("2"))},
			measured: func(cpu map[string]sample) []measurement { return []measurement{{pods: cpu}, down} }, desired: 5,
			outcome: "SucceededGetScale=True FailedGetObjectMetric=False\n" +
				"Warning FailedGetObjectMetric: unable to get metric hits: Service on ns s/it is lost\n" +
				"Warning FailedComputeMetricsReplicas: invalid metrics (1 invalid out of 2), first error is: failed to get object metric value: failed to get hits object metric: unable to get metric hits: Service on ns s/it is lost",
			err: "failed to compute desired number of replicas based on listed metrics for Deployment/ns/d: invalid metrics (1 invalid out of 2), first error is: failed to get object metric value: failed to get hits object metric: unable to get metric hits: Service on ns s/it is lost",
		},
		{
			name: "all fail", replicas: 5, pods: "100 100 100 100 100", specs: []autoscalingv2.MetricSpec{utilization("cpu", 50), ofPods(average("2"))},
			measured: func(map[string]sample) []measurement { return []measurement{down, down} }, desired: 5,
			outcome: "SucceededGetScale=True FailedGetResourceMetric=False\n" +
				"Warning FailedGetResourceMetric: failed to get cpu utilization: unable to get metrics for resource cpu: it is lost\n" +
				"Warning FailedGetPodsMetric: unable to get metric qps: it is lost\n" +
				"Warning FailedComputeMetricsReplicas: invalid metrics (2 invalid out of 2), first error is: failed to get cpu resource metric value: failed to get cpu utilization: unable to get metrics for resource cpu: it is lost",
			err: "failed to compute desired number of replicas based on listed metrics for Deployment/ns/d: invalid metrics (2 invalid out of 2), first error is: failed to get cpu resource metric value: failed to get cpu utilization: unable to get metrics for resource cpu: it is lost",
		},
		{
			name: "a source of no known type", replicas: 2, pods: "1 1", specs: []autoscalingv2.MetricSpec{{Type: "CheddarCheese"}}, desired: 2,
			outcome: "SucceededGetScale=True InvalidMetricSourceType=False\n" +
				"Warning InvalidMetricSourceType: unknown metric source type \"CheddarCheese\"\n" +
				"Warning FailedComputeMetricsReplicas: invalid metrics (1 invalid out of 1), first error is: unknown metric source type \"CheddarCheese\"",
			err: "failed to compute desired number of replicas based on listed metrics for Deployment/ns/d: invalid metrics (1 invalid out of 1), first error is: unknown metric source type \"CheddarCheese\"",
		},
		{
			name: "more than the most, whatever is measured", replicas: 30, specs: []autoscalingv2.MetricSpec{utilization("cpu", 30)},
			change:  func(s *snapshot) { s.scaler.Spec.MaxReplicas = 10 },
			desired: 10, rescale: "Current number of replicas above Spec.MaxReplicas", outcome: "SucceededGetScale=True",
		},
		{
			name: "fewer than the least, whatever is measured", replicas: 1, specs: []autoscalingv2.MetricSpec{utilization("cpu", 30)},
			change:  func(s *snapshot) { s.scaler.Spec.MinReplicas = ptr.To(int32(3)) },
			desired: 3, rescale: "Current number of replicas below Spec.MinReplicas", outcome: "SucceededGetScale=True",
		},
		{
			name: "at rest", replicas: 0, specs: []autoscalingv2.MetricSpec{utilization("cpu", 30)},
			change: func(s *snapshot) {
				s.scaler.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.ScaledToZero, Status: corev1.ConditionTrue, Reason: "ScaledToZero"}}
			},
			desired: 0, outcome: "SucceededGetScale=True ScalingDisabled=False",
		},
		{
			name: "to zero, of an autoscaler that may", replicas: 2, pods: "- -", specs: []autoscalingv2.MetricSpec{ofObject(value("10"))},
			measured: func(map[string]sample) []measurement { return []measurement{{values: []int64{0}}} },
			change: func(s *snapshot) {
				s.scaler.Spec.MinReplicas, s.history = ptr.To(int32(0)), history{known: true}
			},
			desired: 0, rescale: "All metrics below target", outcome: "ReadyForNewScale=True ValidMetricFound=True DesiredWithinRange=False",
		},
		{
			name: "no selector", replicas: 2, specs: []autoscalingv2.MetricSpec{utilization("cpu", 30)},
			change:  func(s *snapshot) { s.scale.Status.Selector, s.selector, s.rivals = "", nil, nil },
			desired: 2,
			outcome: "SucceededGetScale=True InvalidSelector=False\nWarning SelectorRequired: selector is required\nWarning FailedComputeMetricsReplicas: selector is required",
			err:     "failed to compute desired number of replicas based on listed metrics for Deployment/ns/d: selector is required",
		},
		{
			name: "a selector that cannot be read", replicas: 2, specs: []autoscalingv2.MetricSpec{utilization("cpu", 30)},
			change:  func(s *snapshot) { s.scale.Status.Selector, s.selector, s.rivals = "cheddar cheese", nil, nil },
			desired: 2,
			outcome: "SucceededGetScale=True InvalidSelector=False\n" +
				"Warning InvalidSelector: couldn't convert selector into a corresponding internal selector object: unable to parse requirement: found 'cheese', expected: in, notin, =, ==, !=, gt, lt\n" +
				"Warning FailedComputeMetricsReplicas: couldn't convert selector into a corresponding internal selector object: unable to parse requirement: found 'cheese', expected: in, notin, =, ==, !=, gt, lt",
			err: "failed to compute desired number of replicas based on listed metrics for Deployment/ns/d: couldn't convert selector into a corresponding internal selector object: unable to parse requirement: found 'cheese', expected: in, notin, =, ==, !=, gt, lt",
		},
		{
			name: "pods that somebody else scales, too", replicas: 2, pods: "1 1", specs: []autoscalingv2.MetricSpec{utilization("cpu", 30)},
			change:  func(s *snapshot) { s.rivals = []string{"{hpa ns}", "{other ns}"} },
			desired: 2,
			outcome: "SucceededGetScale=True AmbiguousSelector=False\n" +
				"Warning AmbiguousSelector: pods by selector app=x are controlled by multiple HPAs: [{hpa ns} {other ns}]\n" +
				"Warning FailedComputeMetricsReplicas: pods by selector app=x are controlled by multiple HPAs: [{hpa ns} {other ns}]",
			err: "failed to compute desired number of replicas based on listed metrics for Deployment/ns/d: pods by selector app=x are controlled by multiple HPAs: [{hpa ns} {other ns}]",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, cpu := snap(c.replicas, c.pods)
			s.scaler.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "d"}
			s.scaler.Spec.Metrics = c.specs
			if c.measured != nil {
				s.measured = c.measured(cpu)
			} else {
				for range c.specs {
					s.measured = append(s.measured, measurement{pods: cpu})
				}
			}
			if c.change != nil {
				c.change(s)
			}
			before := s.scaler.DeepCopy()
			p := decide(s)
			if p.desired != c.desired && p.rescale || p.rescale != (c.rescale != "") || p.rescale && p.reason != c.rescale {
				t.Errorf("%d replicas (%v: %s), not %d (%s)", p.desired, p.rescale, p.reason, c.desired, c.rescale)
			}
			if p.rescale && p.status.DesiredReplicas != c.desired || p.status.CurrentReplicas != c.replicas {
				t.Errorf("status: %d → %d", p.status.CurrentReplicas, p.status.DesiredReplicas)
			}
			if got := outcome(&p); got != c.outcome {
				t.Errorf("got\n%s\nwant\n%s", got, c.outcome)
			}
			if c.err == "" && p.err != nil || c.err != "" && (p.err == nil || p.err.Error() != c.err) {
				t.Errorf("error %v", p.err)
			}
			if !equality.Semantic.DeepEqual(before, s.scaler) {
				t.Error("the autoscaler that everybody shares was changed")
			}
		})
	}
}

func TestStatusOfMetrics(t *testing.T) {
	s, cpu := snap(2, "150 250")
	memory := map[string]sample{"pod-0": {value: 100 << 20 * 1000}, "pod-1": {value: 200 << 20 * 1000}}
	memoryAverage := autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceMemory, Target: average("150Mi")}}
	s.scaler.Spec.Metrics = []autoscalingv2.MetricSpec{utilization("cpu", 20), memoryAverage, ofContainer("c", 20), ofPods(average("200m")), ofObject(value("7")), ofObject(average("3")), external(value("7")), external(average("3"))}
	seven := measurement{values: []int64{7000}}
	s.measured = []measurement{{pods: cpu}, {pods: memory}, {pods: cpu}, {pods: cpu}, seven, seven, seven, seven}
	p := decide(s)
	var got []string
	for _, m := range p.status.CurrentMetrics {
		v := autoscalingv2.MetricValueStatus{}
		switch {
		case m.Resource != nil:
			v = m.Resource.Current
		case m.ContainerResource != nil:
			v = m.ContainerResource.Current
		case m.Pods != nil:
			v = m.Pods.Current
		case m.Object != nil:
			v = m.Object.Current
		case m.External != nil:
			v = m.External.Current
		}
		text := string(m.Type)
		if v.AverageUtilization != nil {
			text += " percent=" + resource.NewQuantity(int64(*v.AverageUtilization), resource.DecimalSI).String()
		}
		if v.AverageValue != nil {
			text += " average=" + v.AverageValue.String()
		}
		if v.Value != nil {
			text += " value=" + v.Value.String()
		}
		got = append(got, text)
	}
	want := []string{
		"Resource percent=20 average=200m", "Resource average=150Mi", "ContainerResource percent=20 average=200m", "Pods average=200m",
		"Object value=7", "Object average=3500m", "External value=7", "External average=3500m",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q", got)
	}
}

func TestRescaled(t *testing.T) {
	s, cpu := snap(3, "300 500 700")
	s.scaler.Spec.Metrics, s.measured = []autoscalingv2.MetricSpec{utilization("cpu", 30)}, []measurement{{pods: cpu}}
	s.scaler.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "d"}
	s.scaler.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: rules(t, "pods 4/60"), ScaleDown: rules(t, "pods 4/60")}
	s.scaler.Status.DesiredReplicas = 2
	p := decide(s)
	if n := p.rescaled(s, nil); n.reason != "SuccessfulRescale" || n.message != "New size: 5; reason: cpu resource utilization (percentage of request) above target" {
		t.Errorf("%+v", n)
	}
	if !strings.HasPrefix(reasons(&p), "SucceededRescale=True") || !p.status.LastScaleTime.Time.Equal(now) || p.status.DesiredReplicas != 5 || len(p.history.up) != 1 || p.history.up[0].by != 2 {
		t.Errorf("%+v %+v", p.status, p.history)
	}
	p = decide(s)
	if n := p.rescaled(s, errors.New("no")); n.reason != "FailedRescale" || n.message != "New size: 5; reason: cpu resource utilization (percentage of request) above target; error: no" {
		t.Errorf("%+v", n)
	}
	if !strings.HasPrefix(reasons(&p), "FailedUpdateScale=False") || p.status.LastScaleTime != nil || p.status.DesiredReplicas != 2 || len(p.history.up) != 0 || p.err.Error() != "failed to rescale Deployment/ns/d: no" {
		t.Errorf("%+v %+v %v", p.status, p.history, p.err)
	}
}

func TestBroken(t *testing.T) {
	s, _ := snap(3, "")
	old := metav1.NewTime(now.Add(-time.Hour))
	s.scaler.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.AbleToScale, Status: corev1.ConditionFalse, LastTransitionTime: old}}
	p := broken(s.scaler, history{}, errors.New(`deployments.apps "d" not found`), now)
	if got := outcome(&p); got != "FailedGetScale=False\nWarning FailedGetScale: deployments.apps \"d\" not found" {
		t.Error(got)
	}
	if c := p.status.Conditions[0]; c.LastTransitionTime != old || c.Message != `the HPA controller was unable to get the target's current scale: deployments.apps "d" not found` {
		t.Errorf("%+v", c)
	}
}

func TestNeedsMetrics(t *testing.T) {
	h := &autoscalingv2.HorizontalPodAutoscaler{Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MinReplicas: ptr.To(int32(2)), MaxReplicas: 4}}
	for current, want := range []bool{false, false, true, true, true, false} {
		if needsMetrics(h, int32(current)) != want {
			t.Error(current)
		}
	}
}
