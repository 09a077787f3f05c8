package pod

import (
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/kubelet/runtime"
)

// end stops a pod: containers, sidecars last and in reverse order, then the
// sandbox, then volumes and cgroup, then, if it was deleted, the object.
func end(s *State, p *Plan) {
	total := grace(s, s.End.Grace)
	until := s.End.Since.Add(time.Duration(total) * time.Second)
	left := int64(until.Sub(s.Now).Round(time.Second) / time.Second)
	alive := false
	waits := false // a container that goes before is still there
	for _, name := range stopOrder(s) {
		c := s.Have.Latest(name)
		if c == nil || c.State != runtime.Running {
			if b, busy := s.Busy[name]; busy && b.Kind == Start {
				alive, waits = true, true // its cancelled start winds up
			}
			continue
		}
		alive = true
		side := false
		if spec := Find(s.Pod, name); spec != nil && isInit(s.Pod, name) {
			side = Sidecar(spec)
		}
		if side && waits && left > 0 {
			p.wake(until)
			continue
		}
		waits = true
		g := max(left, 0)
		if s.End.Since.Equal(s.Now) || !side {
			g = total
		}
		b, busy := s.Busy[name]
		if busy && b.Kind == Start {
			continue
		}
		if !busy || b.Until.After(until.Add(3*time.Second)) {
			p.add(Op{Kind: Kill, Name: name, ID: c.ID, Grace: g, Why: "Stopping container " + name})
		}
	}
	if alive {
		return
	}
	if !idle(s, Whole) || !idle(s, volumesKey) {
		return
	}
	for _, sb := range s.Have.Sandboxes {
		if sb.Ready {
			p.add(Op{Kind: Stop})
			return
		}
	}
	if !s.Clean {
		p.add(Op{Kind: Tidy})
		return
	}
	if s.End.Deleted {
		p.add(Op{Kind: Finish})
	}
}

// stopOrder lists containers as they stop: ephemeral and regular ones and init
// containers together, then sidecars from the last to the first.
func stopOrder(s *State) []string {
	var names, sides []string
	seen := map[string]bool{}
	for i := range s.Pod.Spec.InitContainers {
		if c := &s.Pod.Spec.InitContainers[i]; Sidecar(c) {
			sides = append([]string{c.Name}, sides...)
			seen[c.Name] = true
		}
	}
	for i := range s.Have.Containers {
		if n := s.Have.Containers[i].Name; !seen[n] {
			seen[n] = true
			names = append(names, n)
		}
	}
	for n, b := range s.Busy {
		if b.Kind == Start && !seen[n] {
			seen[n] = true
			names = append(names, n)
		}
	}
	return append(names, sides...)
}

func isInit(pod *v1.Pod, name string) bool {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return true
		}
	}
	return false
}

func restartsOnResize(s *State, c *v1.Container) bool {
	for _, r := range c.ResizePolicy {
		if r.RestartPolicy == v1.RestartContainer && changed(s, c, r.ResourceName) {
			return true
		}
	}
	return false
}

// changed says whether a resource of a container differs from what its status says it has.
func changed(s *State, c *v1.Container, name v1.ResourceName) bool {
	for _, list := range [][]v1.ContainerStatus{s.Old.ContainerStatuses, s.Old.InitContainerStatuses} {
		for i := range list {
			if list[i].Name != c.Name || list[i].Resources == nil {
				continue
			}
			old := list[i].Resources
			if !old.Limits.Name(name, "").Equal(*c.Resources.Limits.Name(name, "")) ||
				!old.Requests.Name(name, "").Equal(*c.Resources.Requests.Name(name, "")) {
				return true
			}
		}
	}
	return false
}
