// Package endpoints says which pods serve which Service: in EndpointSlices, which
// proxies, DNS and ingress read, and in the older Endpoints.
package endpoints

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/proa-dev/proa/internal/api/discovery"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/owned"
)

// Controller of both.
type Controller struct {
	queue    *loop.Queue
	services *client.Informer[*corev1.Service]
	podsIn   *client.Informer[*corev1.Pod]
	nodes    *client.Informer[*corev1.Node]
	slicesIn *client.Informer[*discoveryv1.EndpointSlice]
	pointsIn *client.Informer[*corev1.Endpoints]
	svc      client.Client[*corev1.Service]
	pods     client.Client[*corev1.Pod]
	slices   client.Client[*discoveryv1.EndpointSlice]
	points   client.Client[*corev1.Endpoints]

	mu       sync.Mutex
	triggers map[string]time.Time // by Service: when the first change happened that was not acted on yet
}

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		queue:    loop.NewQueue("endpoints", log),
		services: client.Shared[*corev1.Service](in, client.Scope{}),
		podsIn:   client.Shared[*corev1.Pod](in, client.Scope{}),
		nodes:    client.Shared[*corev1.Node](in, client.Scope{}),
		slicesIn: client.Shared[*discoveryv1.EndpointSlice](in, client.Scope{}),
		pointsIn: client.Shared[*corev1.Endpoints](in, client.Scope{}),
		svc:      client.For[*corev1.Service](in.Conn()),
		pods:     client.For[*corev1.Pod](in.Conn()),
		slices:   client.For[*discoveryv1.EndpointSlice](in.Conn()),
		points:   client.For[*corev1.Endpoints](in.As("endpoint-controller").Conn()),
		triggers: map[string]time.Time{},
	}
	c.services.OnChange(func(old, now *corev1.Service) {
		if now == nil {
			now = old
		}
		c.queue.AddObject(now)
	})
	c.podsIn.OnChange(c.podChanged)
	c.nodes.OnChange(c.nodeChanged)
	c.slicesIn.OnChange(owned.WakeBySlice(c.queue, managedBy))
	c.pointsIn.OnChange(c.endpointsChanged)
	return c
}

// endpointsChanged wakes the Service whose Endpoints somebody changed or deleted, and
// sees to those that their Service left behind.
func (c *Controller) endpointsChanged(old, now *corev1.Endpoints) {
	if old != nil && now != nil && equality.Semantic.DeepEqual(old.Subsets, now.Subsets) && maps.Equal(old.Labels, now.Labels) &&
		old.Annotations[corev1.EndpointsOverCapacity] == now.Annotations[corev1.EndpointsOverCapacity] {
		return
	}
	e := now
	if e == nil {
		e = old
	}
	svc, ok := c.services.Get(e.Namespace, e.Name)
	if ok && len(svc.Spec.Selector) > 0 || !ok && now != nil && now.Labels[managedByLabel] == managedByName {
		c.queue.AddObject(e)
	}
}

// podChanged wakes the Services that a pod is part of or was part of.
func (c *Controller) podChanged(old, now *corev1.Pod) {
	if old != nil && now != nil && sameBackend(old, now) {
		return
	}
	p := now
	if p == nil {
		p = old
	}
	for _, svc := range c.services.List(p.Namespace, nil) {
		if len(svc.Spec.Selector) == 0 {
			continue
		}
		sel := labels.Set(svc.Spec.Selector).AsSelectorPreValidated()
		if old != nil && sel.Matches(labels.Set(old.Labels)) || now != nil && sel.Matches(labels.Set(now.Labels)) {
			key := client.Key(svc.Namespace, svc.Name)
			c.trigger(key, changeTime(now))
			c.queue.Add(key)
		}
	}
}

// sameBackend: nothing that endpoints are made from differs.
func sameBackend(a, b *corev1.Pod) bool {
	return a.UID == b.UID && owned.Ready(a) == owned.Ready(b) && (a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) &&
		a.Status.Phase == b.Status.Phase && a.Status.PodIP == b.Status.PodIP && slices.Equal(a.Status.PodIPs, b.Status.PodIPs) &&
		a.Spec.NodeName == b.Spec.NodeName && equality.Semantic.DeepEqual(a.Labels, b.Labels)
}

