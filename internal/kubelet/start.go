package kubelet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/kubelet/container"
	"github.com/proa-dev/proa/internal/kubelet/image"
	"github.com/proa-dev/proa/internal/kubelet/pod"
	"github.com/proa-dev/proa/internal/kubelet/probe"
	"github.com/proa-dev/proa/internal/kubelet/runtime"
	"github.com/proa-dev/proa/internal/kubelet/volume"
)

// launch is what the start of one container needs.
type launch struct {
	container.Input
	op      pod.Op
	about   v1.ObjectReference
	sandbox string
	attempt int // of the sandbox
}

func (w *worker) input(op pod.Op) launch {
	sb := w.st.Have.Ready()
	l := launch{
		Input: container.Input{
			Node: &w.k.node, Pod: w.st.Pod, Container: op.Container, Objects: w.k.sources,
			Volumes: maps.Clone(w.vols.Volumes), PodDir: w.k.volumes.PodDir(w.ref.UID),
			HostIPs: w.k.IPs, PodIPs: sb.IPs, Attempt: op.Attempt,
		},
		op: op, about: w.about(op.Name), sandbox: sb.ID, attempt: int(sb.Attempt),
	}
	if l.Pod.Spec.HostNetwork {
		l.PodIPs = w.k.IPs
	}
	if op.Ephemeral != nil && op.Ephemeral.TargetContainerName != "" {
		if t := w.st.Have.Latest(op.Ephemeral.TargetContainerName); t != nil {
			l.Target = t.ID
		}
	}
	return l
}

// start a container: image, configuration, create, start, hook.
func (k *kubelet) start(ctx context.Context, l launch) func(*worker) {
	w, started := k.launch(ctx, &l)
	if ctx.Err() != nil && !started {
		w = nil // it was called off
	}
	return func(wk *worker) {
		wk.dirty = true
		if w == nil {
			delete(wk.st.Waiting, l.op.Name)
			return
		}
		wk.st.Waiting[l.op.Name] = *w
	}
}

// launch a container. The Waiting says why it does not run, nil = it does.
func (k *kubelet) launch(ctx context.Context, l *launch) (w *pod.Waiting, started bool) {
	fail := func(reason string, err error, retry time.Duration) (*pod.Waiting, bool) {
		if ctx.Err() == nil {
			k.events.Warning(l.about, "Failed", "Error: %v", runtime.Message(err))
		}
		return &pod.Waiting{Reason: reason, Message: runtime.Message(err), Until: time.Now().Add(retry), Config: true}, started
	}
	ids, err := k.userns(l.Pod)
	if err != nil {
		return fail("CreateContainerConfigError", err, 10*time.Second)
	}
	l.IDs = ids
	sandbox, err := container.Sandbox(k.nodeInfo(), l.Pod, l.attempt, k.cgroups.Parent(l.Pod), ids)
	if err != nil {
		return fail("CreateContainerConfigError", err, 10*time.Second)
	}
	if err := k.pull(ctx, l, sandbox); err != nil {
		var e *image.Error
		if errors.As(err, &e) {
			if e.Reason == "ErrImageNeverPull" || e.Reason == "InvalidImageName" {
				k.events.Warning(l.about, "Failed", "Error: %v", e.Reason)
			}
			return &e.Waiting, false
		}
		return fail("ErrImagePull", err, 10*time.Second)
	}
	if l.op.Attempt == 0 && l.op.Ephemeral == nil {
		l.Attempt = nextAttempt(filepath.Join(l.PodLogs(l.Pod), l.Container.Name))
	}
	if err := k.sources.Ready(ctx); err != nil {
		return fail("CreateContainerConfigError", err, time.Second)
	}
	cfg, err := container.Config(&l.Input)
	if err != nil {
		return fail("CreateContainerConfigError", err, 10*time.Second)
	}
	if cfg.CDIDevices, err = k.dra.Devices(l.Pod, l.Container); err != nil {
		return fail("CreateContainerConfigError", err, 10*time.Second)
	}
	if err := k.devices.Apply(ctx, cfg, l.Pod, l.Container); err != nil {
		return fail("CreateContainerConfigError", err, 10*time.Second)
	}
	created, err := k.rt.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: l.sandbox, Config: cfg, SandboxConfig: sandbox})
	if err != nil {
		return fail("CreateContainerError", err, 10*time.Second)
	}
	k.events.Normal(l.about, "Created", "Container created")
	if _, err := k.rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		w, started := fail("RunContainerError", err, 0)
		return w, started
	}
	k.events.Normal(l.about, "Started", "Container started")
	k.link(l, cfg, created.ContainerId)
	started = true
	hook := l.Container.Lifecycle
	if hook == nil || hook.PostStart == nil {
		return nil, true
	}
	k.tell(l.Pod.UID, func(w *worker) { w.dirty = true })
	t := probe.Target{Pod: l.Pod, Container: l.Container, ID: created.ContainerId}
	if len(l.PodIPs) > 0 {
		t.IP = l.PodIPs[0]
	}
	if err := k.probes.Hook(ctx, hook.PostStart, t); err != nil {
		if ctx.Err() == nil {
			k.log.Warn("postStart hook failed", "pod", pod.String(l.Pod), "container", l.Container.Name, "err", err)
			k.events.Warning(l.about, "FailedPostStartHook", "PostStartHook failed")
			grace := int64(30)
			if g := l.Pod.Spec.TerminationGracePeriodSeconds; g != nil {
				grace = *g
			}
			_ = k.kill(ctx, l.Pod, pod.Op{Name: l.Container.Name, ID: created.ContainerId, Grace: grace, Why: "FailedPostStartHook"}, t.IP)
		}
		return &pod.Waiting{Reason: "PostStartHookError", Message: err.Error()}, true
	}
	return nil, true
}

