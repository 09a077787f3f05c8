package pod

import (
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/kubelet/runtime"
)

// Status of the pod as the API shall show it. held are the containers that a
// plan holds back.
func Status(s *State, held map[string]Waiting) v1.PodStatus {
	pod, old := s.Pod, s.Old
	st := *old.DeepCopy()
	st.ObservedGeneration = pod.Generation
	if st.StartTime == nil {
		st.StartTime = &metav1.Time{Time: s.Now.Truncate(time.Second)}
	}
	addresses(s, &st)
	if st.QOSClass == "" {
		st.QOSClass = QOS(pod)
	}
	hasInit := len(pod.Spec.InitContainers) > 0
	st.InitContainerStatuses = containers(s, held, pod.Spec.InitContainers, old.InitContainerStatuses, hasInit, true)
	st.ContainerStatuses = containers(s, held, pod.Spec.Containers, old.ContainerStatuses, hasInit, false)
	var eph []v1.Container
	for i := range pod.Spec.EphemeralContainers {
		eph = append(eph, v1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	st.EphemeralContainerStatuses = containers(s, held, eph, old.EphemeralContainerStatuses, false, false)

	st.Phase = phase(s, &st)
	if Final(old.Phase) {
		st.Phase = old.Phase
	}
	if e := s.End; e != nil && e.Phase != "" && !Final(old.Phase) {
		st.Phase, st.Reason, st.Message = e.Phase, e.Reason, e.Message
	}
	conditions(s, &st)
	st.Resize = ""
	return st
}

// Final says whether a phase is one that is never left.
func Final(p v1.PodPhase) bool { return p == v1.PodFailed || p == v1.PodSucceeded }

func addresses(s *State, st *v1.PodStatus) {
	st.HostIP, st.HostIPs = "", nil
	for _, ip := range s.HostIPs {
		st.HostIPs = append(st.HostIPs, v1.HostIP{IP: ip})
	}
	if len(s.HostIPs) > 0 {
		st.HostIP = s.HostIPs[0]
	}
	var ips []string
	switch sb := s.Have.Ready(); {
	case s.Pod.Spec.HostNetwork:
		ips = s.HostIPs
	case sb != nil:
		ips = sb.IPs
	}
	if len(ips) == 0 {
		return // keeps what a pod that has ended had
	}
	st.PodIP, st.PodIPs = ips[0], nil
	for _, ip := range ips {
		st.PodIPs = append(st.PodIPs, v1.PodIP{IP: ip})
	}
}

func containers(s *State, held map[string]Waiting, specs []v1.Container, old []v1.ContainerStatus, hasInit, init bool) []v1.ContainerStatus {
	var list []v1.ContainerStatus
	for i := range specs {
		var was *v1.ContainerStatus
		for j := range old {
			if old[j].Name == specs[i].Name {
				was = &old[j]
			}
		}
		list = append(list, one(s, held, &specs[i], was, hasInit, init))
	}
	if !init {
		slices.SortFunc(list, func(a, b v1.ContainerStatus) int { return strings.Compare(a.Name, b.Name) })
	}
	return list
}

// one container's status: the latest attempt is its state, the one before its last state.
func one(s *State, held map[string]Waiting, c *v1.Container, was *v1.ContainerStatus, hasInit, init bool) v1.ContainerStatus {
	st := v1.ContainerStatus{Name: c.Name, Image: c.Image, Started: new(bool), VolumeMounts: mounts(s, c)}
	first := "ContainerCreating"
	if hasInit {
		first = "PodInitializing"
	}
	st.State.Waiting = &v1.ContainerStateWaiting{Reason: first}
	if was != nil {
		st.RestartCount, st.LastTerminationState = was.RestartCount, was.LastTerminationState
	}
	attempts := s.attempts(c.Name)
	if len(attempts) == 0 {
		missing(s, &st, was)
	} else {
		if attempts[0].State != runtime.Created {
			st.State = state(s, attempts[0])
		}
		st.LastTerminationState = v1.ContainerState{}
		switch {
		case len(attempts) > 1:
			st.LastTerminationState = state(s, attempts[1])
		case was != nil && was.ContainerID != s.cid(attempts[0].ID) && was.State.Terminated != nil:
			st.LastTerminationState = was.State
		case was != nil:
			st.LastTerminationState = was.LastTerminationState
		}
		now := attempts[0]
		st.ContainerID, st.ImageID, st.RestartCount = s.cid(now.ID), now.ImageID, int32(now.Attempt)
		if now.Image != "" && !strings.HasPrefix(now.Image, "sha256:") {
			st.Image = now.Image
		}
		ready(s, &st, c, was, now, init)
		st.AllocatedResources = c.Resources.DeepCopy().Requests
		st.Resources = resources(c, now, was)
		if now.User != nil {
			st.User = &v1.ContainerUser{Linux: &v1.LinuxContainerUser{UID: now.User.Uid, GID: now.User.Gid, SupplementalGroups: now.User.SupplementalGroups}}
		}
	}
	// A container that is held back or about to run again waits, and says why.
	if w, ok := held[c.Name]; ok && w.Reason != "" && st.State.Running == nil {
		if st.State.Terminated != nil {
			st.LastTerminationState = st.State
		}
		st.State = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: w.Reason, Message: w.Message}}
	}
	return st
}