func changeTime(now *corev1.Pod) time.Time {
	switch {
	case now == nil:
		return time.Now()
	case now.DeletionTimestamp != nil:
		return now.DeletionTimestamp.Time
	}
	if c := owned.Condition(now, corev1.PodReady); c != nil {
		return c.LastTransitionTime.Time
	}
	return now.CreationTimestamp.Time
}

func (c *Controller) trigger(key string, at time.Time) {
	if at.IsZero() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if have, ok := c.triggers[key]; !ok || at.Before(have) {
		c.triggers[key] = at
	}
}

func (c *Controller) triggered(key string) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.triggers[key]
	delete(c.triggers, key)
	return at
}

// nodeChanged: a node's zone is in the endpoints of the pods on it.
func (c *Controller) nodeChanged(old, now *corev1.Node) {
	if old != nil && now != nil && old.Labels[corev1.LabelTopologyZone] == now.Labels[corev1.LabelTopologyZone] {
		return
	}
	n := now
	if n == nil {
		n = old
	}
	for _, p := range c.podsIn.ByIndex("spec.nodeName", n.Name) {
		c.podChanged(nil, p)
	}
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	return c.queue.Run(ctx, 4, c.reconcile, c.services.Synced(), c.podsIn.Synced(), c.nodes.Synced(), c.slicesIn.Synced(), c.pointsIn.Synced())
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name := loop.Split(key)
	trigger := c.triggered(key)
	svc, err := c.svc.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		err := c.points.Delete(ctx, namespace, name, metav1.DeleteOptions{}) // the slices go by their owner
		if apierrors.IsNotFound(err) {
			return 0, nil
		}
		return 0, err
	}
	if err != nil || svc.Spec.Type == corev1.ServiceTypeExternalName || len(svc.Spec.Selector) == 0 {
		return 0, err // somebody else writes the endpoints of a Service without a selector
	}
	if svc.DeletionTimestamp != nil {
		return 0, nil
	}
	pods, err := c.pods.List(ctx, namespace, client.ListOptions{Labels: labels.Set(svc.Spec.Selector).AsSelectorPreValidated()})
	if err != nil {
		return 0, err
	}
	all := backends(svc, pods, func(name string) *corev1.Node { n, _ := c.nodes.Get("", name); return n })
	if err := c.writeSlices(ctx, svc, all, trigger); err != nil {
		c.trigger(key, trigger)
		return 0, err
	}
	if err := c.writeEndpoints(ctx, svc, all, trigger); err != nil {
		c.trigger(key, trigger)
		return 0, err
	}
	return 0, nil
}

func (c *Controller) writeSlices(ctx context.Context, svc *corev1.Service, all []backend, trigger time.Time) error {
	have, err := c.slices.List(ctx, svc.Namespace, client.ListOptions{Index: discovery.ServiceIndex, Value: svc.Namespace + "/" + svc.Name})
	if err != nil {
		return err
	}
	mine := have[:0:0]
	for _, s := range have {
		if s.Labels[discoveryv1.LabelManagedBy] == managedBy {
			mine = append(mine, s)
		}
	}
	p := planSlices(svc, all, mine, trigger)
	for _, s := range p.create {
		if _, err := c.slices.Create(ctx, s); err != nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return err
		}
	}
	for _, s := range p.update {
		if _, err := c.slices.Update(ctx, s); err != nil {
			return err
		}
	}
	for _, s := range p.remove {
		if err := c.slices.Delete(ctx, s.Namespace, s.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

func (c *Controller) writeEndpoints(ctx context.Context, svc *corev1.Service, all []backend, trigger time.Time) error {
	have, err := c.points.Get(ctx, svc.Namespace, svc.Name)
	if apierrors.IsNotFound(err) {
		have, err = nil, nil
	}
	if err != nil {
		return err
	}
	out := planEndpoints(svc, all, have, trigger)
	switch {
	case out == nil:
		return nil
	case have == nil:
		_, err = c.points.Create(ctx, out)
	default:
		_, err = c.points.Update(ctx, out)
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return err
}
