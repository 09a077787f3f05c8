// Package nodelifecycle watches over nodes: one that falls silent is marked
// unreachable, taints say what state a node is in, its pods count as not ready,
// and after as long as they tolerate it they are evicted.
package nodelifecycle

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/owned"
)

// Controller of nodes and of the pods that must leave them.
type Controller struct {
	nodesQ  *loop.Queue
	podsQ   *loop.Queue
	nodesIn *client.Informer[*corev1.Node]
	podsIn  *client.Informer[*corev1.Pod]
	leases  *client.Informer[*coordinationv1.Lease]
	nodes   client.Client[*corev1.Node]
	pods    client.Client[*corev1.Pod]
	record  *event.Recorder
	evictor *event.Recorder
	now     func() time.Time

	mu    sync.Mutex
	heard map[string]time.Time // by our clock: when a node was last heard of
	zones map[string]*rate.Limiter
	may   map[string]bool                   // nodes that are emptied until they are ready again
	since map[string]map[taintKey]time.Time // by node: when taints that do not tell were first seen
}

// taintKey is what makes one taint of a node another.
type taintKey struct{ key, value string }

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		nodesQ:  loop.NewQueue("nodelifecycle", log),
		podsQ:   loop.NewQueue("tainteviction", log),
		nodesIn: client.Shared[*corev1.Node](in, client.Scope{}),
		podsIn:  client.Shared[*corev1.Pod](in, client.Scope{}),
		leases:  client.Shared[*coordinationv1.Lease](in, client.Scope{Namespace: corev1.NamespaceNodeLease}),
		nodes:   client.For[*corev1.Node](in.Conn()),
		pods:    client.For[*corev1.Pod](in.Conn()),
		record:  event.New(in.Conn(), "node-controller", "", log),
		evictor: event.New(in.Conn(), "taint-eviction-controller", "", log),
		now:     time.Now,
		heard:   map[string]time.Time{},
		zones:   map[string]*rate.Limiter{},
		may:     map[string]bool{},
		since:   map[string]map[taintKey]time.Time{},
	}
	c.nodesIn.OnChange(c.nodeChanged)
	c.leases.OnChange(func(old, now *coordinationv1.Lease) {
		if now != nil && (old == nil || !equality.Semantic.DeepEqual(old.Spec.RenewTime, now.Spec.RenewTime)) {
			c.hear(now.Name)
		}
	})
	c.podsIn.OnChange(func(old, now *corev1.Pod) {
		if now == nil || now.Spec.NodeName == "" {
			return
		}
		if old == nil || old.Spec.NodeName == "" || !equality.Semantic.DeepEqual(old.Spec.Tolerations, now.Spec.Tolerations) {
			if n, ok := c.nodesIn.Get("", now.Spec.NodeName); ok && drives(n) {
				c.podsQ.AddObject(now)
			}
		}
	})
	return c
}

func (c *Controller) nodeChanged(old, now *corev1.Node) {
	if now == nil {
		c.mu.Lock()
		delete(c.heard, old.Name)
		delete(c.may, old.Name)
		delete(c.since, old.Name)
		c.mu.Unlock()
		return
	}
	if old == nil || heartbeat(old) != heartbeat(now) {
		c.hear(now.Name)
	}
	c.nodesQ.Add(now.Name)
	if old == nil || !equality.Semantic.DeepEqual(old.Spec.Taints, now.Spec.Taints) {
		if drives(now) || old != nil && drives(old) {
			for _, p := range c.podsIn.ByIndex("spec.nodeName", now.Name) {
				c.podsQ.AddObject(p)
			}
		}
	}
}

// hear of a node: by our own clock, since the node's may be wrong. The silence
// that was feared is looked for once, when it would be over.
func (c *Controller) hear(name string) {
	c.mu.Lock()
	c.heard[name] = c.now()
	c.mu.Unlock()
	if n, ok := c.nodesIn.Get("", name); ok {
		if r := condition(n, corev1.NodeReady); r != nil && r.Status == corev1.ConditionUnknown {
			c.nodesQ.Add(name)
		}
	}
}

func heartbeat(n *corev1.Node) metav1.Time {
	if c := condition(n, corev1.NodeReady); c != nil {
		return c.LastHeartbeatTime
	}
	return metav1.Time{}
}

// drives says whether a node has taints that drive pods off.
func drives(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Effect == corev1.TaintEffectNoExecute })
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	go c.record.Run(ctx)
	go c.evictor.Run(ctx)
	synced := []<-chan struct{}{c.nodesIn.Synced(), c.podsIn.Synced(), c.leases.Synced()}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = c.podsQ.Run(ctx, 4, c.evict, synced...) })
	return c.nodesQ.Run(ctx, 4, c.reconcile, synced...)
}

