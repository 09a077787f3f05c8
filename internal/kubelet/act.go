package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/kubelet/container"
	"github.com/proa-dev/proa/internal/kubelet/dra"
	"github.com/proa-dev/proa/internal/kubelet/pod"
	"github.com/proa-dev/proa/internal/kubelet/runtime"
	"github.com/proa-dev/proa/internal/kubelet/volume"
)

func ref(p *v1.Pod, field string) v1.ObjectReference { return event.PodRef(p, field) }

func (w *worker) about(container string) v1.ObjectReference {
	return ref(w.api, event.Field(w.api, container))
}

// hurry marks a kill that takes over from one with a longer grace period: the
// preStop hook has had its chance.
const hurry = "hurry"

// do begins an operation. It goes on beside the loop and tells it how it ended;
// by then its context has ended too.
func (w *worker) do(ctx context.Context, op pod.Op) {
	key := op.Key()
	if old, busy := w.st.Busy[key]; busy {
		if op.Kind != pod.Kill || old.Kind != pod.Kill {
			return
		}
		w.cancel[key]() // stop with less patience
		op.Reason = hurry
	}
	ctx, cancel := context.WithCancel(ctx)
	b := pod.Busy{Kind: op.Kind}
	w.cancel[key] = cancel
	run := w.operation(op)
	switch op.Kind {
	case pod.Kill:
		b.Until = time.Now().Add(time.Duration(op.Grace) * time.Second)
		if op.Anew && w.st.Anew[op.Name].ID != op.ID {
			w.st.Anew[op.Name] = pod.Anew{ID: op.ID, Since: w.st.Now}
		}
	case pod.Start:
		b.Hook = op.Container.Lifecycle != nil && op.Container.Lifecycle.PostStart != nil
		if op.Back != nil {
			w.st.Back[op.Name] = *op.Back
		}
	case pod.Volumes:
		w.stale = false
	}
	w.st.Busy[key] = b
	go func() {
		after := run(ctx)
		again := ctx.Err() != nil
		cancel()
		w.tell(func(w *worker) {
			if now := w.st.Busy[key]; now == b || !again {
				delete(w.st.Busy, key)
				delete(w.cancel, key)
			}
			if after != nil {
				after(w)
			}
		})
	}()
}

// operation captures what an operation needs from the loop and returns what to
// run; that returns what to tell the loop.
func (w *worker) operation(op pod.Op) func(context.Context) func(*worker) {
	k, p, have := w.k, w.st.Pod, w.st.Have
	looked := func(w *worker) { w.dirty = true }
	switch op.Kind {
	case pod.Sandbox:
		return func(ctx context.Context) func(*worker) {
			err := k.sandbox(ctx, p, op.Attempt)
			off := ctx.Err() != nil
			return func(w *worker) {
				w.dirty = true
				if off {
					return
				}
				if err != nil {
					w.log.Warn("no sandbox", "err", err)
					if e := (*dra.Error)(nil); errors.As(err, &e) {
						k.events.Warning(ref(p, ""), "FailedPrepareDynamicResources", "Failed to prepare dynamic resources: %v", err)
					} else {
						k.events.Warning(ref(p, ""), "FailedCreatePodSandBox", "Failed to create pod sandbox: %v", err)
					}
					w.st.Retry = time.Now().Add(5 * time.Second)
				} else if op.Attempt > 0 {
					k.events.Normal(ref(p, ""), "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
				}
			}
		}
	case pod.Volumes:
		return func(ctx context.Context) func(*worker) {
			r, err := k.volumes.Mount(ctx, p)
			return func(w *worker) { w.mounted(r, err) }
		}
	case pod.Start:
		in := w.input(op)
		return func(ctx context.Context) func(*worker) { return k.start(ctx, in) }
	case pod.Kill:
		ip := k.podIP(p, have)
		return func(ctx context.Context) func(*worker) {
			if err := k.kill(ctx, p, op, ip); err != nil && ctx.Err() == nil {
				k.log.Warn("container not stopped", "pod", pod.String(p), "container", op.Name, "err", err)
			}
			return looked
		}
	case pod.Stop:
		return func(ctx context.Context) func(*worker) {
			for _, s := range have.Sandboxes {
				if _, err := k.rt.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: s.ID}); err != nil && !runtime.NotFound(err) {
					k.events.Warning(ref(p, ""), "FailedKillPod", "error killing pod: failed to \"KillPodSandbox\" for %q with KillPodSandboxError: %q", p.UID, err)
					pause(ctx, time.Second)
				}
			}
			return looked
		}
	case pod.Remove:
		return func(ctx context.Context) func(*worker) {
			_, _ = k.rt.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: op.ID})
			k.observer.Forget(op.ID)
			return looked
		}
	case pod.Discard:
		return func(ctx context.Context) func(*worker) {
			if _, err := k.rt.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: op.ID}); err != nil {
				pause(ctx, 10*time.Second)
			}
			return looked
		}
	case pod.Resize:
		return func(ctx context.Context) func(*worker) { return k.update(ctx, p, op) }
	case pod.Tidy:
		return func(ctx context.Context) func(*worker) {
			k.devices.Free(p.UID)
			err := errors.Join(k.dra.Unprepare(ctx, p.UID), k.volumes.Unmount(ctx, p.UID), k.cgroups.Remove(p.UID))
			if err != nil {
				pause(ctx, time.Second)
			}
			return func(w *worker) {
				if err != nil {
					w.log.Warn("pod not tidied up", "err", err)
					return
				}
				w.st.Clean = true
				k.sources.Drop(p.UID)
			}
		}
	case pod.Finish:
		return func(ctx context.Context) func(*worker) {
			zero := int64(0)
			err := k.pods.Delete(ctx, p.Namespace, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && !k.replaced(ctx, p) {
				k.log.Warn("pod object not deleted", "pod", pod.String(p), "err", err)
				pause(ctx, time.Second)
				return nil
			}
			return func(w *worker) { w.gone = true }
		}
	}
	panic(fmt.Sprintf("kubelet: no such operation: %v", op))
}

