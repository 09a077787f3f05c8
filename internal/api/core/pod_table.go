package core

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api/table"
)

func podColumns() []metav1.TableColumnDefinition {
	spec, status := corev1.PodSpec{}.SwaggerDoc(), corev1.PodStatus{}.SwaggerDoc()
	return []metav1.TableColumnDefinition{
		table.Name(),
		table.Col("Ready", "string", "The aggregate readiness state of this pod for accepting traffic."),
		table.Col("Status", "string", "The aggregate status of the containers in this pod."),
		table.Col("Restarts", "string", "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted."),
		table.Age(),
		table.Wide("IP", "string", status["podIP"]),
		table.Wide("Node", "string", spec["nodeName"]),
		table.Wide("Nominated Node", "string", status["nominatedNodeName"]),
		table.Wide("Readiness Gates", "string", spec["readinessGates"]),
	}
}

func podRow(p *corev1.Pod) []any {
	s := summarize(p)
	var restarts any = "0"
	if s.restarts != 0 {
		text := strconv.Itoa(s.restarts)
		if !s.restarted.IsZero() {
			text += " (" + table.Since(s.restarted) + " ago)"
		}
		restarts = text
	}
	var ip any = "<none>"
	if len(p.Status.PodIPs) > 0 {
		ip = table.OwnOrNone(&p.Status.PodIPs[0].IP)
	}
	return []any{(*table.Own)(&p.Name), table.Ratio{Of: int32(s.ready), All: int32(s.total)}, s.reason, restarts, table.AgeOf(p),
		ip, table.OwnOrNone(&p.Spec.NodeName), table.OwnOrNone(&p.Status.NominatedNodeName), readinessGates(p)}
}

func readinessGates(p *corev1.Pod) any {
	if len(p.Spec.ReadinessGates) == 0 {
		return "<none>"
	}
	n := 0
	for _, g := range p.Spec.ReadinessGates {
		if podCondition(p, g.ConditionType) == corev1.ConditionTrue {
			n++
		}
	}
	return table.Ratio{Of: int32(n), All: int32(len(p.Spec.ReadinessGates))}
}

// podCondition is a condition's status, "" if the pod does not have it.
func podCondition(p *corev1.Pod, typ corev1.PodConditionType) corev1.ConditionStatus {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == typ {
			return p.Status.Conditions[i].Status
		}
	}
	return ""
}

// podSummary is what kubectl get shows of a pod's containers.
type podSummary struct {
	ready, total int
	reason       string
	restarts     int
	restarted    metav1.Time
}

// count adds a container's restarts.
func (s *podSummary) count(c *corev1.ContainerStatus) {
	s.restarts += int(c.RestartCount)
	if t := c.LastTerminationState.Terminated; t != nil && s.restarted.Before(&t.FinishedAt) {
		s.restarted = t.FinishedAt
	}
}

func summarize(p *corev1.Pod) podSummary {
	s := podSummary{total: len(p.Spec.Containers), reason: string(p.Status.Phase)}
	if p.Status.Reason != "" {
		s.reason = p.Status.Reason
	}
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated {
			s.reason = corev1.PodReasonSchedulingGated
		}
	}
	for i := range p.Spec.InitContainers {
		if isSidecar(&p.Spec.InitContainers[i]) {
			s.total++
		}
	}
	initializing, sidecars := s.initContainers(p)
	if !initializing || podCondition(p, corev1.PodInitialized) == corev1.ConditionTrue {
		// Init containers that are done no longer count.
		s.restarts, s.restarted = sidecars.restarts, sidecars.restarted
		s.containers(p)
	}
	if p.DeletionTimestamp != nil {
		if p.Status.Reason == "NodeLost" {
			s.reason = "Unknown"
		} else if p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded {
			s.reason = "Terminating"
		}
	}
	return s
}

// initContainers says whether one of them still holds the pod up, and how often
// sidecars were restarted.
func (s *podSummary) initContainers(p *corev1.Pod) (initializing bool, sidecars podSummary) {
	for i := range p.Status.InitContainerStatuses {
		c := &p.Status.InitContainerStatuses[i]
		sidecar := false
		for j := range p.Spec.InitContainers {
			if p.Spec.InitContainers[j].Name == c.Name {
				sidecar = isSidecar(&p.Spec.InitContainers[j])
			}
		}
		s.count(c)
		if sidecar {
			sidecars.count(c)
		}
		ended, waiting := c.State.Terminated, c.State.Waiting
		switch {
		case ended != nil && ended.ExitCode == 0:
			continue
		case sidecar && isTrue(c.Started):
			if c.Ready {
				s.ready++
			}
			continue
		case ended != nil:
			s.reason = "Init:" + endReason(ended)
		case waiting != nil && waiting.Reason != "" && waiting.Reason != "PodInitializing":
			s.reason = "Init:" + waiting.Reason
		default:
			s.reason = fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
		}
		return true, sidecars
	}
	return false, sidecars
}

func (s *podSummary) containers(p *corev1.Pod) {
	running, failed := false, ""
	for i := len(p.Status.ContainerStatuses) - 1; i >= 0; i-- {
		c := &p.Status.ContainerStatuses[i]
		s.count(c)
		switch {
		case c.State.Waiting != nil && c.State.Waiting.Reason != "":
			s.reason = c.State.Waiting.Reason
		case c.State.Terminated != nil:
			s.reason = endReason(c.State.Terminated)
			if c.State.Terminated.ExitCode != 0 {
				failed = s.reason
			}
		case c.Ready && c.State.Running != nil:
			running = true
			s.ready++
		}
	}
	if s.reason != "Completed" {
		return
	}
	switch {
	case running && podCondition(p, corev1.PodReady) == corev1.ConditionTrue:
		s.reason = "Running"
	case failed != "":
		s.reason = failed
	case running:
		s.reason = "NotReady"
	}
}

func endReason(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	}
	return fmt.Sprintf("ExitCode:%d", t.ExitCode)
}
