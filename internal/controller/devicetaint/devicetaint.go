// Package devicetaint evicts pods from devices that drivers taint in their
// ResourceSlices with the effect NoExecute, after as long as the requests of their
// claims tolerate it (KEP-5055). DeviceTaintRules are off by default in v1.36 and
// not there.
package devicetaint

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/owned"
)

// reason of the events.
const reason = "DeviceTaintManagerEviction"

// Controller of the pods that must leave their devices.
type Controller struct {
	queue    *loop.Queue
	slicesIn *client.Informer[*resourcev1.ResourceSlice]
	claimsIn *client.Informer[*resourcev1.ResourceClaim]
	podsIn   *client.Informer[*corev1.Pod]
	pods     client.Client[*corev1.Pod]
	claims   client.Client[*resourcev1.ResourceClaim]
	record   *event.Recorder
	now      func() time.Time

	mu      sync.Mutex
	pools   map[pool]map[string]*resourcev1.ResourceSlice // by their names
	tainted map[pool]map[string][]resourcev1.DeviceTaint  // by their names, NoExecute alone
	waiting map[string]types.UID                          // pods that will be evicted
}

// pool of devices of a driver.
type pool struct{ driver, name string }

// New controller; conn is what it reads and writes by.
func New(in *client.Informers, conn client.Conn, log *slog.Logger) *Controller {
	c := &Controller{
		queue:    loop.NewQueue("devicetainteviction", log),
		slicesIn: client.Shared[*resourcev1.ResourceSlice](in, client.Scope{}),
		claimsIn: client.Shared[*resourcev1.ResourceClaim](in, client.Scope{}),
		podsIn:   client.Shared[*corev1.Pod](in, client.Scope{}),
		pods:     client.For[*corev1.Pod](conn),
		claims:   client.For[*resourcev1.ResourceClaim](conn),
		record:   event.New(conn, "device-taint-eviction-controller", "", log),
		now:      time.Now,
		pools:    map[pool]map[string]*resourcev1.ResourceSlice{},
		tainted:  map[pool]map[string][]resourcev1.DeviceTaint{},
		waiting:  map[string]types.UID{},
	}
	c.slicesIn.OnChange(c.sliceChanged)
	c.claimsIn.OnChange(func(old, now *resourcev1.ResourceClaim) {
		if old != nil && now != nil && equality.Semantic.DeepEqual(old.Status.Allocation, now.Status.Allocation) &&
			equality.Semantic.DeepEqual(old.Status.ReservedFor, now.Status.ReservedFor) {
			return
		}
		for _, claim := range []*resourcev1.ResourceClaim{old, now} {
			if claim != nil && uses(claim, c.isTainted) {
				c.wake(claim)
			}
		}
	})
	c.podsIn.OnChange(c.podChanged)
	return c
}

func (c *Controller) podChanged(old, now *corev1.Pod) {
	if now == nil {
		c.mu.Lock()
		delete(c.waiting, client.Key(old.Namespace, old.Name))
		c.mu.Unlock()
		return
	}
	if now.Spec.NodeName == "" || old != nil && old.Spec.NodeName == now.Spec.NodeName && slices.Equal(owned.ClaimNames(old), owned.ClaimNames(now)) {
		return
	}
	for _, name := range owned.ClaimNames(now) {
		if claim, ok := c.claimsIn.Get(now.Namespace, name); ok && uses(claim, c.isTainted) {
			c.queue.AddObject(now)
			return
		}
	}
}

// sliceChanged takes in what a slice says, and looks at the pods that have a device
// whose taints are others now.
func (c *Controller) sliceChanged(old, now *resourcev1.ResourceSlice) {
	changed := map[device]bool{}
	c.mu.Lock()
	if old != nil && (now == nil || poolOf(old) != poolOf(now)) {
		c.set(poolOf(old), old.Name, nil, changed)
	}
	if now != nil {
		c.set(poolOf(now), now.Name, now, changed)
	}
	c.mu.Unlock()
	if len(changed) == 0 {
		return
	}
	for _, claim := range c.claimsIn.List("", nil) { // taints change seldom
		if uses(claim, func(d device) bool { return changed[d] }) {
			c.wake(claim)
		}
	}
}

