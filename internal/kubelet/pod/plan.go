package pod

import (
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/kubelet/runtime"
)

// Decide what to do for a pod now.
func Decide(s *State) Plan {
	p := Plan{Waiting: map[string]Waiting{}}
	switch {
	case s.End != nil:
		end(s, &p)
	case s.Have.Ready() == nil || wrongNetwork(s):
		renew(s, &p)
	default:
		run(s, &p)
		prune(s, &p)
	}
	if s.End == nil && !s.Volumes && !p.Ended {
		if s.Now.Before(s.Remount) {
			p.wake(s.Remount)
		} else if idle(s, volumesKey) {
			p.add(Op{Kind: Volumes})
		}
	}
	return p
}

func wrongNetwork(s *State) bool {
	sb := s.Have.Ready()
	return sb.Host != s.Pod.Spec.HostNetwork || (!sb.Host && len(sb.IPs) == 0)
}

// renew gives the pod a sandbox: its first, or a new one for one that broke.
func renew(s *State, p *Plan) {
	if over(s) {
		p.Ended = true
		return
	}
	if _, busy := s.Busy[Whole]; busy {
		return
	}
	attempt := 0
	if len(s.Have.Sandboxes) > 0 {
		attempt = int(s.Have.Sandboxes[0].Attempt) + 1
		if living(s.Have) || s.Have.Ready() != nil {
			for i := range s.Have.Containers {
				if c := &s.Have.Containers[i]; c.State == runtime.Running && idle(s, c.Name) {
					p.add(Op{Kind: Kill, Name: c.Name, ID: c.ID, Grace: grace(s, nil), Why: "Pod sandbox changed, it will be killed and re-created."})
				}
			}
			if !living(s.Have) {
				p.add(Op{Kind: Stop})
			}
			return
		}
		if s.Pod.Spec.RestartPolicy == v1.RestartPolicyNever && len(s.Have.Containers) > 0 && !anyRules(s.Pod) {
			p.Ended = true
			return
		}
	}
	if s.Now.Before(s.Retry) {
		p.wake(s.Retry)
		return
	}
	for name := range s.Busy {
		if name[0] != 0 {
			return // something still works on the old one
		}
	}
	p.add(Op{Kind: Sandbox, Attempt: attempt})
}

func anyRules(pod *v1.Pod) bool {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].RestartPolicy != nil || len(pod.Spec.Containers[i].RestartPolicyRules) > 0 {
			return true
		}
	}
	return false
}

func living(have *runtime.Pod) bool {
	for i := range have.Containers {
		if have.Containers[i].State == runtime.Running {
			return true
		}
	}
	return false
}

func idle(s *State, name string) bool { _, busy := s.Busy[name]; return !busy }

// over says whether every container has run to its end and none is run again.
func over(s *State) bool {
	pod := s.Pod
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if Sidecar(c) {
			continue
		}
		if last := s.Have.Latest(c.Name); last != nil && last.State == runtime.Exited && last.ExitCode != 0 && !initRestarts(pod, c, last.ExitCode) {
			return true
		}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		last := s.Have.Latest(c.Name)
		if last == nil || last.State != runtime.Exited || Restarts(pod, c, last.ExitCode) {
			return false
		}
	}
	return true
}

// run brings the containers of a pod with a good sandbox to where they should be.
func run(s *State, p *Plan) {
	if over(s) {
		p.Ended = true
		return
	}
	if restartAll(s, p) {
		return
	}
	for i := range s.Pod.Spec.EphemeralContainers {
		e := &s.Pod.Spec.EphemeralContainers[i]
		if s.Have.Latest(e.Name) == nil && idle(s, e.Name) && s.Volumes {
			c := v1.Container(e.EphemeralContainerCommon)
			start(s, p, &c, e)
		}
	}
	if !initialize(s, p) {
		return
	}
	for i := range s.Pod.Spec.Containers {
		c := &s.Pod.Spec.Containers[i]
		last := here(s, c.Name)
		switch {
		case last != nil && last.State == runtime.Running:
			mind(s, p, c, last)
		case last != nil && last.State == runtime.Exited && !Restarts(s.Pod, c, last.ExitCode):
		default:
			start(s, p, c, nil)
		}
		if b := s.Busy[c.Name]; b.Hook {
			break // its postStart hook comes before the containers after it
		}
	}
}

// here is the latest attempt at a container in the present sandbox.
func here(s *State, name string) *runtime.Container {
	sb := s.Have.Ready()
	if c := s.Have.Latest(name); c != nil && sb != nil && c.Sandbox == sb.ID {
		return c
	}
	return nil
}

// initialize runs init containers in order; true once the regular ones may run.
func initialize(s *State, p *Plan) bool {
	done := false
	for i := range s.Pod.Spec.Containers {
		done = done || here(s, s.Pod.Spec.Containers[i].Name) != nil
	}
	later := furthest(s)
	for i := range s.Pod.Spec.InitContainers {
		c := &s.Pod.Spec.InitContainers[i]
		last := here(s, c.Name)
		running := last != nil && last.State == runtime.Running
		if Sidecar(c) {
			if running {
				mind(s, p, c, last)
			} else {
				start(s, p, c, nil)
			}
			if !done && i >= later && !(running && s.Probes[last.ID].Started && s.Busy[c.Name].Kind != Start) {
				return false
			}
			continue
		}
		switch {
		case done || i < later:
		case running:
			mind(s, p, c, last)
			return false
		case last != nil && last.State == runtime.Exited && last.ExitCode == 0:
		default:
			start(s, p, c, nil)
			return false
		}
	}
	return true
}

