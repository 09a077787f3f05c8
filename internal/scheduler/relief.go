package scheduler

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/proa-dev/proa/internal/client"
)

// alternatives that are compared where claims have some: devices are looked for on
// so many nodes, the best by everything else first.
const alternatives = 100

// filterDevices keeps those nodes, of those given, that a pod can have its devices
// on, until there are enough.
func (w *world) filterDevices(ctx context.Context, p *pod, t *attempt, nodes []*node, enough int) (left []*node, err error) {
	if p.need == nil {
		return nodes, nil
	}
	for _, n := range nodes {
		v, err := w.fitsDevices(ctx, p, n)
		switch {
		case err != nil:
			return nil, err
		case v != nil:
			t.refused[n.slot] = v
			continue
		}
		if left = append(left, n); len(left) >= enough {
			break
		}
	}
	return left, nil
}

// explainDevices says why a pod cannot have its devices on a node.
func (w *world) explainDevices(ctx context.Context, p *pod, n *node) *verdict {
	if p.need.rejected != nil {
		return p.need.rejected
	}
	if p.need.on[n.slot] != nil {
		return nil
	}
	v, err := w.fitsDevices(ctx, p, n)
	if err != nil {
		return noFinal(dynamicResources, err.Error())
	}
	return v
}

// result of a decision for a node, with what is to be done there.
func (p *pod) result(n *node, score int64) result {
	r := result{node: n, score: score}
	if p.need != nil {
		r.devices = p.need.on[n.slot]
	}
	return r
}

// grade of a node, 0 to 100, by how early among its alternatives each request was
// satisfied there.
func (n *need) grade(slot int32) int64 {
	var most int64
	for _, plan := range n.on {
		most = max(most, plan.score)
	}
	if most == 0 || n.on[slot] == nil {
		return 0
	}
	return 100 * n.on[slot].score / most
}

// relief is what may help a pod that its claims keep off every node.
type relief struct {
	said   string                    // in upstream's words
	claim  *resourcev1.ResourceClaim // to be deallocated, nil = none …
	remove bool                      // … or deleted
}

// relief of a pod: a claim that nobody else uses and that is where the pod cannot go
// is deallocated; one that was made for its extended resources is made anew. need is
// nil for a pod without claims.
func (n *need) relief(p *corev1.Pod) relief {
	if n == nil || n.rejected != nil || len(n.claims) == 0 {
		return relief{said: "no new claims to deallocate"}
	}
	for i, c := range n.claims {
		used := slices.ContainsFunc(c.Status.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool { return r.UID != p.UID })
		if n.elsewhere[i] && i != n.extended && !used {
			return relief{said: "deallocation of ResourceClaim completed", claim: c}
		}
	}
	if n.extended >= 0 && n.claims[n.extended].Name != "" {
		return relief{said: "deletion of ResourceClaim completed", claim: n.claims[n.extended], remove: true}
	}
	return relief{said: "still not schedulable"}
}

// relieve a pod. That the claim is free is an event that wakes it; if it could not be
// freed, the pod is looked at again.
func (s *Scheduler) relieve(ctx context.Context, p *pod, r relief) {
	var err error
	if r.remove {
		err = s.removeClaim(ctx, r.claim)
	} else {
		out := r.claim.DeepCopy()
		out.Status = resourcev1.ResourceClaimStatus{}
		_, err = s.deviceClaims().UpdateStatus(ctx, out)
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		s.log.Warn("a claim could not be freed", "claim", r.claim.Name, "for", p.key, "err", err)
	}
	s.inbox.put(func() {
		if w := s.queue.waiting[p.key]; w != nil && w.pod == p {
			s.queue.rouse(w, time.Now())
		}
	})
}

// held says whether a pod has to wait for claims that are not there. It is told of
// those that somebody has to make; what is made of templates is on its way.
func (s *Scheduler) held(p *pod, now time.Time) bool {
	if !p.class.devices || !p.options.filters.has(dynamicResources) {
		return false
	}
	_, made, err := s.world.devices.claimsOf(p.obj)
	if err == nil {
		return false
	}
	s.queue.hold(p, now)
	if made {
		s.tellPending(p.obj, corev1.PodReasonUnschedulable, err.Error(), new(""))
	}
	return true
}

// names a device class: a claim of the pod that is not allocated asks for it.
func (d *devices) names(p *corev1.Pod, class string) bool {
	claims, _, err := d.claimsOf(p)
	return err == nil && slices.ContainsFunc(claims, func(c *resourcev1.ResourceClaim) bool {
		return c.Status.Allocation == nil && slices.ContainsFunc(c.Spec.Devices.Requests, func(r resourcev1.DeviceRequest) bool {
			return r.Exactly != nil && r.Exactly.DeviceClassName == class ||
				slices.ContainsFunc(r.FirstAvailable, func(s resourcev1.DeviceSubRequest) bool { return s.DeviceClassName == class })
		})
	})
}

// watchDevices keeps what is known of devices up to date.
func (s *Scheduler) watchDevices(inf *client.Informers) {
	s.devicesIn = client.Shared[*resourcev1.ResourceClaim](inf, client.Scope{})
	heed(s, s.devicesIn, s.claimChanged)
	heed(s, client.Shared[*resourcev1.ResourceSlice](inf, client.Scope{}), s.sliceChanged)
	heed(s, client.Shared[*resourcev1.DeviceClass](inf, client.Scope{}), s.classChanged)
}

func (s *Scheduler) claimChanged(old, now *resourcev1.ResourceClaim) {
	s.world.devices.setClaim(old, now)
	s.stirred()
	e := happening{what: deviceClaimChanged}
	switch {
	case now != nil && (old == nil || old.UID != now.UID || !equality.Semantic.DeepEqual(old.Status, now.Status)):
		e.claim, e.owner = client.Key(now.Namespace, now.Name), specialOwner(now) // whose status may not name it yet
	case now == nil && specialOwner(old) != "":
		e.owner = specialOwner(old) // its pod may have another
	default:
		return
	}
	s.queue.wake(s.world, e, time.Now())
}

func (s *Scheduler) sliceChanged(old, now *resourcev1.ResourceSlice) {
	s.world.devices.setSlice(old, now)
	if now == nil || old != nil && equality.Semantic.DeepEqual(old.Spec, now.Spec) {
		return
	}
	e := happening{what: deviceSliceChanged}
	if name := now.Spec.NodeName; name != nil {
		if e.node = s.world.byName[*name]; e.node == nil {
			return // its coming will wake them
		}
	}
	s.queue.wake(s.world, e, time.Now())
}

func (s *Scheduler) classChanged(old, now *resourcev1.DeviceClass) {
	s.world.devices.setClass(old, now)
	if now == nil || old != nil && equality.Semantic.DeepEqual(old.Spec, now.Spec) {
		return
	}
	s.queue.wake(s.world, happening{what: deviceClassChanged, class: now}, time.Now())
}
