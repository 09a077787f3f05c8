package pod

import (
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Owned says whether a condition is the kubelet's to write.
func Owned(t v1.PodConditionType) bool {
	switch t {
	case v1.PodReadyToStartContainers, v1.PodInitialized, v1.PodReady, v1.ContainersReady, v1.PodScheduled,
		v1.PodResizePending, v1.PodResizeInProgress, v1.AllContainersRestarting:
		return true
	}
	return false
}

// conditions writes those that are the kubelet's and leaves the others.
func conditions(s *State, st *v1.PodStatus) {
	old := st.Conditions
	st.Conditions = nil
	for _, c := range old {
		if !Owned(c.Type) {
			st.Conditions = append(st.Conditions, c)
		}
	}
	if s.End != nil && s.End.Condition != nil {
		c := *s.End.Condition
		st.Conditions = slices.DeleteFunc(st.Conditions, func(x v1.PodCondition) bool { return x.Type == c.Type })
		st.Conditions = append(st.Conditions, keep(s, old, c))
	}
	for _, c := range s.Resizing {
		st.Conditions = append(st.Conditions, keep(s, old, c))
	}
	add := func(c v1.PodCondition) { st.Conditions = append(st.Conditions, keep(s, old, c)) }
	sandbox := v1.PodCondition{Type: v1.PodReadyToStartContainers, Status: v1.ConditionFalse}
	if s.Have.Ready() != nil && !wrongNetwork(s) {
		sandbox.Status = v1.ConditionTrue
	}
	all := append(append([]v1.ContainerStatus{}, st.InitContainerStatuses...), st.ContainerStatuses...)
	ready := containersReady(s.Pod, all, st.Phase)
	whole := ready
	whole.Type = v1.PodReady
	if whole.Status == v1.ConditionTrue {
		gates(s.Pod, st.Conditions, &whole)
	}
	add(sandbox)
	add(initialized(s, all, st.Phase))
	add(whole)
	add(ready)
	add(v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionTrue})
}

// keep the time of the last transition when the status is as it was.
func keep(s *State, old []v1.PodCondition, c v1.PodCondition) v1.PodCondition {
	c.ObservedGeneration = s.Pod.Generation
	c.LastTransitionTime = metav1.Time{Time: s.Now.Truncate(time.Second)}
	for _, o := range old {
		if o.Type != c.Type {
			continue
		}
		if o.Status == c.Status {
			c.LastTransitionTime = o.LastTransitionTime
		}
		c.LastProbeTime = o.LastProbeTime
	}
	return c
}

func containersReady(pod *v1.Pod, all []v1.ContainerStatus, phase v1.PodPhase) v1.PodCondition {
	c := v1.PodCondition{Type: v1.ContainersReady, Status: v1.ConditionFalse}
	switch phase {
	case v1.PodSucceeded:
		c.Reason = "PodCompleted"
		return c
	case v1.PodFailed:
		c.Reason = "PodFailed"
		return c
	}
	var unready []string
	look := func(name string) {
		for i := range all {
			if all[i].Name == name && !all[i].Ready {
				unready = append(unready, name)
			}
		}
	}
	for i := range pod.Spec.InitContainers {
		if Sidecar(&pod.Spec.InitContainers[i]) {
			look(pod.Spec.InitContainers[i].Name)
		}
	}
	for i := range pod.Spec.Containers {
		look(pod.Spec.Containers[i].Name)
	}
	if len(unready) > 0 {
		c.Reason, c.Message = "ContainersNotReady", fmt.Sprintf("containers with unready status: %s", unready)
		return c
	}
	c.Status = v1.ConditionTrue
	return c
}

func gates(pod *v1.Pod, have []v1.PodCondition, c *v1.PodCondition) {
	var why []string
	for _, g := range pod.Spec.ReadinessGates {
		i := slices.IndexFunc(have, func(x v1.PodCondition) bool { return x.Type == g.ConditionType })
		switch {
		case i < 0:
			why = append(why, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", g.ConditionType))
		case have[i].Status != v1.ConditionTrue:
			why = append(why, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", g.ConditionType, have[i].Status))
		}
	}
	if len(why) > 0 {
		c.Status, c.Reason, c.Message = v1.ConditionFalse, "ReadinessGatesNotReady", strings.Join(why, ", ")
	}
}

func initialized(s *State, all []v1.ContainerStatus, phase v1.PodPhase) v1.PodCondition {
	c := v1.PodCondition{Type: v1.PodInitialized, Status: v1.ConditionTrue}
	if phase == v1.PodSucceeded {
		c.Reason = "PodCompleted"
		return c
	}
	for i := range s.Pod.Spec.Containers {
		for j := range all {
			if st := &all[j]; st.Name == s.Pod.Spec.Containers[i].Name && (st.State.Running != nil || st.State.Terminated != nil || st.LastTerminationState.Terminated != nil) {
				return c
			}
		}
	}
	var open []string
	for i := range s.Pod.Spec.InitContainers {
		spec, st := &s.Pod.Spec.InitContainers[i], &all[i]
		if Sidecar(spec) && !begunWell(st) || !Sidecar(spec) && !st.Ready {
			open = append(open, spec.Name)
		}
	}
	if len(open) > 0 {
		c.Status, c.Reason = v1.ConditionFalse, "ContainersNotInitialized"
		c.Message = fmt.Sprintf("containers with incomplete status: %s", open)
	}
	return c
}