// missing is the status of a container that the runtime does not have.
func missing(s *State, st *v1.ContainerStatus, was *v1.ContainerStatus) {
	if was == nil {
		return
	}
	switch {
	case was.State.Terminated != nil:
		*st = *was.DeepCopy()
	case was.State.Running != nil:
		t := v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
			Reason: "ContainerStatusUnknown", ExitCode: 137,
			Message: "The container could not be located when the pod was deleted.  The container used to be Running",
		}}
		if s.End != nil {
			st.State, st.ContainerID, st.ImageID = t, was.ContainerID, was.ImageID
		} else if st.LastTerminationState = t; s.Pod.DeletionTimestamp == nil {
			st.RestartCount++
		}
	case s.End != nil && s.Clean:
		*st = *was.DeepCopy()
	}
}

func state(s *State, c *runtime.Container) v1.ContainerState {
	switch c.State {
	case runtime.Running:
		return v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: metav1.Time{Time: c.Started.Truncate(time.Second)}}}
	case runtime.Exited:
		t := &v1.ContainerStateTerminated{
			ExitCode: c.ExitCode, Reason: c.Reason, Message: c.Message, ContainerID: s.cid(c.ID),
			StartedAt: metav1.Time{Time: c.Started.Truncate(time.Second)}, FinishedAt: metav1.Time{Time: c.Finished.Truncate(time.Second)},
		}
		if t.Reason == "" {
			t.Reason = "Completed"
			if t.ExitCode != 0 {
				t.Reason = "Error"
			}
		}
		return v1.ContainerState{Terminated: t}
	}
	return v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "ContainerCreating"}}
}

func (s *State) attempts(name string) []*runtime.Container {
	var list []*runtime.Container
	for i := range s.Have.Containers {
		if s.Have.Containers[i].Name == name && len(list) < 2 {
			list = append(list, &s.Have.Containers[i])
		}
	}
	return list
}

func (s *State) cid(id string) string { return s.Have.Runtime + "://" + id }

// ready fills in started and ready from the probes, or, as long as they have not
// spoken (the kubelet has just been started), from what the same container was.
func ready(s *State, st *v1.ContainerStatus, c *v1.Container, was *v1.ContainerStatus, now *runtime.Container, init bool) {
	if now.State != runtime.Running {
		st.Ready = init && !Sidecar(c) && now.State == runtime.Exited && now.ExitCode == 0
		return
	}
	probe, known := s.Probes[now.ID]
	if !known && was != nil && was.ContainerID == st.ContainerID {
		st.Ready = was.Ready
		st.Started = was.Started
		return
	}
	// Only a postStart hook is waited for: without one a container that runs has
	// started, whoever is told of it first.
	busy := s.Busy[c.Name]
	started := probe.Started && !(busy.Kind == Start && busy.Hook)
	st.Started = &started
	st.Ready = started && probe.Ready && (!init || Sidecar(c))
}

func mounts(s *State, c *v1.Container) []v1.VolumeMountStatus {
	var list []v1.VolumeMountStatus
	for _, m := range c.VolumeMounts {
		st := v1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := v1.RecursiveReadOnlyDisabled
			if r := m.RecursiveReadOnly; r != nil && (*r == v1.RecursiveReadOnlyEnabled || *r == v1.RecursiveReadOnlyIfPossible && s.RRO) {
				mode = v1.RecursiveReadOnlyEnabled
			}
			st.RecursiveReadOnly = &mode
		}
		list = append(list, st)
	}
	return list
}

// Same says whether two statuses need no write between them.
func Same(a, b *v1.PodStatus) bool { return equality.Semantic.DeepEqual(a, b) }
