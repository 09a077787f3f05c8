package kubelet

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/kubelet/pod"
	"github.com/proa-dev/proa/internal/kubelet/probe"
	"github.com/proa-dev/proa/internal/kubelet/runtime"
	"github.com/proa-dev/proa/internal/kubelet/volume"
)

// worker runs one pod. Its fields belong to its loop; everybody else changes
// them through tell.
type worker struct {
	k       *kubelet
	ref     runtime.Ref
	log     *slog.Logger
	running bool                   // guarded by kubelet.mu
	waits   atomic.Bool            // a resize waits for room
	latest  atomic.Pointer[v1.Pod] // api with the status last computed, for others to read

	mu   sync.Mutex
	mail []func(*worker)
	wake chan struct{}

	api      *v1.Pod       // as the API server last showed it
	wrote    *v1.PodStatus // as last computed
	gone     bool          // from the API
	dirty    bool          // the runtime has something new
	saving   bool          // a status write is under way
	retry    time.Time     // of a status write that failed
	st       pod.State
	vols     volume.Result
	stale    bool // volumes have to be brought up to date
	probes   *probe.Pod
	cancel   map[string]context.CancelFunc // of busy operations
	held     map[string]string             // reasons told in events
	fails    int                           // of volumes in a row
	quit     bool
	static   bool          // from a manifest: the API has a mirror at most
	mirrored *v1.PodStatus // as the mirror has it
	grant    granted
}

func (k *kubelet) newWorker(ref runtime.Ref) *worker {
	w := &worker{
		k: k, ref: ref, log: k.log.With("pod", ref.Namespace+"/"+ref.Name, "uid", string(ref.UID)),
		wake: make(chan struct{}, 1), cancel: map[string]context.CancelFunc{}, held: map[string]string{},
	}
	w.st = pod.State{
		Have: &runtime.Pod{Ref: ref, Runtime: k.rt.Name()}, HostIPs: k.IPs, RRO: k.features.RRO,
		Busy: map[string]pod.Busy{}, Waiting: map[string]pod.Waiting{}, Back: map[string]pod.Back{}, Anew: map[string]pod.Anew{},
	}
	w.probes = k.probes.NewPod(func() { w.tell(func(*worker) {}) })
	return w
}

// begin the worker's loop, once. The kubelet is locked.
func (w *worker) begin() {
	if w.running {
		return
	}
	w.running = true
	w.k.group.Add(1)
	go func() {
		defer w.k.group.Done()
		w.loop(w.k.ctx)
	}()
}

// tell the loop something. It never blocks.
func (w *worker) tell(f func(*worker)) {
	w.mu.Lock()
	w.mail = append(w.mail, f)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *worker) loop(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	defer w.probes.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
		w.mu.Lock()
		mail := w.mail
		w.mail = nil
		w.mu.Unlock()
		for _, f := range mail {
			f(w)
		}
		next := w.step(ctx)
		if w.quit {
			return
		}
		if next.IsZero() {
			next = time.Now().Add(time.Hour)
		}
		timer.Reset(max(time.Until(next), time.Millisecond))
	}
}

// update takes in a newer state of the API object.
func (w *worker) update(p *v1.Pod) {
	if w.api != nil && !newer(p, w.api) {
		return
	}
	fresh := w.api == nil || p.Generation != w.api.Generation || !maps.Equal(p.Annotations, w.api.Annotations) || !maps.Equal(p.Labels, w.api.Labels)
	w.api = p
	if w.st.End == nil {
		w.gone = false
	}
	w.ref = runtime.Ref{Namespace: p.Namespace, Name: p.Name, UID: p.UID}
	w.log = w.k.log.With("pod", p.Namespace+"/"+p.Name, "uid", string(p.UID))
	if fresh {
		if !w.st.Clean {
			w.k.sources.Hold(p)
		}
		w.refresh()
	}
}

// refresh what depends on the pod's metadata or on objects it refers to.
func (w *worker) refresh() {
	w.stale = true
	w.st.Remount = time.Time{}
	for name, f := range w.st.Waiting {
		if f.Config {
			f.Until = time.Time{}
			w.st.Waiting[name] = f
		}
	}
}

// step looks at everything and acts once. It returns when to look again.
func (w *worker) step(ctx context.Context) time.Time {
	w.st.Now = time.Now()
	if !w.look(ctx) {
		return w.st.Now.Add(time.Second)
	}
	if w.st.Pod == nil {
		return time.Time{}
	}
	wake := w.ending(ctx)
	if w.st.End == nil {
		w.resize()
	}
	w.probes.Sync(ctx, w.st.Pod, w.st.Have, &w.st.Old)
	if w.st.End != nil {
		w.probes.Ending()
	}
	w.st.Probes = w.probes.State()
	plan := pod.Decide(&w.st)
	if plan.Ended && w.st.End == nil {
		w.end(pod.End{})
		plan = pod.Decide(&w.st)
	}
	w.tellHeld(plan.Waiting)
	status := pod.Status(&w.st, plan.Waiting)
	known := w.k.dra.Status(w.st.Pod, &status, w.st.Now)
	untold := w.st.Untold()
	written := untold.IsZero() && w.save(ctx, &status)
	for _, op := range plan.Ops {
		if op.Kind == pod.Finish && (!written || w.gone) {
			continue
		}
		w.do(ctx, op)
	}
	if w.gone && w.st.Clean && len(w.st.Busy) == 0 {
		w.purge(ctx)
		return w.retry
	}
	if w.stale && w.st.Volumes && w.st.End == nil {
		w.do(ctx, pod.Op{Kind: pod.Volumes})
	}
	for _, at := range []time.Time{plan.Wake, w.retry, w.renewal(), untold, known} {
		if !at.IsZero() && (wake.IsZero() || at.Before(wake)) {
			wake = at
		}
	}
	return wake
}

