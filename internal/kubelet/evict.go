package kubelet

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/kubelet/image"
	"github.com/proa-dev/proa/internal/kubelet/node"
	"github.com/proa-dev/proa/internal/kubelet/pod"
	"github.com/proa-dev/proa/internal/kubelet/stats"
)

// Thresholds of hard eviction, as upstream has them.
const (
	memoryAvailable = 100 << 20       // bytes
	diskPercent     = 10              // of the kubelet's file system; see image.FsInfo.Short
	imagePercent    = 15              // of the images' file system
	pressureLasts   = 5 * time.Minute // after it was last seen
)

// pressure the node is or has lately been under.
type pressure struct {
	mu           sync.Mutex
	memory, disk time.Time // last seen
}

func (p *pressure) now() node.Pressure {
	p.mu.Lock()
	defer p.mu.Unlock()
	return node.Pressure{Memory: time.Since(p.memory) < pressureLasts, Disk: time.Since(p.disk) < pressureLasts}
}

func (p *pressure) seen(memory, disk bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if memory {
		p.memory = time.Now()
	}
	if disk {
		p.disk = time.Now()
	}
}

// relieve looks for pressure on memory and disk, and evicts one pod if there is.
func (k *kubelet) relieve(ctx context.Context) {
	if free, err := node.Available(); err == nil && free < memoryAvailable {
		k.pressure.seen(true, false)
		k.evict(ctx, v1.ResourceMemory, fmt.Sprintf("The node was low on resource: memory. Threshold quantity: 100Mi, available: %dKi. ", free>>10))
		return
	}
	if _, low := k.shortOfDisk(ctx); !low {
		return
	}
	if err := k.images.Collect(ctx, true); err != nil {
		k.log.Warn("images not removed", "err", err)
	}
	if why, low := k.shortOfDisk(ctx); low {
		k.pressure.seen(false, true)
		k.evict(ctx, v1.ResourceEphemeralStorage, "The node was low on resource: ephemeral-storage. "+why+". ")
	}
}

func (k *kubelet) shortOfDisk(ctx context.Context) (why string, short bool) {
	if root, err := image.Stat(k.RootDir); err == nil {
		if why, short = root.Short(diskPercent); short {
			return why, true
		}
	}
	if images, err := k.images.FsInfo(ctx); err == nil {
		why, short = images.Short(imagePercent)
	}
	return why, short
}

// evict the pod that suffering least would be felt by: over its request before
// below it, low priority before high, the one furthest over its request first.
func (k *kubelet) evict(ctx context.Context, of v1.ResourceName, why string) {
	type candidate struct {
		w        *worker
		p        *v1.Pod
		over     int64
		priority int32
	}
	usage := stats.Usage(ctx, k.rt)
	var list []candidate
	for _, w := range k.snapshot() {
		p := w.pod
		if p == nil || pod.Final(p.Status.Phase) || p.Spec.Priority != nil && *p.Spec.Priority >= 2_000_000_000 {
			continue
		}
		u := usage[p.UID]
		used, request := u.Memory, int64(0)
		for i := range p.Spec.Containers {
			r := p.Spec.Containers[i].Resources.Requests[of]
			request += r.Value()
		}
		if of == v1.ResourceEphemeralStorage {
			used = u.Disk
		}
		c := candidate{w: w.w, p: p, over: used - request}
		if p.Spec.Priority != nil {
			c.priority = *p.Spec.Priority
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		k.log.Warn("no pod can be evicted", "why", why)
		return
	}
	slices.SortFunc(list, func(a, b candidate) int {
		over := func(c candidate) int {
			if c.over > 0 {
				return 0
			}
			return 1
		}
		return cmp.Or(over(a)-over(b), cmp.Compare(a.priority, b.priority), cmp.Compare(b.over, a.over))
	})
	v := list[0]
	k.log.Warn("evicting a pod", "pod", pod.String(v.p), "why", why)
	k.expel(v.w, why, 0)
}

// expel a pod: it fails with reason Evicted and is stopped.
func (k *kubelet) expel(w *worker, why string, grace int64) {
	w.tell(func(w *worker) {
		if w.st.End != nil || w.api == nil {
			return
		}
		k.events.Warning(ref(w.api, ""), "Evicted", "%s", why)
		w.st.Now = time.Now()
		w.end(pod.End{
			Phase: v1.PodFailed, Reason: "Evicted", Message: why, Grace: &grace,
			Condition: &v1.PodCondition{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: "TerminationByKubelet", Message: why},
		})
	})
}

// limits of ephemeral storage: emptyDir size limits, and those of containers and pods.
func (k *kubelet) storageLimits(ctx context.Context) {
	var usage map[string]int64
	for _, s := range k.snapshot() {
		p := s.pod
		if p == nil || pod.Final(p.Status.Phase) || p.DeletionTimestamp != nil {
			continue
		}
		total, limit := int64(0), int64(0)
		for i := range p.Spec.Volumes {
			v := &p.Spec.Volumes[i]
			if v.EmptyDir == nil || v.EmptyDir.Medium == v1.StorageMediumMemory || v.EmptyDir.SizeLimit == nil && !limitsStorage(p) {
				continue
			}
			used := stats.Tree(k.volumes.EmptyDir(p.UID, v.Name))
			total += used
			if l := v.EmptyDir.SizeLimit; l != nil && l.Sign() > 0 && used > l.Value() {
				k.expel(s.w, fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, l.String()), 1)
			}
		}
		if !limitsStorage(p) {
			continue
		}
		if usage == nil {
			usage = stats.Writable(ctx, k.rt)
		}
		for i := range p.Spec.Containers {
			c := &p.Spec.Containers[i]
			l := c.Resources.Limits[v1.ResourceEphemeralStorage]
			limit += l.Value()
			used := usage[string(p.UID)+"/"+c.Name]
			total += used
			if l.Sign() > 0 && used > l.Value() {
				k.expel(s.w, fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", c.Name, l.String()), 1)
			}
		}
		if limit > 0 && total > limit {
			k.expel(s.w, fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %d. ", limit), 1)
		}
	}
}

func limitsStorage(p *v1.Pod) bool {
	return slices.ContainsFunc(p.Spec.Containers, func(c v1.Container) bool {
		q, ok := c.Resources.Limits[v1.ResourceEphemeralStorage]
		return ok && q.Sign() > 0
	})
}

// shown is a worker and its pod as others may read it.
type shown struct {
	w   *worker
	pod *v1.Pod
}

func (k *kubelet) snapshot() []shown {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := make([]shown, 0, len(k.workers))
	for _, w := range k.workers {
		list = append(list, shown{w, w.latest.Load()})
	}
	return list
}
