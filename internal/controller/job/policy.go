package job

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/controller/owned"
)

// failure is what the pod failure policy (KEP-3329) says of one failed pod.
type failure struct {
	counts  bool
	action  batchv1.PodFailurePolicyAction // "" = no rule matches
	message string                         // of FailJob
}

func judgeFailure(j *batchv1.Job, p *corev1.Pod) failure {
	if j.Spec.PodFailurePolicy == nil {
		return failure{counts: true}
	}
	for i, r := range j.Spec.PodFailurePolicy.Rules {
		what := ""
		switch {
		case r.OnExitCodes != nil:
			if st := exited(p, r.OnExitCodes); st != nil {
				what = fmt.Sprintf("Container %s for pod %s/%s failed with exit code %v matching %v rule at index %d",
					st.Name, p.Namespace, p.Name, st.State.Terminated.ExitCode, r.Action, i)
			}
		default:
			for _, c := range p.Status.Conditions {
				if slices.ContainsFunc(r.OnPodConditions, func(w batchv1.PodFailurePolicyOnPodConditionsPattern) bool {
					return w.Type == c.Type && w.Status == c.Status
				}) {
					what = fmt.Sprintf("Pod %s/%s has condition %v matching %v rule at index %d", p.Namespace, p.Name, c.Type, r.Action, i)
					break
				}
			}
		}
		if what == "" {
			continue
		}
		f := failure{counts: r.Action != batchv1.PodFailurePolicyActionIgnore, action: r.Action}
		if r.Action == batchv1.PodFailurePolicyActionFailJob {
			f.message = what
		}
		return f
	}
	return failure{counts: true}
}

// exited is the first container that failed with a code that the rule is about.
func exited(p *corev1.Pod, r *batchv1.PodFailurePolicyOnExitCodesRequirement) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
		for i := range list {
			t := list[i].State.Terminated
			if t == nil || t.ExitCode == 0 || r.ContainerName != nil && *r.ContainerName != list[i].Name {
				continue
			}
			if slices.Contains(r.Values, t.ExitCode) == (r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
				return &list[i]
			}
		}
	}
	return nil
}

// succeeds says by which rule of the success policy (KEP-3998) the job has
// succeeded already.
func succeeds(j *batchv1.Job, done indexes) (message string, ok bool) {
	if j.Spec.SuccessPolicy == nil || len(done) == 0 {
		return "", false
	}
	for i, r := range j.Spec.SuccessPolicy.Rules {
		good := false
		if r.SucceededIndexes != nil {
			want := parseIndexes(*r.SucceededIndexes, int(*j.Spec.Completions))
			have := want.both(done)
			good = len(want) > 0 && (have == want.total() || r.SucceededCount != nil && have >= int(*r.SucceededCount))
		} else {
			good = r.SucceededCount != nil && done.total() >= int(*r.SucceededCount)
		}
		if good {
			return fmt.Sprintf("Matched rules at index %d", i), true
		}
	}
	return "", false
}

// Back-off of pods that replace failed ones.
const (
	firstBackoff = 10 * time.Second
	mostBackoff  = 10 * time.Minute
)

// record of a job's failures since its last success.
type record struct {
	failures int
	last     time.Time
}

// after more pods have ended.
func (r record) after(succeeded, failed []*corev1.Pod) record {
	var success time.Time
	if len(succeeded) > 0 {
		r = record{}
		for _, p := range succeeded {
			if t := finished(p); t.After(success) {
				success = t
			}
		}
	}
	for _, p := range failed {
		if t := finished(p); len(succeeded) == 0 || t.After(success) {
			r.failures++
			if t.After(r.last) {
				r.last = t
			}
		}
	}
	return r
}

// wait before the next pod may be made.
func (r record) wait(now time.Time) time.Duration {
	if r.failures == 0 {
		return 0
	}
	d := firstBackoff
	for i := 1; i < r.failures && d < mostBackoff; i++ {
		d *= 2
	}
	return max(0, min(d, mostBackoff)-now.Sub(r.last))
}

// finished is when a pod ended: by its containers, else when it ceased to be
// ready, else when its deletion began, else when it was made.
func finished(p *corev1.Pod) time.Time {
	sidecar := map[string]bool{}
	for i := range p.Spec.InitContainers {
		sidecar[p.Spec.InitContainers[i].Name] = ptr.Deref(p.Spec.InitContainers[i].RestartPolicy, "") == corev1.ContainerRestartPolicyAlways
	}
	var last time.Time
	all := len(p.Status.ContainerStatuses) > 0
	see := func(s *corev1.ContainerStatus) {
		if t := s.State.Terminated; t == nil || t.FinishedAt.IsZero() {
			all = false
		} else if t.FinishedAt.After(last) {
			last = t.FinishedAt.Time
		}
	}
	for i := range p.Status.ContainerStatuses {
		see(&p.Status.ContainerStatuses[i])
	}
	for i := range p.Status.InitContainerStatuses {
		if sidecar[p.Status.InitContainerStatuses[i].Name] {
			see(&p.Status.InitContainerStatuses[i])
		}
	}
	if all {
		return last
	}
	if c := owned.Condition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionFalse && !c.LastTransitionTime.IsZero() {
		return c.LastTransitionTime.Time
	}
	if p.DeletionTimestamp != nil {
		return p.DeletionTimestamp.Add(-time.Duration(ptr.Deref(p.DeletionGracePeriodSeconds, 0)) * time.Second)
	}
	return p.CreationTimestamp.Time
}

// indexOf a pod, -1 if it has none.
func indexOf(p *corev1.Pod) int {
	n, err := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// failuresOf a pod's index before it: those that count, and all.
func failuresOf(p *corev1.Pod) (counted, all int) {
	counted, _ = strconv.Atoi(p.Annotations[batchv1.JobIndexFailureCountAnnotation])
	ignored, _ := strconv.Atoi(p.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation])
	return max(0, counted), max(0, counted) + max(0, ignored)
}
