package podautoscaler

import (
	"errors"
	"fmt"
	"slices"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
)

// Options of the decisions, with kube-controller-manager's defaults.
type Options struct {
	Tolerance         float64       // how far usage may be from its target without a change
	Downscale         time.Duration // how long the highest recommendation holds, without behaviours
	CPUInitialization time.Duration // after a pod's start, in which its CPU counts only while it is ready
	InitialReadiness  time.Duration // a pod that turned unready in it has never been ready
}

// Defaults are v1.36's.
func Defaults() Options {
	return Options{Tolerance: .1, Downscale: 5 * time.Minute, CPUInitialization: 5 * time.Minute, InitialReadiness: 30 * time.Second}
}

// snapshot is what a decision is made from.
type snapshot struct {
	Options
	scaler   *autoscalingv2.HorizontalPodAutoscaler
	scale    *autoscalingv1.Scale
	selector labels.Selector
	pods     []*corev1.Pod // that the selector picks
	rivals   []string      // autoscalers that control some of these pods, itself among them
	measured []measurement // one for each metric of the spec; nil = they were not wanted
	history  history
	now      time.Time
}

// measurement is what somebody says about one metric.
type measurement struct {
	err    error
	pods   map[string]sample // by name: of Resource, ContainerResource and Pods metrics
	values []int64           // in thousandths: one of an Object, any number of an External metric
}

// sample of one pod.
type sample struct {
	at     time.Time
	window time.Duration
	value  int64 // in thousandths
}

// plan is what is to be done.
type plan struct {
	status  autoscalingv2.HorizontalPodAutoscalerStatus
	desired int32
	rescale bool
	reason  string // for rescaling
	events  []note // before rescaling
	err     error  // for the log: what could not be worked out
	history history
}

// note is an event to be recorded.
type note struct{ kind, reason, message string }

func warning(reason, message string) note {
	return note{corev1.EventTypeWarning, reason, message}
}

// broken is the plan when the target's scale cannot be had.
func broken(h *autoscalingv2.HorizontalPodAutoscaler, past history, err error, now time.Time) plan {
	p := plan{status: *h.Status.DeepCopy(), events: []note{warning("FailedGetScale", err.Error())}, history: past}
	p.condition(autoscalingv2.AbleToScale, false, "FailedGetScale", "the HPA controller was unable to get the target's current scale: "+err.Error(), now)
	p.err = fmt.Errorf("failed to query scale subresource for %s: %w", reference(h), err)
	return p
}

func reference(h *autoscalingv2.HorizontalPodAutoscaler) string {
	return h.Spec.ScaleTargetRef.Kind + "/" + h.Namespace + "/" + h.Spec.ScaleTargetRef.Name
}

func lowest(h *autoscalingv2.HorizontalPodAutoscaler) int32 { return ptr.Deref(h.Spec.MinReplicas, 1) }

// needsMetrics says whether they matter for a target of this scale.
func needsMetrics(h *autoscalingv2.HorizontalPodAutoscaler, current int32) bool {
	return current != 0 && current <= h.Spec.MaxReplicas && current >= lowest(h)
}

