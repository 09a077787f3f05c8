// Package podgc removes pods that nobody else will: those bound to nodes that are
// gone, those that were deleted before they got a node, those on nodes that are
// marked out of service, and the oldest of the ended ones when there are too many.
package podgc

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/owned"
)

const (
	// mostEnded pods are kept, as upstream does by default.
	mostEnded = 12500
	// quarantine is how long a node must be gone before its pods are.
	quarantine = 40 * time.Second
)

// Controller of pods that are garbage.
type Controller struct {
	queue *loop.Queue
	pods  *client.Informer[*corev1.Pod]
	nodes *client.Informer[*corev1.Node]
	write client.Client[*corev1.Pod]
	node  client.Client[*corev1.Node]
	now   func() time.Time

	mostEnded  int           // pods are kept
	quarantine time.Duration // of a node that is gone, before its pods go

	mu    sync.Mutex
	ended map[string]bool // keys of pods that have ended
}

// ends is the queue's key for the count of ended pods; other keys are nodes ("n/NAME")
// and pods ("p/NAMESPACE/NAME").
const ends = "ended"

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		queue: loop.NewQueue("podgc", log),
		pods:  client.Shared[*corev1.Pod](in, client.Scope{}),
		nodes: client.Shared[*corev1.Node](in, client.Scope{}),
		write: client.For[*corev1.Pod](in.Conn()),
		node:  client.For[*corev1.Node](in.Conn()),
		now:   time.Now,
		ended: map[string]bool{},

		mostEnded: mostEnded, quarantine: quarantine,
	}
	c.pods.OnChange(c.podChanged)
	c.nodes.OnChange(func(old, now *corev1.Node) {
		switch {
		case now == nil:
			c.queue.AddAfter("n/"+old.Name, c.quarantine)
		case outOfService(now):
			c.queue.Add("n/" + now.Name)
		}
	})
	return c
}

func (c *Controller) podChanged(old, now *corev1.Pod) {
	p := now
	if p == nil {
		p = old
	}
	key := client.Key(p.Namespace, p.Name)
	c.mu.Lock()
	if now != nil && owned.Ended(now) {
		c.ended[key] = true
		if len(c.ended) > c.mostEnded {
			c.queue.Add(ends)
		}
	} else {
		delete(c.ended, key)
	}
	c.mu.Unlock()
	switch {
	case now == nil:
	case now.Spec.NodeName == "":
		if now.DeletionTimestamp != nil {
			c.queue.Add("p/" + key)
		}
	case old == nil || old.Spec.NodeName == "":
		if _, ok := c.nodes.Get("", now.Spec.NodeName); !ok {
			c.queue.AddAfter("n/"+now.Spec.NodeName, c.quarantine)
		}
	case now.DeletionTimestamp != nil && old.DeletionTimestamp == nil:
		if n, ok := c.nodes.Get("", now.Spec.NodeName); ok && outOfService(n) {
			c.queue.Add("n/" + n.Name)
		}
	}
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	return c.queue.Run(ctx, 2, c.reconcile, c.pods.Synced(), c.nodes.Synced())
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	switch {
	case key == ends:
		return 0, c.tooMany(ctx)
	case key[0] == 'p':
		namespace, name := loop.Split(key[2:])
		p, err := c.write.Get(ctx, namespace, name)
		if err != nil || p.DeletionTimestamp == nil || p.Spec.NodeName != "" {
			return 0, loop.IgnoreNotFound(err)
		}
		return 0, c.remove(ctx, p, "")
	}
	return 0, c.ofNode(ctx, key[2:])
}

func (c *Controller) ofNode(ctx context.Context, name string) error {
	n, err := c.node.Get(ctx, "", name)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	gone := apierrors.IsNotFound(err)
	if !gone && !outOfService(n) {
		return nil
	}
	pods, err := c.write.List(ctx, "", client.ListOptions{Index: "spec.nodeName", Value: name})
	if err != nil {
		return err
	}
	for _, p := range pods {
		switch {
		case gone:
			err = c.remove(ctx, p, "PodGC: node no longer exists")
		case p.DeletionTimestamp != nil:
			err = c.remove(ctx, p, "")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tooMany removes the oldest ended pods beyond the limit.
func (c *Controller) tooMany(ctx context.Context) error {
	c.mu.Lock()
	var all []*corev1.Pod
	for key := range c.ended {
		namespace, name := loop.Split(key)
		if p, ok := c.pods.Get(namespace, name); ok && owned.Ended(p) {
			all = append(all, p)
		}
	}
	c.mu.Unlock()
	slices.SortFunc(all, func(a, b *corev1.Pod) int { // always the same, so that one that is gone already, and not known to be, is chosen again
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for i := range max(0, len(all)-c.mostEnded) {
		if err := c.remove(ctx, all[i], ""); err != nil {
			return err
		}
	}
	return nil
}

// remove a pod at once. One that has not ended is marked as failed first, so that
// its controller learns what became of it; why is then its DisruptionTarget.
func (c *Controller) remove(ctx context.Context, p *corev1.Pod, why string) error {
	if !owned.Ended(p) {
		out := p.DeepCopy()
		out.Status.Phase = corev1.PodFailed
		if why != "" {
			owned.SetDisrupted(out, "DeletionByPodGC", why, c.now())
		}
		if _, err := c.write.UpdateStatus(ctx, out); err != nil {
			return loop.IgnoreNotFound(err)
		}
	}
	err := c.write.Delete(ctx, p.Namespace, p.Name, metav1.DeleteOptions{
		GracePeriodSeconds: ptr.To[int64](0), Preconditions: &metav1.Preconditions{UID: ptr.To[types.UID](p.UID)},
	})
	if err != nil && !apierrors.IsNotFound(err) { // after a conflict it is looked at again
		return fmt.Errorf("pod %s/%s is garbage, but cannot be deleted: %w", p.Namespace, p.Name, err)
	}
	return nil
}

// outOfService: a person said so, and the node is not ready (KEP-2268).
func outOfService(n *corev1.Node) bool {
	marked := slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return marked && c.Status != corev1.ConditionTrue
		}
	}
	return marked
}
