// Package resourcequota keeps the usage in the status of ResourceQuotas: what is
// there of each kind that a quota limits.
package resourcequota

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

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/quota"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// Controller of ResourceQuotas. It watches a kind only once a quota limits it.
type Controller struct {
	queue   *loop.Queue
	in      *client.Informer[*corev1.ResourceQuota]
	classes *client.Informer[*resourcev1.DeviceClass]
	quotas  client.Client[*corev1.ResourceQuota]
	pending *quota.Pending
	log     *slog.Logger
	now     func() time.Time

	mu      sync.Mutex
	watched map[*api.Kind]bool
	want    chan *api.Kind
}

// New controller. pending are the writes that the server has charged to quotas.
func New(in *client.Informers, pending *quota.Pending, log *slog.Logger) *Controller {
	c := &Controller{
		queue:   loop.NewQueue("resourcequota", log),
		in:      client.Shared[*corev1.ResourceQuota](in, client.Scope{}),
		classes: client.Shared[*resourcev1.DeviceClass](in, client.Scope{}),
		quotas:  client.For[*corev1.ResourceQuota](in.Conn()),
		pending: pending,
		log:     log.With("controller", "resourcequota"),
		now:     time.Now,
		watched: map[*api.Kind]bool{},
		want:    make(chan *api.Kind, 64),
	}
	c.in.OnChange(func(_, now *corev1.ResourceQuota) {
		if now != nil {
			c.queue.AddObject(now)
		}
	})
	c.classes.OnChange(func(old, now *resourcev1.DeviceClass) {
		if quota.MapChanged(old, now) {
			for _, q := range c.in.List("", nil) {
				if quota.AsksExtended(q) {
					c.queue.AddObject(q)
				}
			}
		}
	})
	return c
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case k := <-c.want:
				wg.Go(func() { c.watch(ctx, k) })
			}
		}
	})
	return c.queue.Run(ctx, 4, c.reconcile, c.in.Synced(), c.classes.Synced())
}

// watch a kind: what comes, goes or changes what it counts for wakes the quotas
// of its namespace.
func (c *Controller) watch(ctx context.Context, k *api.Kind) {
	events, err := c.quotas.Conn().Watch(ctx, k, client.Scope{})
	if err != nil {
		if ctx.Err() == nil {
			c.log.Error("a kind is not watched: quotas of it are counted late", "kind", k.GroupVersionKind, "err", err)
		}
		return
	}
	defer events.Stop()
	for {
		batch, err := events.Next(ctx)
		if err != nil {
			return
		}
		for _, e := range batch {
			obj := e.New
			if obj == nil {
				obj = e.Old
			}
			quotas := c.in.List(obj.GetNamespace(), nil)
			if len(quotas) == 0 {
				continue
			}
			if e.Old != nil && e.New != nil {
				now := c.now()
				if equality.Semantic.DeepEqual(quota.Usage(k, e.Old, nil, now), quota.Usage(k, e.New, nil, now)) && sameScopes(quotas, e.Old, e.New) && !tellsClaim(e.Old, e.New) {
					continue
				}
			}
			for _, q := range quotas {
				c.queue.AddObject(q)
			}
		}
	}
}

func sameScopes(quotas []*corev1.ResourceQuota, a, b api.Object) bool {
	return !slices.ContainsFunc(quotas, func(q *corev1.ResourceQuota) bool { return quota.Matches(q, a) != quota.Matches(q, b) })
}

// tellsClaim says whether a pod says something new of the claim for its extended
// resources, on which depends what that claim counts for.
func tellsClaim(old, now api.Object) bool {
	a, ok := old.(*corev1.Pod)
	b, _ := now.(*corev1.Pod)
	return ok && !equality.Semantic.DeepEqual(a.Status.ExtendedResourceClaimStatus, b.Status.ExtendedResourceClaimStatus)
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name := loop.Split(key)
	q, err := c.quotas.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil || q.DeletionTimestamp != nil {
		return 0, err
	}
	conn := c.quotas.Conn()
	used := corev1.ResourceList{}
	now := c.now()
	var again time.Duration
	d, err := c.devices(ctx, q)
	if err != nil {
		return 0, err
	}
	for _, k := range conn.Catalog().All() {
		if !limits(q, k, d) {
			continue
		}
		c.follow(ctx, k)
		pending := c.pending.Of(k, namespace) // charged before the quota was read, or the quota has changed since
		objs, _, err := conn.List(ctx, k, namespace, client.ListOptions{})
		if err != nil {
			return 0, err
		}
		if objs = quota.With(objs, pending); len(pending) > 0 {
			again = time.Second // they may have failed by then, of which nobody tells
		}
		for name, v := range quota.Used(q, k, objs, d, now) { // pods and claims may both count for one name
			v.Add(used[name])
			used[name] = v
		}
		for _, o := range objs { // a pod that outstays its grace ceases to count by time alone
			if p, ok := o.(*corev1.Pod); ok && p.DeletionTimestamp != nil && p.DeletionGracePeriodSeconds != nil {
				left := p.DeletionTimestamp.Add(time.Duration(*p.DeletionGracePeriodSeconds) * time.Second).Sub(now)
				if left > 0 && (again == 0 || left < again) {
					again = left
				}
			}
		}
	}
	st := corev1.ResourceQuotaStatus{Hard: q.Spec.Hard.DeepCopy(), Used: used}
	if equality.Semantic.DeepEqual(st, q.Status) {
		return again, nil
	}
	out := q.DeepCopy()
	out.Status = st
	_, err = c.quotas.UpdateStatus(ctx, out)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return again, err
}

func limits(q *corev1.ResourceQuota, k *api.Kind, d quota.Devices) bool {
	if k.Cluster || k.Virtual || !k.Does("list") {
		return false
	}
	for name := range q.Spec.Hard {
		if quota.Counts(k, name, d) {
			return true
		}
	}
	return false
}

// follow a kind from now on. The watch begins with what is there, which wakes the
// quotas again: nothing is missed between the list and the watch.
func (c *Controller) follow(ctx context.Context, k *api.Kind) {
	c.mu.Lock()
	known := c.watched[k]
	c.watched[k] = true
	c.mu.Unlock()
	if !known {
		select {
		case c.want <- k:
		case <-ctx.Done():
		}
	}
}