func (c *Controller) reconcile(ctx context.Context, name string) (time.Duration, error) {
	n, err := c.nodes.Get(ctx, "", name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	now := c.now()
	c.mu.Lock()
	heard, ok := c.heard[name]
	if !ok {
		heard = now
		c.heard[name] = now
	}
	c.mu.Unlock()
	p := judge(n, heard, false, now)
	wait := time.Duration(0)
	if p.ready == corev1.ConditionTrue {
		c.mu.Lock()
		delete(c.may, name)
		c.mu.Unlock()
	} else {
		evict, later := c.mayEvict(n)
		p = judge(n, heard, evict, now)
		wait = later
	}
	if p.conditions != nil {
		out := n.DeepCopy()
		out.Status.Conditions = p.conditions
		if n, err = c.nodes.UpdateStatus(ctx, out); err != nil {
			return 0, err
		}
	}
	if !equality.Semantic.DeepEqual(n.Spec.Taints, p.taints) {
		out := n.DeepCopy()
		out.Spec.Taints = p.taints
		if n, err = c.nodes.Update(ctx, out); err != nil {
			return 0, err
		}
	}
	if p.ready != corev1.ConditionTrue {
		if err := c.podsNotReady(ctx, n); err != nil {
			return 0, err
		}
	}
	if silence := p.next.Sub(now); silence > 0 && (wait == 0 || silence < wait) {
		wait = silence + time.Millisecond
	}
	return wait, nil
}

// mayEvict keeps evictions slow, one node in ten seconds and zone, and stops them
// when no node at all is ready: then it is the server that sees badly, more
// likely than that all nodes are gone.
func (c *Controller) mayEvict(n *corev1.Node) (ok bool, later time.Duration) {
	if drives(n) && (has(n, corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute) || has(n, corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute)) {
		return true, 0
	}
	some := false
	for _, other := range c.nodesIn.List("", nil) {
		if r := condition(other, corev1.NodeReady); other.Name != n.Name && r != nil && r.Status == corev1.ConditionTrue {
			some = true
		}
	}
	if !some {
		return false, 30 * time.Second
	}
	zone := n.Labels[corev1.LabelTopologyRegion] + "/" + n.Labels[corev1.LabelTopologyZone]
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.may[n.Name] { // but the taint could not be written, or somebody took it off
		return true, 0
	}
	l := c.zones[zone]
	if l == nil {
		l = rate.NewLimiter(0.1, 1)
		c.zones[zone] = l
	}
	if l.AllowN(c.now(), 1) {
		c.may[n.Name] = true
		return true, 0
	}
	return false, 10 * time.Second
}

// podsNotReady: what runs on a node that is not ready must not get traffic.
func (c *Controller) podsNotReady(ctx context.Context, n *corev1.Node) error {
	pods, err := c.pods.List(ctx, "", client.ListOptions{Index: "spec.nodeName", Value: n.Name})
	if err != nil {
		return err
	}
	for _, p := range pods {
		ready := owned.Condition(p, corev1.PodReady)
		if ready == nil || ready.Status != corev1.ConditionTrue {
			continue
		}
		out := p.DeepCopy()
		r := owned.Condition(out, corev1.PodReady)
		r.Status, r.LastTransitionTime = corev1.ConditionFalse, metav1.NewTime(c.now())
		if _, err := c.pods.UpdateStatus(ctx, out); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		k := c.pods.Kind()
		c.record.Warning(event.Ref(k, p), "NodeNotReady", "Node is not ready")
	}
	return nil
}

// dated are a node's taints that drive pods off, each with the time from which it
// counts: that of the taint, or else when it was first seen.
func (c *Controller) dated(n *corev1.Node, now time.Time) []corev1.Taint {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, seen := c.since[n.Name], map[taintKey]time.Time{}
	var out []corev1.Taint
	for _, t := range n.Spec.Taints {
		if t.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		if t.TimeAdded == nil {
			k := taintKey{t.Key, t.Value}
			at, ok := before[k]
			if !ok {
				at = now
			}
			seen[k] = at
			t.TimeAdded = &metav1.Time{Time: at}
		}
		out = append(out, t)
	}
	c.since[n.Name] = seen
	return out
}

// evict a pod when the time is up that it tolerates its node's taints for.
func (c *Controller) evict(ctx context.Context, key string) (time.Duration, error) {
	namespace, name := loop.Split(key)
	p, err := c.pods.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil || p.DeletionTimestamp != nil || p.Spec.NodeName == "" {
		return 0, err
	}
	n, err := c.nodes.Get(ctx, "", p.Spec.NodeName)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	now := c.now()
	at, ok := leave(p, c.dated(n, now), now)
	if !ok {
		return 0, nil
	}
	if d := at.Sub(now); d > 0 {
		return d, nil
	}
	c.evictor.Normal(event.Ref(c.pods.Kind(), p), "TaintManagerEviction", "Marking for deletion Pod %s", key)
	return 0, owned.Disrupt(ctx, c.pods, p, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", now)
}