// decide how many replicas there should be.
func decide(s *snapshot) plan {
	h, current := s.scaler, s.scale.Spec.Replicas
	p := plan{status: *h.Status.DeepCopy(), history: s.history.begun(current, s.now), rescale: true}
	p.condition(autoscalingv2.AbleToScale, true, "SucceededGetScale", "the HPA controller was able to get the target's current scale", s.now)
	var metrics []autoscalingv2.MetricStatus
	switch {
	case current == 0:
		p.desired, p.rescale = 0, false
		p.condition(autoscalingv2.ScalingActive, false, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero", s.now)
		p.without(autoscalingv2.ScaledToZero)
	case current > h.Spec.MaxReplicas:
		p.desired, p.reason = h.Spec.MaxReplicas, "Current number of replicas above Spec.MaxReplicas"
	case current < lowest(h):
		p.desired, p.reason = lowest(h), "Current number of replicas below Spec.MinReplicas"
	default:
		var ok bool
		if metrics, ok = p.byMetrics(s); !ok {
			p.rescale = false
			p.counts(current, p.status.DesiredReplicas, metrics)
			p.events = append(p.events, warning("FailedComputeMetricsReplicas", p.err.Error()))
			p.err = fmt.Errorf("failed to compute desired number of replicas based on listed metrics for %s: %w", reference(h), p.err)
			return p
		}
		p.rescale = p.desired != current
	}
	if !p.rescale {
		p.desired = current
	}
	p.counts(current, p.desired, metrics)
	return p
}

// byMetrics decides by what is measured. false = nothing can be done; then err
// says why.
func (p *plan) byMetrics(s *snapshot) (metrics []autoscalingv2.MetricStatus, ok bool) {
	current := s.scale.Spec.Replicas
	most, metrics, ok := p.demanded(s)
	if !ok {
		return metrics, false
	}
	p.desired = most.replicas
	switch {
	case p.desired > current:
		p.reason = most.name + " above target"
	case p.desired < current:
		p.reason = "All metrics below target"
	}
	p.desired = p.limited(s, p.desired)
	return metrics, true
}

// demanded is the largest demand of the metrics. Those that cannot be had count
// unless all can't, or the others would scale down.
func (p *plan) demanded(s *snapshot) (most demand, statuses []autoscalingv2.MetricStatus, ok bool) {
	if refused := s.selects(); refused != nil {
		if refused.event != "" {
			p.events = append(p.events, warning(refused.event, refused.why))
		}
		p.condition(autoscalingv2.ScalingActive, false, refused.reason, refused.message, s.now)
		p.err = errors.New(refused.why)
		return most, nil, false
	}
	specs := s.scaler.Spec.Metrics
	statuses = make([]autoscalingv2.MetricStatus, len(specs))
	failed := 0
	first := failure{reason: "InvalidMetricSourceType", short: errNoSpec, err: errNoSpec} // if there are none
	for i := range specs {
		d, f := s.demand(i)
		if f != nil {
			p.events = append(p.events, warning(f.reason, f.short.Error()))
			if failed == 0 {
				first = *f
			}
			failed++
			continue
		}
		statuses[i] = d.status
		if most.replicas == 0 || d.replicas > most.replicas {
			most = d
		}
	}
	if failed > 0 || len(specs) == 0 {
		p.err = fmt.Errorf("invalid metrics (%d invalid out of %d), first error is: %w", failed, len(specs), first.err)
	}
	if failed >= len(specs) || failed > 0 && most.replicas < s.scale.Spec.Replicas {
		p.condition(autoscalingv2.ScalingActive, false, first.reason, "the HPA was unable to compute the replica count: "+first.short.Error(), s.now)
		return most, statuses, false
	}
	p.condition(autoscalingv2.ScalingActive, true, "ValidMetricFound", "the HPA was able to successfully calculate a replica count from "+most.name, s.now)
	return most, statuses, true
}

var errNoSpec = errors.New("the spec has no metrics")

// refusal of the target's selector.
type refusal struct{ event, why, reason, message string }

// selects says why the target's selector will not do; nil = it will.
func (s *snapshot) selects() *refusal {
	text := s.scale.Status.Selector
	switch {
	case text == "":
		return &refusal{"SelectorRequired", "selector is required", "InvalidSelector", "the HPA target's scale is missing a selector"}
	case s.selector == nil:
		_, err := labels.Parse(text)
		why := fmt.Sprintf("couldn't convert selector into a corresponding internal selector object: %v", err)
		return &refusal{"InvalidSelector", why, "InvalidSelector", why}
	case len(s.rivals) > 1:
		why := fmt.Sprintf("pods by selector %v are controlled by multiple HPAs: %v", text, s.rivals)
		return &refusal{"AmbiguousSelector", why, "AmbiguousSelector", why}
	}
	return nil
}

// rescaled is what follows from having tried to rescale the target.
func (p *plan) rescaled(s *snapshot, err error) (after note) {
	current := s.scale.Spec.Replicas
	if err != nil {
		p.condition(autoscalingv2.AbleToScale, false, "FailedUpdateScale", fmt.Sprintf("the HPA controller was unable to update the target scale: %v", err), s.now)
		p.status.DesiredReplicas = s.scaler.Status.DesiredReplicas
		p.err = fmt.Errorf("failed to rescale %s: %w", reference(s.scaler), err)
		return warning("FailedRescale", fmt.Sprintf("New size: %d; reason: %s; error: %v", p.desired, p.reason, err))
	}
	p.condition(autoscalingv2.AbleToScale, true, "SucceededRescale", fmt.Sprintf("the HPA controller was able to update the target scale to %d", p.desired), s.now)
	p.without(autoscalingv2.ScaledToZero)
	p.status.LastScaleTime = &metav1.Time{Time: s.now}
	p.history = p.history.scaled(s.scaler.Spec.Behavior, current, p.desired, s.now)
	return note{corev1.EventTypeNormal, "SuccessfulRescale", fmt.Sprintf("New size: %d; reason: %s", p.desired, p.reason)}
}

func (p *plan) counts(current, desired int32, metrics []autoscalingv2.MetricStatus) {
	p.status.CurrentReplicas, p.status.DesiredReplicas, p.status.CurrentMetrics = current, desired, metrics
	p.status.ObservedGeneration = nil // upstream keeps none: autoscalers have no generation
}

// condition is set; the time moves when the status does.
func (p *plan) condition(t autoscalingv2.HorizontalPodAutoscalerConditionType, yes bool, reason, message string, now time.Time) {
	status := corev1.ConditionFalse
	if yes {
		status = corev1.ConditionTrue
	}
	i := slices.IndexFunc(p.status.Conditions, func(c autoscalingv2.HorizontalPodAutoscalerCondition) bool { return c.Type == t })
	if i < 0 {
		i = len(p.status.Conditions)
		p.status.Conditions = append(p.status.Conditions, autoscalingv2.HorizontalPodAutoscalerCondition{Type: t})
	}
	c := &p.status.Conditions[i]
	if c.Status != status {
		c.LastTransitionTime = metav1.Time{Time: now}
	}
	c.Status, c.Reason, c.Message = status, reason, message
}

// without a condition: that of a gate which is off.
func (p *plan) without(t autoscalingv2.HorizontalPodAutoscalerConditionType) {
	p.status.Conditions = slices.DeleteFunc(p.status.Conditions, func(c autoscalingv2.HorizontalPodAutoscalerCondition) bool { return c.Type == t })
}