func (w *worker) renewal() time.Time {
	if !w.vols.Renew.IsZero() && w.st.End == nil {
		if w.st.Now.After(w.vols.Renew) {
			w.stale = true
			w.vols.Renew = time.Time{}
			return w.st.Now // for the step that sees to it
		}
		return w.vols.Renew
	}
	return time.Time{}
}

// look at the runtime if there is something new, and put together what is wanted.
func (w *worker) look(ctx context.Context) bool {
	if w.dirty {
		have, err := w.k.observer.Pod(ctx, w.ref.UID)
		if err != nil {
			if ctx.Err() == nil {
				w.log.Warn("cannot ask the container runtime", "err", err)
			}
			return false
		}
		w.dirty, w.st.Have = false, have
	}
	if w.api == nil {
		if !w.gone {
			return true
		}
		w.api = w.remnant()
	}
	w.st.Pod = w.grant.apply(w.api)
	w.st.Old = w.api.Status
	if w.wrote != nil {
		w.st.Old = overlay(&w.api.Status, w.wrote)
	}
	return true
}

// remnant stands for a pod of which only the runtime or the disk knows.
func (w *worker) remnant() *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.st.Have.Namespace, Name: w.st.Have.Name, UID: w.ref.UID}}
	seen := map[string]bool{}
	for i := range w.st.Have.Containers {
		if n := w.st.Have.Containers[i].Name; !seen[n] {
			seen[n] = true
			p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: n})
		}
	}
	return p
}

// ending notices that the pod is to stop. It returns when it will have to.
func (w *worker) ending(ctx context.Context) (wake time.Time) {
	p := w.api
	if w.st.End == nil && pod.Final(p.Status.Phase) {
		w.end(pod.End{})
	}
	switch {
	case p.DeletionTimestamp != nil:
		grace := int64(0)
		if p.DeletionGracePeriodSeconds != nil {
			grace = *p.DeletionGracePeriodSeconds
		}
		if w.st.End == nil {
			w.end(pod.End{Deleted: true, Grace: &grace})
		}
		w.st.End.Deleted = true
		if w.st.End.Grace == nil || grace < *w.st.End.Grace {
			w.st.End.Grace = &grace
		}
	case w.gone && w.st.End == nil:
		w.end(pod.End{})
	}
	if w.st.End != nil {
		return time.Time{}
	}
	if w.wrote == nil && len(w.st.Have.Sandboxes) > 0 {
		w.k.enter(w.st.Pod)
	} else if w.wrote == nil {
		if reason, message, ok := w.k.admit(w.st.Pod); !ok {
			w.k.events.Warning(ref(p, ""), reason, "%s", message)
			w.end(pod.End{Phase: v1.PodFailed, Reason: reason, Message: "Pod was rejected: " + message})
			return time.Time{}
		}
		if !w.devices(ctx) {
			return time.Time{}
		}
	}
	if d := p.Spec.ActiveDeadlineSeconds; d != nil && w.st.Old.StartTime != nil {
		at := w.st.Old.StartTime.Add(time.Duration(*d) * time.Second)
		if w.st.Now.Before(at) {
			return at
		}
		w.k.events.Normal(ref(p, ""), "DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
		w.end(pod.End{Phase: v1.PodFailed, Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline"})
	}
	return time.Time{}
}

// end the pod: what is being started stops being so.
func (w *worker) end(e pod.End) {
	e.Since = w.st.Now
	w.st.End = &e
	w.k.leave(w.ref.UID)
	for key, b := range w.st.Busy {
		if b.Kind == pod.Start || b.Kind == pod.Volumes {
			w.cancel[key]()
		}
	}
}

// tellHeld says in an event that a container has begun to be held back.
func (w *worker) tellHeld(now map[string]pod.Waiting) {
	for name, h := range now {
		if w.held[name] == h.Reason+h.Image {
			continue
		}
		w.held[name] = h.Reason + h.Image
		switch h.Reason {
		case "CrashLoopBackOff":
			w.k.events.Warning(w.about(name), "BackOff", "Back-off restarting failed container %s in pod %s", name, pod.String(w.api))
		case "ImagePullBackOff":
			w.k.events.Normal(w.about(name), "BackOff", "Back-off pulling image %q", h.Image)
			w.k.events.Warning(w.about(name), "Failed", "Error: ImagePullBackOff")
		}
	}
	for name := range w.held {
		if _, still := now[name]; !still {
			delete(w.held, name)
		}
	}
}