// furthest is the index of the last init container that was begun in this sandbox.
func furthest(s *State) int {
	n := 0
	for i := range s.Pod.Spec.InitContainers {
		if here(s, s.Pod.Spec.InitContainers[i].Name) != nil {
			n = i
		}
	}
	return n
}

// start a container, unless it is being started or has to wait.
func start(s *State, p *Plan, c *v1.Container, e *v1.EphemeralContainer) {
	w, failed := s.Waiting[c.Name]
	if !idle(s, c.Name) || !s.Volumes {
		if failed {
			p.Waiting[c.Name] = w
		}
		return
	}
	if failed && s.Now.Before(w.Until) {
		hold(s, p, c.Name, w)
		return
	}
	op := Op{Kind: Start, Name: c.Name, Container: c, Ephemeral: e}
	if last := s.Have.Latest(c.Name); last != nil {
		op.Attempt = last.Attempt + 1
		if last.State == runtime.Exited {
			back := s.Back[c.Name]
			if until := back.Until(last.Finished); s.Now.Before(until) {
				p.hold(c.Name, Waiting{Reason: "CrashLoopBackOff", Until: until,
					Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", back.Delay, c.Name, String(s.Pod))})
				return
			}
			next := back.Next(last.Finished, s.Now)
			op.Back = &next
		}
	}
	if failed {
		p.Waiting[c.Name] = w
	}
	p.add(op)
}

// hold a container back. A failed pull is shown for a second before the back-off is.
func hold(s *State, p *Plan, name string, w Waiting) {
	if turn := w.Since.Add(time.Second); w.Image != "" && s.Now.Before(turn) {
		p.wake(turn)
	} else if w.Image != "" {
		w.Message = fmt.Sprintf("Back-off pulling image %q: %s: %s", w.Image, w.Reason, w.Message)
		w.Reason = "ImagePullBackOff"
	}
	p.hold(name, w)
}

// mind a running container: restart it when it is outdated or its probes say so.
func mind(s *State, p *Plan, c *v1.Container, have *runtime.Container) {
	if !idle(s, c.Name) {
		return
	}
	probe := s.Probes[have.ID]
	kill := Op{Kind: Kill, Name: c.Name, ID: have.ID}
	switch {
	case have.Hash != "" && have.Hash != Hash(c):
		kill.Why = fmt.Sprintf("Container %s definition changed, will be restarted", c.Name)
		kill.Grace, kill.Anew = grace(s, nil), true
	case probe.Failed != "":
		kill.Why = fmt.Sprintf("Container %s failed %s probe, will be restarted", c.Name, probe.Failed)
		kill.Reason = probe.Failed
		kill.Grace = grace(s, probe.Grace)
	case s.Update[c.Name]:
		if restartsOnResize(s, c) {
			kill.Why = fmt.Sprintf("Container %s resize requires restart", c.Name)
			kill.Grace = grace(s, nil)
			break
		}
		p.add(Op{Kind: Resize, Name: c.Name, ID: have.ID, Container: c})
		return
	default:
		return
	}
	p.add(kill)
}

// grace period of a kill in seconds.
func grace(s *State, own *int64) int64 {
	if own != nil {
		return *own
	}
	if g := s.Pod.Spec.TerminationGracePeriodSeconds; g != nil {
		return *g
	}
	return 30
}

// prune removes dead containers beyond the last one of each name, and sandboxes
// that have been replaced and hold none.
func prune(s *State, p *Plan) {
	seen := map[string]int{}
	for i := range s.Have.Containers {
		c := &s.Have.Containers[i]
		seen[c.Name]++
		op := Op{Kind: Remove, ID: c.ID, Name: c.Name}
		if seen[c.Name] > 2 && c.State == runtime.Exited && idle(s, op.Key()) {
			p.add(op)
		}
	}
	for i := range s.Have.Sandboxes {
		sb := &s.Have.Sandboxes[i]
		held := slices.ContainsFunc(s.Have.Containers, func(c runtime.Container) bool { return c.Sandbox == sb.ID })
		if op := (Op{Kind: Discard, ID: sb.ID}); i > 0 && !sb.Ready && !held && idle(s, op.Key()) {
			p.add(op)
		}
	}
}

// restartAll is the RestartAllContainers action of a container's restart rules:
// every container is stopped and removed, and the pod begins anew in its sandbox.
func restartAll(s *State, p *Plan) bool {
	found := false
	for i := range s.Pod.Spec.Containers {
		found = found || asksAll(s, &s.Pod.Spec.Containers[i])
	}
	for i := range s.Pod.Spec.InitContainers {
		found = found || asksAll(s, &s.Pod.Spec.InitContainers[i])
	}
	if !found {
		return false
	}
	rest := false
	for i := range s.Have.Containers {
		c := &s.Have.Containers[i]
		if c.State == runtime.Running {
			rest = true
			if idle(s, c.Name) {
				p.add(Op{Kind: Kill, Name: c.Name, ID: c.ID, Grace: grace(s, nil), Why: "Stopping container " + c.Name})
			}
		}
	}
	for i := range s.Have.Containers {
		if op := (Op{Kind: Remove, ID: s.Have.Containers[i].ID}); !rest && idle(s, op.Key()) {
			p.add(op)
		}
	}
	return true
}

func asksAll(s *State, c *v1.Container) bool {
	last := here(s, c.Name)
	if last == nil || last.State != runtime.Exited {
		return false
	}
	action, ok := rule(c, last.ExitCode)
	return ok && action == v1.ContainerRestartRuleActionRestartAllContainers
}
