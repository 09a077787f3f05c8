package podautoscaler

import (
	"errors"
	"fmt"
	"math"
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	resources "k8s.io/component-helpers/resource"

	"github.com/proa-dev/proa/internal/controller/owned"
)

// tolerance of a ratio between usage and target.
type tolerance struct{ down, up float64 }

func (t tolerance) holds(ratio float64) bool { return 1-t.down <= ratio && ratio <= 1+t.up }

// tolerance of the autoscaler: its behaviours may say, each for its direction.
func (s *snapshot) tolerance() tolerance {
	t := tolerance{s.Tolerance, s.Tolerance}
	b := s.scaler.Spec.Behavior
	if b == nil {
		return t
	}
	of := func(r *autoscalingv2.HPAScalingRules, into *float64) {
		if r != nil && r.Tolerance != nil {
			*into = r.Tolerance.AsApproximateFloat64()
		}
	}
	of(b.ScaleDown, &t.down)
	of(b.ScaleUp, &t.up)
	return t
}

// groups of the pods by what their figures are worth. Pods that end are in none.
type groups struct {
	ready            int
	unready, missing []string
	ignored          []string
}

// group the pods. resource is "" for metrics that are no resource.
func (s *snapshot) group(values map[string]sample, resource corev1.ResourceName) (g groups) {
	for _, p := range s.pods {
		v, known := values[p.Name]
		switch {
		case p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed:
			g.ignored = append(g.ignored, p.Name)
		case p.Status.Phase == corev1.PodPending:
			g.unready = append(g.unready, p.Name)
		case !known:
			g.missing = append(g.missing, p.Name)
		case resource == corev1.ResourceCPU && s.unready(p, v):
			g.unready = append(g.unready, p.Name)
		default:
			g.ready++
		}
	}
	return g
}

// unready says that a pod's CPU does not count: it may still be what starting
// takes. In its first minutes a pod must be ready, and have been for a whole
// window of the sample; later only one that has never been ready is left out.
func (s *snapshot) unready(p *corev1.Pod, v sample) bool {
	c, start := owned.Condition(p, corev1.PodReady), p.Status.StartTime
	if c == nil || start == nil {
		return true
	}
	if start.Add(s.CPUInitialization).After(s.now) {
		return c.Status == corev1.ConditionFalse || v.at.Before(c.LastTransitionTime.Add(v.window))
	}
	return c.Status == corev1.ConditionFalse && start.Add(s.InitialReadiness).After(c.LastTransitionTime.Time)
}

var (
	errNoPods    = errors.New("no pods returned by selector while calculating replica count")
	errNoMetrics = errors.New("did not receive metrics for targeted pods (pods might be unready)")
)

// counted are the pods' groups and the values of those that are ready.
func (s *snapshot) counted(all map[string]sample, resource corev1.ResourceName) (groups, map[string]int64, error) {
	if len(s.pods) == 0 {
		return groups{}, nil, errNoPods
	}
	g := s.group(all, resource)
	values := make(map[string]int64, len(all))
	for name, v := range all {
		values[name] = v.value
	}
	for _, name := range slices.Concat(g.ignored, g.unready) {
		delete(values, name)
	}
	if len(values) == 0 {
		return g, nil, errNoMetrics
	}
	return g, values, nil
}

// byUtilization is how many replicas it takes for a resource to be used by so
// many percent of what was requested; besides, what it is now and on average.
func (s *snapshot) byUtilization(all map[string]sample, target int32, name corev1.ResourceName, container string) (n, percent int32, raw int64, err error) {
	g, values, err := s.counted(all, name)
	if err != nil {
		return 0, 0, 0, err
	}
	requested, err := requests(s.pods, container, name)
	if err != nil {
		return 0, 0, 0, err
	}
	ratio := func(values map[string]int64) (float64, int32, int64, error) {
		var used, of, pods int64
		for pod, v := range values {
			if r, ok := requested[pod]; ok {
				used, of, pods = used+v, of+r, pods+1
			}
		}
		if of == 0 {
			return 0, 0, 0, errors.New("no metrics returned matched known pods")
		}
		percent := int32(used * 100 / of)
		return float64(percent) / float64(target), percent, used / pods, nil
	}
	now, percent, raw, err := ratio(values)
	if err != nil {
		return 0, 0, 0, err
	}
	// Going down, a pod that says nothing counts as busy, going up as idle.
	busy := func(pod string) int64 { return requested[pod] * int64(max(100, target)) / 100 }
	n, err = s.resize(g, now, values, busy, func() (float64, error) { r, _, _, err := ratio(values); return r, err })
	return n, percent, raw, err
}