// replaced says whether another pod has taken a pod's name, or none has it.
func (k *kubelet) replaced(ctx context.Context, p *v1.Pod) bool {
	now, err := k.pods.Get(ctx, p.Namespace, p.Name)
	return apierrors.IsNotFound(err) || err == nil && now.UID != p.UID
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (k *kubelet) podIP(p *v1.Pod, have *runtime.Pod) string {
	if p.Spec.HostNetwork {
		return k.IPs[0]
	}
	if sb := have.Ready(); sb != nil && len(sb.IPs) > 0 {
		return sb.IPs[0]
	}
	return p.Status.PodIP
}

// mounted takes in how putting volumes in place went.
func (w *worker) mounted(r volume.Result, err error) {
	if err == nil {
		w.vols, w.st.Volumes, w.fails = r, true, 0
		return
	}
	if w.st.End != nil {
		return
	}
	w.fails++
	w.st.Remount = time.Now().Add(min(500*time.Millisecond<<min(w.fails, 8), 2*time.Minute))
	list := []error{err}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		list = many.Unwrap()
	}
	for _, e := range list {
		w.k.events.Warning(ref(w.api, ""), "FailedMount", "%v", e)
	}
	if w.st.Volumes {
		w.vols.Renew = w.st.Remount // they are in place, only not up to date
	}
}

// handler of the pod's RuntimeClass, "" = the usual one.
func (k *kubelet) handler(ctx context.Context, p *v1.Pod) (string, error) {
	name := p.Spec.RuntimeClassName
	if name == nil || *name == "" {
		return "", nil
	}
	rc, err := client.For[*nodev1.RuntimeClass](k.Conn).Get(ctx, "", *name)
	if apierrors.IsNotFound(err) {
		return "", fmt.Errorf("RuntimeClass %q not found", *name)
	}
	if err != nil {
		return "", err
	}
	return rc.Handler, nil
}

// networkPatience is how long a sandbox waits for the runtime to have a pod network.
const networkPatience = 10 * time.Second

func (k *kubelet) sandbox(ctx context.Context, p *v1.Pod, attempt int) error {
	handler, err := k.handler(ctx, p)
	if err != nil {
		return fmt.Errorf("get runtime class handler: %w", err)
	}
	if err := k.cgroups.Create(p, k.PodPids); err != nil {
		return err
	}
	for _, dir := range []string{k.node.PodLogs(p), filepath.Join(k.volumes.PodDir(p.UID), "containers")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	ids, err := k.userns(p)
	if err != nil {
		return err
	}
	cfg, err := container.Sandbox(&k.node, p, attempt, k.cgroups.Parent(p), ids)
	if err != nil {
		return err
	}
	if err := k.dra.Prepare(ctx, p); err != nil {
		return err
	}
	if !p.Spec.HostNetwork {
		k.rt.AwaitNetwork(ctx, networkPatience)
	}
	select {
	case k.sandboxes <- struct{}{}:
		defer func() { <-k.sandboxes }()
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err = k.rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: cfg, RuntimeHandler: handler})
	return err
}

// purge the last traces of a pod that the API no longer has, and end the worker.
func (w *worker) purge(ctx context.Context) {
	k := w.k
	for i := range w.st.Have.Containers {
		id := w.st.Have.Containers[i].ID
		if _, err := k.rt.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: id}); err != nil && !runtime.NotFound(err) {
			w.again("remove container", err)
			return
		}
		k.observer.Forget(id)
	}
	for _, s := range w.st.Have.Sandboxes {
		if _, err := k.rt.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: s.ID}); err != nil && !runtime.NotFound(err) {
			w.again("remove sandbox", err)
			return
		}
	}
	if err := k.volumes.Remove(ctx, w.ref.UID); err != nil {
		w.again("remove folder", err)
		return
	}
	logs, _ := filepath.Glob(filepath.Join(k.LogsDir, "*_*_"+string(w.ref.UID)))
	for _, dir := range logs {
		_ = os.RemoveAll(dir)
	}
	if w.static {
		k.unmirror(ctx, w.api)
	}
	k.images.Forget(string(w.ref.UID))
	k.sources.Drop(w.ref.UID)
	k.mu.Lock()
	delete(k.workers, w.ref.UID)
	k.buried.Add(w.ref.UID)
	k.mu.Unlock()
	w.quit = true
	k.resized()
}

func (w *worker) again(what string, err error) {
	w.log.Warn("pod not cleaned up", "at", what, "err", err)
	w.dirty, w.retry = true, w.st.Now.Add(5*time.Second)
}