func poolOf(s *resourcev1.ResourceSlice) pool { return pool{s.Spec.Driver, s.Spec.Pool.Name} }

// set a slice of a pool, nil = it is gone, and note which devices have other taints
// than before. mu is held.
func (c *Controller) set(p pool, name string, s *resourcev1.ResourceSlice, changed map[device]bool) {
	all := c.pools[p]
	if all == nil {
		all = map[string]*resourcev1.ResourceSlice{}
		c.pools[p] = all
	}
	if all[name] = s; s == nil {
		delete(all, name)
	}
	if len(all) == 0 {
		delete(c.pools, p)
	}
	before, after := c.tainted[p], taintsOf(all, c.now())
	for name, taints := range after {
		if !equality.Semantic.DeepEqual(before[name], taints) {
			changed[device{p.driver, p.name, name}] = true
		}
	}
	for name := range before {
		if len(after[name]) == 0 {
			changed[device{p.driver, p.name, name}] = true
		}
	}
	if c.tainted[p] = after; len(after) == 0 {
		delete(c.tainted, p)
	}
}

// taints of a device that drive pods off.
func (c *Controller) taints(d device) []resourcev1.DeviceTaint {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tainted[pool{d.driver, d.pool}][d.name]
}

func (c *Controller) isTainted(d device) bool { return len(c.taints(d)) > 0 }

// uses says whether a claim has a device that is one of these.
func uses(claim *resourcev1.ResourceClaim, is func(device) bool) bool {
	if a := claim.Status.Allocation; a != nil {
		for i := range a.Devices.Results {
			if is(allocated(&a.Devices.Results[i])) {
				return true
			}
		}
	}
	return false
}

// wake the pods that a claim is reserved for.
func (c *Controller) wake(claim *resourcev1.ResourceClaim) {
	for _, r := range claim.Status.ReservedFor {
		if r.APIGroup == "" && r.Resource == "pods" {
			c.queue.Add(client.Key(claim.Namespace, r.Name))
		}
	}
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	go c.record.Run(ctx)
	return c.queue.Run(ctx, 4, c.evict, c.slicesIn.Synced(), c.claimsIn.Synced(), c.podsIn.Synced())
}

// evict a pod when the time is up that its claims tolerate their devices' taints for.
func (c *Controller) evict(ctx context.Context, key string) (time.Duration, error) {
	namespace, name := loop.Split(key)
	p, err := c.pods.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil || p.DeletionTimestamp != nil {
		return 0, err
	}
	claims := map[string]*resourcev1.ResourceClaim{}
	for _, of := range owned.ClaimNames(p) {
		claim, err := c.claims.Get(ctx, namespace, of)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return 0, err
		}
		claims[of] = claim
	}
	at, ok := leave(p, func(of string) *resourcev1.ResourceClaim { return claims[of] }, c.taints)
	now, about := c.now(), event.Ref(c.pods.Kind(), p)
	if !ok {
		if c.wait(key, "") == p.UID {
			c.record.Normal(about, reason, "Cancelling deletion")
		}
		return 0, nil
	}
	c.wait(key, p.UID)
	if d := at.Sub(now); d > 0 {
		return d, nil
	}
	c.record.Normal(about, reason, "Marking for deletion")
	return 0, owned.Disrupt(ctx, c.pods, p, "DeletionByDeviceTaintManager", "Device Taint manager: deleting due to NoExecute taint", now)
}

// wait for a pod's time, "" = no more; what was before is returned.
func (c *Controller) wait(key string, uid types.UID) (before types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before = c.waiting[key]
	if c.waiting[key] = uid; uid == "" {
		delete(c.waiting, key)
	}
	return before
}
