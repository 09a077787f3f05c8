// Package probe asks containers how they are: liveness, readiness and startup
// probes by HTTP, TCP, gRPC and commands, and the lifecycle hooks, which use the
// same means.
package probe

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/kubelet/pod"
	"github.com/proa-dev/proa/internal/kubelet/runtime"
)

// Manager of the probes of a node.
type Manager struct {
	rt     *runtime.Client
	events *event.Recorder
	log    *slog.Logger
	host   string // the node's IP, for pods on its network
}

// New manager on the node with an IP.
func New(rt *runtime.Client, events *event.Recorder, log *slog.Logger, host string) *Manager {
	return &Manager{rt, events, log, host}
}

// Pod runs the probes of one pod.
type Pod struct {
	m       *Manager
	changed func() // called when a result changes; must not block

	mu         sync.Mutex
	containers map[string]*container // by ID
	counts     map[Count]int64
}

// Count of results, for metrics.
type Count struct{ Container, Kind, Result string }

type container struct {
	cancel  context.CancelFunc
	spec    *v1.Container
	state   pod.Probe
	started chan struct{} // closed when the startup probe has succeeded
	probes  map[string]context.CancelFunc
}

// NewPod with no probes yet.
func (m *Manager) NewPod(changed func()) *Pod {
	return &Pod{m: m, changed: changed, containers: map[string]*container{}, counts: map[Count]int64{}}
}

// State of all running containers, by ID.
func (p *Pod) State() map[string]pod.Probe {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[string]pod.Probe, len(p.containers))
	for id, c := range p.containers {
		all[id] = c.state
	}
	return all
}

// Counts of results so far.
func (p *Pod) Counts() map[Count]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[Count]int64, len(p.counts))
	for k, v := range p.counts {
		all[k] = v
	}
	return all
}

// Sync runs probes for the containers that run, and for no others. A container
// that ran before the kubelet did starts from what its status says.
func (p *Pod) Sync(ctx context.Context, spec *v1.Pod, have *runtime.Pod, old *v1.PodStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	running := map[string]bool{}
	for i := range have.Containers {
		h := &have.Containers[i]
		if h.State != runtime.Running {
			continue
		}
		running[h.ID] = true
		c := pod.Find(spec, h.Name)
		if p.containers[h.ID] == nil && c != nil {
			p.containers[h.ID] = p.start(ctx, spec, c, h, have, statusOf(old, have.Runtime+"://"+h.ID))
		}
	}
	for id, c := range p.containers {
		if !running[id] {
			c.cancel()
			delete(p.containers, id)
		}
	}
}

func statusOf(old *v1.PodStatus, id string) *v1.ContainerStatus {
	for _, list := range [][]v1.ContainerStatus{old.ContainerStatuses, old.InitContainerStatuses} {
		for i := range list {
			if list[i].ContainerID == id {
				return &list[i]
			}
		}
	}
	return nil
}

func (p *Pod) start(ctx context.Context, spec *v1.Pod, c *v1.Container, h *runtime.Container, have *runtime.Pod, was *v1.ContainerStatus) *container {
	ctx, cancel := context.WithCancel(ctx)
	w := &container{cancel: cancel, spec: c, started: make(chan struct{}), probes: map[string]context.CancelFunc{}}
	w.state = pod.Probe{Started: c.StartupProbe == nil, Ready: c.ReadinessProbe == nil}
	if was != nil && was.Started != nil && *was.Started {
		w.state.Started = true
		w.state.Ready = w.state.Ready || was.Ready
	}
	if w.state.Started {
		close(w.started)
	}
	ip := ""
	if sb := have.Ready(); sb != nil && len(sb.IPs) > 0 {
		ip = sb.IPs[0]
	}
	if spec.Spec.HostNetwork {
		ip = p.m.host
	}
	t := Target{Pod: spec, Container: c, ID: h.ID, IP: ip}
	run := func(kind string, pr *v1.Probe) {
		if pr != nil {
			pctx, stop := context.WithCancel(ctx)
			w.probes[kind] = stop
			go p.loop(pctx, w, kind, pr, t, h.Started)
		}
	}
	if !w.state.Started {
		run("Startup", c.StartupProbe)
	}
	run("Readiness", c.ReadinessProbe)
	run("Liveness", c.LivenessProbe)
	return w
}

// Ending stops liveness and startup probes of a pod that is to stop; readiness
// is still of interest to those who send it requests.
func (p *Pod) Ending() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.containers {
		for _, kind := range []string{"Startup", "Liveness"} {
			if stop := c.probes[kind]; stop != nil {
				stop()
			}
		}
	}
}

// Stop all probes.
func (p *Pod) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.containers {
		c.cancel()
	}
}

// loop runs one probe until the container is gone or the probe has done its work.
func (p *Pod) loop(ctx context.Context, w *container, kind string, pr *v1.Probe, t Target, started time.Time) {
	if kind != "Startup" {
		select {
		case <-w.started:
		case <-ctx.Done():
			return
		}
	}
	period := time.Duration(max(pr.PeriodSeconds, 1)) * time.Second
	wait := time.NewTimer(time.Until(started.Add(time.Duration(pr.InitialDelaySeconds) * time.Second)))
	defer wait.Stop()
	last, run := "", int32(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		wait.Reset(period)
		result, msg := p.m.Run(ctx, pr, t)
		if ctx.Err() != nil {
			return
		}
		if result == last {
			run++
		} else {
			last, run = result, 1
		}
		p.count(t.Container.Name, kind, result)
		if result == Failure {
			p.m.events.Warning(event.PodRef(t.Pod, event.Field(t.Pod, t.Container.Name)), "Unhealthy", "%s probe failed: %s", kind, msg)
		} else if msg != "" && strings.HasPrefix(msg, warn) {
			p.m.events.Warning(event.PodRef(t.Pod, event.Field(t.Pod, t.Container.Name)), "ProbeWarning", "%s probe warning: %s", kind, strings.TrimPrefix(msg, warn))
		}
		if result == Failure && run < max(pr.FailureThreshold, 1) || result == Success && run < max(pr.SuccessThreshold, 1) {
			continue
		}
		if p.set(w, kind, pr, result == Success) {
			return
		}
	}
}

func (p *Pod) count(name, kind, result string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[Count{name, kind, result}]++
}

// set a result; done says that the probe need not run again for this container.
func (p *Pod) set(w *container, kind string, pr *v1.Probe, good bool) (done bool) {
	p.mu.Lock()
	old := w.state
	switch {
	case kind == "Readiness":
		w.state.Ready = good
	case !good:
		w.state.Failed, w.state.Grace = strings.ToLower(kind), pr.TerminationGracePeriodSeconds
		done = true
	case kind == "Startup":
		w.state.Started = true
		close(w.started)
		done = true
	}
	changed := old != w.state
	p.mu.Unlock()
	if changed {
		p.changed()
	}
	return done
}

// Target of a probe or hook.
type Target struct {
	Pod       *v1.Pod
	Container *v1.Container
	ID        string // of the running container
	IP        string // of the pod
}

func (t Target) String() string {
	return fmt.Sprintf("%s/%s", pod.String(t.Pod), t.Container.Name)
}
