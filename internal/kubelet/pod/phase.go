package pod

import (
	v1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/kubelet/runtime"
)

// phase of the pod, from the statuses of its containers.
func phase(s *State, st *v1.PodStatus) v1.PodPhase {
	begun := false // a regular container has run in this life of the pod
	for i := range s.Pod.Spec.Containers {
		if c := s.Have.Latest(s.Pod.Spec.Containers[i].Name); c != nil && c.State != runtime.Created {
			begun = true
		}
	}
	pending, running := false, false
	for i := range s.Pod.Spec.InitContainers {
		c, cs := &s.Pod.Spec.InitContainers[i], &st.InitContainerStatuses[i]
		if Sidecar(c) {
			running = running || cs.State.Running != nil
			never := cs.State.Waiting != nil && cs.LastTerminationState.Terminated == nil
			early := cs.State.Running != nil && !begunWell(cs)
			pending = pending || (never || early) && !begun
			continue
		}
		t := cs.State.Terminated
		if t == nil && cs.State.Waiting != nil {
			t = cs.LastTerminationState.Terminated
		}
		switch {
		case cs.State.Running != nil || t == nil:
			pending = pending || !begun
		case t.ExitCode != 0 && !Restarts(s.Pod, c, t.ExitCode):
			return v1.PodFailed
		case t.ExitCode != 0:
			pending = pending || !begun
		}
	}
	waiting, again, failed := false, false, false
	for i := range st.ContainerStatuses {
		cs := &st.ContainerStatuses[i]
		t := cs.State.Terminated
		if cs.State.Waiting != nil {
			t = cs.LastTerminationState.Terminated
		}
		switch {
		case cs.State.Running != nil:
			running = true
		case t == nil:
			waiting = true
		default:
			failed = failed || t.ExitCode != 0
			again = again || Restarts(s.Pod, Find(s.Pod, cs.Name), t.ExitCode)
		}
	}
	switch {
	case pending || waiting:
		return v1.PodPending
	case running:
		return v1.PodRunning
	case again && s.End == nil:
		return v1.PodRunning
	case failed:
		return v1.PodFailed
	}
	return v1.PodSucceeded
}

// QOS class of a pod (KEP-2837 for resources of the whole pod).
func QOS(pod *v1.Pod) v1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	all := append(append([]v1.Container{}, pod.Spec.InitContainers...), pod.Spec.Containers...)
	if r := pod.Spec.Resources; r != nil && (len(r.Requests) > 0 || len(r.Limits) > 0) {
		all = []v1.Container{{Resources: *r}}
	}
	any, guaranteed := false, true
	for i := range all {
		for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			req, lim := all[i].Resources.Requests[name], all[i].Resources.Limits[name]
			any = any || req.Sign() > 0 || lim.Sign() > 0
			guaranteed = guaranteed && lim.Sign() > 0 && (req.IsZero() || req.Cmp(lim) == 0)
		}
	}
	switch {
	case !any:
		return v1.PodQOSBestEffort
	case guaranteed:
		return v1.PodQOSGuaranteed
	}
	return v1.PodQOSBurstable
}

func begunWell(st *v1.ContainerStatus) bool { return st.Started != nil && *st.Started }
