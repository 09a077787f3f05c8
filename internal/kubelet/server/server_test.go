package server

import (
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestContainerID(t *testing.T) {
	p := &v1.Pod{Status: v1.PodStatus{ContainerStatuses: []v1.ContainerStatus{
		{Name: "run", ContainerID: "containerd://now", State: v1.ContainerState{Running: &v1.ContainerStateRunning{}},
			LastTerminationState: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ContainerID: "containerd://before"}}},
		{Name: "done", State: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ContainerID: "containerd://end"}}},
		{Name: "crash", State: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
			LastTerminationState: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ContainerID: "containerd://crashed"}}},
		{Name: "pull", State: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}},
		{Name: "new", State: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "ContainerCreating"}}},
	}}}
	p.Name = "p"
	for _, c := range []struct {
		name     string
		previous bool
		id, err  string
		running  bool
	}{
		{"run", false, "now", "", true},
		{"run", true, "before", "", false},
		{"done", false, "end", "", false},
		{"done", true, "", `previous terminated container "done" in pod "p" not found`, false},
		{"crash", false, "crashed", "", false},
		{"pull", false, "", `container "pull" in pod "p" is waiting to start: trying and failing to pull image`, false},
		{"new", false, "", `container "new" in pod "p" is waiting to start: ContainerCreating`, false},
		{"none", false, "", `container "none" in pod "p" is not available`, false},
	} {
		id, running, err := containerID(p, c.name, c.previous)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if id != c.id || text != c.err || running != c.running {
			t.Errorf("%s, previous %v: %q %v %q", c.name, c.previous, id, running, text)
		}
	}
}

func TestSubresources(t *testing.T) {
	for path, want := range map[string]string{
		"/stats/summary": "stats", "/metrics/resource": "metrics", "/logs/x": "log", "/pods": "pods", "/exec/n/p/c": "proxy", "/containerLogs/n/p/c": "proxy", "/healthz": "healthz",
	} {
		if got := subresources(path); got[0] != want {
			t.Errorf("%s needs nodes/%s, not %s", path, want, got[0])
		}
	}
}