func (k *kubelet) nodeInfo() *container.Node { return &k.node }

// pull the container's image and those of the image volumes it mounts.
func (k *kubelet) pull(ctx context.Context, l *launch, sandbox *cri.PodSandboxConfig) error {
	handler, err := k.handler(ctx, l.Pod)
	if err != nil {
		return err
	}
	r := image.Request{Pod: l.Pod, About: l.about, Image: l.Container.Image, Policy: l.Container.ImagePullPolicy, Sandbox: sandbox, Handler: handler}
	for _, s := range l.Pod.Spec.ImagePullSecrets {
		if secret, err := k.sources.Secret(l.Pod.Namespace, s.Name); err == nil {
			r.Secrets = append(r.Secrets, secret)
		} else {
			k.events.Warning(ref(l.Pod, ""), "FailedToRetrieveImagePullSecret", "Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", s.Name)
		}
	}
	for _, m := range l.Container.VolumeMounts {
		v, ok := l.Volumes[m.Name]
		if !ok || v.Image == "" {
			continue
		}
		vr := r
		vr.Image, vr.Policy = v.Image, v.Policy
		ref, _, err := k.images.Ensure(ctx, vr)
		if err != nil {
			return err
		}
		l.Volumes[m.Name] = volume.Mounted{Image: ref, ReadOnly: true}
	}
	l.ImageRef, l.Image, err = k.images.Ensure(ctx, r)
	return err
}

// nextAttempt of a container that the runtime knows nothing of: after that of
// its last log, in case the runtime has lost its state.
func nextAttempt(logs string) int {
	entries, _ := os.ReadDir(logs)
	next := 0
	for _, e := range entries {
		base, _, _ := strings.Cut(e.Name(), ".")
		if n, err := strconv.Atoi(base); err == nil {
			next = max(next, n+1)
		}
	}
	return next
}

// kill a container: preStop hook, stop signal, and after the grace period the end.
func (k *kubelet) kill(ctx context.Context, p *v1.Pod, op pod.Op, ip string) error {
	why := op.Why
	if why == "" {
		why = "Stopping container " + op.Name
	}
	if op.Reason != hurry {
		k.events.Normal(ref(p, event.Field(p, op.Name)), "Killing", "%s", why)
	}
	grace := op.Grace
	c := pod.Find(p, op.Name)
	if op.Reason != hurry && c != nil && c.Lifecycle != nil && c.Lifecycle.PreStop != nil && grace > 0 {
		began := time.Now()
		hctx, cancel := context.WithTimeout(ctx, time.Duration(grace)*time.Second)
		err := k.probes.Hook(hctx, c.Lifecycle.PreStop, probe.Target{Pod: p, Container: c, ID: op.ID, IP: ip})
		cancel()
		if err != nil && ctx.Err() == nil {
			k.log.Warn("preStop hook failed", "pod", pod.String(p), "container", op.Name, "err", err)
			k.events.Warning(ref(p, event.Field(p, op.Name)), "FailedPreStopHook", "PreStopHook failed")
		}
		grace -= int64(time.Since(began) / time.Second)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	_, err := k.rt.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: op.ID, Timeout: max(grace, 2)})
	if runtime.NotFound(err) {
		return nil
	}
	return err
}

// link the log where collectors look for it: /var/log/containers/POD_NS_CONTAINER-ID.log.
func (k *kubelet) link(l *launch, cfg *cri.ContainerConfig, id string) {
	dir := filepath.Join(filepath.Dir(k.LogsDir), "containers")
	if os.MkdirAll(dir, 0o755) == nil {
		_ = os.Symlink(filepath.Join(l.PodLogs(l.Pod), cfg.LogPath), filepath.Join(dir, fmt.Sprintf("%s_%s_%s-%s.log", l.Pod.Name, l.Pod.Namespace, l.Container.Name, id)))
	}
}
