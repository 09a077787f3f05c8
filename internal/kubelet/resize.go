package kubelet

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	resources "k8s.io/component-helpers/resource"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-dev/proa/internal/kubelet/container"
	"github.com/proa-dev/proa/internal/kubelet/pod"
	"github.com/proa-dev/proa/internal/kubelet/runtime"
)

// granted are the resources that the node has agreed to give to the containers of
// a pod. They follow the specification as far as the node has room (KEP-1287).
type granted map[string]v1.ResourceRequirements

// apply returns the pod with the resources granted in place of those wanted.
func (g granted) apply(p *v1.Pod) *v1.Pod {
	if g == nil || g.same(p) {
		return p
	}
	c := p.DeepCopy()
	each(c, func(ct *v1.Container) {
		if r, ok := g[ct.Name]; ok {
			ct.Resources.Requests, ct.Resources.Limits = r.Requests, r.Limits
		}
	})
	return c
}

func (g granted) same(p *v1.Pod) bool {
	same := true
	each(p, func(c *v1.Container) {
		r, ok := g[c.Name]
		same = same && (!ok || equality.Semantic.DeepEqual(r.Requests, c.Resources.Requests) && equality.Semantic.DeepEqual(r.Limits, c.Resources.Limits))
	})
	return same
}

func each(p *v1.Pod, f func(*v1.Container)) {
	for i := range p.Spec.InitContainers {
		f(&p.Spec.InitContainers[i])
	}
	for i := range p.Spec.Containers {
		f(&p.Spec.Containers[i])
	}
}

func grant(p *v1.Pod) granted {
	g := granted{}
	each(p, func(c *v1.Container) { g[c.Name] = c.Resources })
	return g
}

// granted before the kubelet was started, as the status tells.
func grantedBefore(p *v1.Pod) granted {
	g := grant(p)
	for _, list := range [][]v1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for i := range list {
			st := &list[i]
			if st.AllocatedResources == nil || st.Resources == nil {
				continue
			}
			r := g[st.Name]
			if !equality.Semantic.DeepEqual(r.Requests, st.AllocatedResources) {
				r.Requests, r.Limits = st.AllocatedResources, st.Resources.Limits
				g[st.Name] = r
			}
		}
	}
	return g
}

// resize grants what is wanted if there is room, and notes which running
// containers do not have what they were granted.
func (w *worker) resize() {
	if w.grant == nil {
		if len(w.st.Have.Containers) == 0 {
			w.grant = grant(w.api)
		} else {
			w.grant = grantedBefore(w.api)
			w.k.enter(w.grant.apply(w.api))
		}
		w.st.Pod = w.grant.apply(w.api)
	}
	w.st.Resizing = nil
	w.waits.Store(false)
	if !w.grant.same(w.api) {
		if reason, message := w.k.room(w.api); reason != "" {
			w.waits.Store(true)
			w.st.Resizing = append(w.st.Resizing, v1.PodCondition{Type: v1.PodResizePending, Status: v1.ConditionTrue, Reason: reason, Message: message})
		} else {
			w.grant = grant(w.api)
			w.st.Pod = w.api
			w.k.enter(w.api)
			w.k.events.Normal(ref(w.api, ""), "ResizeStarted", "Pod resize started")
		}
	}
	update := map[string]bool{}
	each(w.st.Pod, func(c *v1.Container) {
		last := w.st.Have.Latest(c.Name)
		if last == nil || last.State != runtime.Running {
			return
		}
		if pod.Differs(c, last) {
			update[c.Name] = true
		}
	})
	if len(update) > 0 {
		w.st.Resizing = append(w.st.Resizing, v1.PodCondition{Type: v1.PodResizeInProgress, Status: v1.ConditionTrue})
	} else if len(w.st.Update) > 0 {
		w.k.events.Normal(ref(w.api, ""), "ResizeCompleted", "Pod resize completed")
		if err := w.k.cgroups.Create(w.st.Pod, w.k.PodPids); err != nil {
			w.log.Warn("control group of the pod", "err", err)
		}
	}
	w.st.Update = update
}

// room for the resources a pod wants: "" or why there is none, now (Deferred) or
// ever (Infeasible).
func (k *kubelet) room(p *v1.Pod) (reason, message string) {
	want := promise{requests: resources.PodRequests(p, resources.PodResourcesOptions{})}
	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
		q, have := want.requests[name], k.node.Allocatable[name]
		if q.Cmp(have) > 0 {
			a, b := q.Value(), have.Value()
			if name == v1.ResourceCPU {
				a, b = q.MilliValue(), have.MilliValue()
			}
			return v1.PodReasonInfeasible, fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", name, a, b)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, message, ok := k.ledger.fits(p, want, k.node.Allocatable, 1<<30); !ok {
		return v1.PodReasonDeferred, message
	}
	return "", ""
}

// resized tells the pods that wait for room that there may be some.
func (k *kubelet) resized() {
	for _, s := range k.snapshot() {
		if s.w.waits.Load() {
			s.w.tell(func(*worker) {})
		}
	}
}

// update a running container's resources: the pod's own limits are widened before
// and narrowed after.
func (k *kubelet) update(ctx context.Context, p *v1.Pod, op pod.Op) func(*worker) {
	if err := k.cgroups.Widen(p); err != nil {
		k.log.Warn("control group of the pod", "pod", pod.String(p), "err", err)
	}
	_, err := k.rt.UpdateContainerResources(ctx, &cri.UpdateContainerResourcesRequest{
		ContainerId: op.ID, Linux: container.Resources(&k.node, p, op.Container),
	})
	if err != nil && ctx.Err() == nil {
		k.events.Warning(ref(p, ""), "ResizeError", "Error resizing container %s: %v", op.Name, runtime.Message(err))
		pause(ctx, 5*time.Second)
	}
	return func(w *worker) { w.dirty = true }
}