// byAverage is how many replicas it takes for a metric to have a value on
// average; besides, what it is now.
func (s *snapshot) byAverage(all map[string]sample, target int64, resource corev1.ResourceName) (n int32, average int64, err error) {
	g, values, err := s.counted(all, resource)
	if err != nil {
		return 0, 0, err
	}
	ratio := func() (float64, int64) {
		var used int64
		for _, v := range values {
			used += v
		}
		average := used / int64(len(values))
		return float64(average) / float64(target), average
	}
	now, average := ratio()
	n, err = s.resize(g, now, values, func(string) int64 { return target }, func() (float64, error) { r, _ := ratio(); return r, nil })
	return n, average, err
}

// resize by a ratio between usage and target. Pods of which nothing is known, and
// pods that are not ready, damp the change and never turn it round: values gets
// theirs, busy when it goes down, and again is the ratio with them.
func (s *snapshot) resize(g groups, ratio float64, values map[string]int64, busy func(pod string) int64, again func() (float64, error)) (int32, error) {
	current, t := s.scale.Spec.Replicas, s.tolerance()
	waiting := len(g.unready) > 0 && ratio > 1
	if !waiting && len(g.missing) == 0 {
		if t.holds(ratio) {
			return current, nil
		}
		return ceil(ratio * float64(g.ready)), nil
	}
	for _, pod := range g.missing {
		switch {
		case ratio < 1:
			values[pod] = busy(pod)
		case ratio > 1:
			values[pod] = 0
		}
	}
	if waiting {
		for _, pod := range g.unready {
			values[pod] = 0
		}
	}
	next, err := again()
	if err != nil {
		return 0, err
	}
	if t.holds(next) || ratio < 1 && next > 1 || ratio > 1 && next < 1 {
		return current, nil
	}
	n := ceil(next * float64(len(values)))
	if next < 1 && n > current || next > 1 && n < current {
		return current, nil
	}
	return n, nil
}

// byRatio is how many replicas it takes when a value that is not of the pods is
// so many times its target.
func (s *snapshot) byRatio(ratio float64) (int32, error) {
	current := s.scale.Spec.Replicas
	if current == 0 {
		return ceil(ratio), nil
	}
	if s.tolerance().holds(ratio) {
		return current, nil
	}
	if len(s.pods) == 0 {
		return 0, fmt.Errorf("unable to calculate ready pods: %w", errNoPods)
	}
	ready := 0
	for _, p := range s.pods {
		if p.Status.Phase == corev1.PodRunning && owned.Ready(p) {
			ready++
		}
	}
	return ceil(ratio * float64(ready)), nil
}

// perPod is how many replicas it takes for a value to be so much for each of
// them; besides, how much it is for each now.
func (s *snapshot) perPod(usage, target int64) (n int32, average int64) {
	n = s.scale.Status.Replicas
	if !s.tolerance().holds(float64(usage) / (float64(target) * float64(n))) {
		n = ceil(float64(usage) / float64(target))
	}
	if usage == math.MaxInt64 || s.scale.Status.Replicas == 0 {
		return n, usage
	}
	return n, int64(math.Ceil(float64(usage) / float64(s.scale.Status.Replicas)))
}

// ceil is a number of replicas, at most the largest there is.
func ceil(f float64) int32 {
	if f > math.MaxInt32 {
		return math.MaxInt32
	}
	return int32(math.Ceil(f))
}

// requests of a resource in thousandths by pod: of one container, or of all that
// run at the same time, for which the pod itself may speak (KEP-2837).
func requests(pods []*corev1.Pod, container string, name corev1.ResourceName) (map[string]int64, error) {
	all := make(map[string]int64, len(pods))
	for _, p := range pods {
		if container == "" && resources.IsPodLevelRequestsSet(p) {
			q, ok := resources.PodRequests(p, resources.PodResourcesOptions{})[name]
			if !ok {
				return nil, fmt.Errorf("missing pod-level request for %s in Pod %s", name, p.Name)
			}
			all[p.Name] = q.MilliValue()
			continue
		}
		n, err := containerRequests(p, container, name)
		if err != nil {
			return nil, err
		}
		all[p.Name] = n
	}
	return all, nil
}

func containerRequests(p *corev1.Pod, only string, name corev1.ResourceName) (sum int64, err error) {
	found := false
	add := func(c *corev1.Container) error {
		if only != "" && only != c.Name {
			return nil
		}
		q, ok := c.Resources.Requests[name]
		if !ok {
			return fmt.Errorf("missing request for %s in container %s of Pod %s", name, c.Name, p.Name)
		}
		found = true
		sum += q.MilliValue()
		return nil
	}
	for i := range p.Spec.Containers {
		if err := add(&p.Spec.Containers[i]); err != nil {
			return 0, err
		}
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			continue
		}
		if err := add(c); err != nil {
			return 0, err
		}
	}
	if only != "" && !found {
		return 0, fmt.Errorf("container %s not found in Pod %s", only, p.Name)
	}
	return sum, nil
}
