// Package mirror copies Endpoints that somebody writes by hand, for a Service
// without a selector, into EndpointSlices, which proxies, DNS and ingress read.
package mirror

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api/discovery"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/owned"
)

// Controller of mirrored slices.
type Controller struct {
	queue     *loop.Queue
	in        *client.Informer[*corev1.Endpoints]
	services  *client.Informer[*corev1.Service]
	slicesIn  *client.Informer[*discoveryv1.EndpointSlice]
	endpoints client.Client[*corev1.Endpoints]
	svc       client.Client[*corev1.Service]
	slices    client.Client[*discoveryv1.EndpointSlice]
}

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		queue:     loop.NewQueue("endpointslicemirroring", log),
		in:        client.Shared[*corev1.Endpoints](in, client.Scope{}),
		services:  client.Shared[*corev1.Service](in, client.Scope{}),
		slicesIn:  client.Shared[*discoveryv1.EndpointSlice](in, client.Scope{}),
		endpoints: client.For[*corev1.Endpoints](in.Conn()),
		svc:       client.For[*corev1.Service](in.Conn()),
		slices:    client.For[*discoveryv1.EndpointSlice](in.Conn()),
	}
	c.in.OnChange(func(old, now *corev1.Endpoints) {
		if now == nil {
			now = old
		}
		if svc, ok := c.services.Get(now.Namespace, now.Name); !ok || len(svc.Spec.Selector) == 0 {
			c.queue.AddObject(now)
		}
	})
	c.services.OnChange(func(old, now *corev1.Service) {
		if old == nil || now == nil || (len(old.Spec.Selector) == 0) != (len(now.Spec.Selector) == 0) {
			if now == nil {
				now = old
			}
			c.queue.AddObject(now)
		}
	})
	c.slicesIn.OnChange(owned.WakeBySlice(c.queue, managedBy))
	return c
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	return c.queue.Run(ctx, 2, c.reconcile, c.in.Synced(), c.services.Synced(), c.slicesIn.Synced())
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name := loop.Split(key)
	e, err := c.endpoints.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		e, err = nil, nil
	}
	if err != nil {
		return 0, err
	}
	svc, err := c.svc.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		svc, err = nil, nil
	}
	if err != nil {
		return 0, err
	}
	if !mirrored(e, svc) {
		e = nil
	}
	all, err := c.slices.List(ctx, namespace, client.ListOptions{Index: discovery.ServiceIndex, Value: namespace + "/" + name})
	if err != nil {
		return 0, err
	}
	var mine []*discoveryv1.EndpointSlice
	for _, s := range all {
		if s.Labels[discoveryv1.LabelManagedBy] == managedBy && s.DeletionTimestamp == nil {
			mine = append(mine, s)
		}
	}
	return 0, c.carryOut(ctx, decide(e, mine))
}

func (c *Controller) carryOut(ctx context.Context, p plan) error {
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
		if err := c.slices.Delete(ctx, s.Namespace, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}
