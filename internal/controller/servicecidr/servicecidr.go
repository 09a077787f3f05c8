// Package servicecidr keeps the objects that show which cluster IPs there are and
// who has them (KEP-1880): every ServiceCIDR is protected as long as an address
// would be left without a range, and every cluster IP of a Service has an
// IPAddress. Who gets which address is decided where Services are written
// (package allocate), by the same objects.
package servicecidr

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api/core"
	"github.com/proa-dev/proa/internal/api/networking"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// Finalizer of a ServiceCIDR.
const Finalizer = "networking.k8s.io/service-cidr-finalizer"

// grace is how long a range that may go stays: who gives addresses away has heard
// by then that it goes.
const grace = 10 * time.Second

// The queue's keys: "r/NAME" ranges, "a/ADDRESS" addresses.

// Controller of ServiceCIDRs and IPAddresses.
type Controller struct {
	queue     *loop.Queue
	ranges    *client.Informer[*networkingv1.ServiceCIDR]
	addresses *client.Informer[*networkingv1.IPAddress]
	services  *client.Informer[*corev1.Service]
	writeR    client.Client[*networkingv1.ServiceCIDR]
	writeA    client.Client[*networkingv1.IPAddress]
	readS     client.Client[*corev1.Service]
	record    *event.Recorder
	now       func() time.Time
}

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		queue:     loop.NewQueue("servicecidr", log),
		ranges:    client.Shared[*networkingv1.ServiceCIDR](in, client.Scope{}),
		addresses: client.Shared[*networkingv1.IPAddress](in, client.Scope{}),
		services:  client.Shared[*corev1.Service](in, client.Scope{}),
		writeR:    client.For[*networkingv1.ServiceCIDR](in.Conn()),
		writeA:    client.For[*networkingv1.IPAddress](in.Conn()),
		readS:     client.For[*corev1.Service](in.Conn()),
		record:    event.New(in.Conn(), "servicecidr-controller", "", log),
		now:       time.Now,
	}
	c.ranges.OnChange(func(old, now *networkingv1.ServiceCIDR) {
		for _, r := range c.ranges.List("", nil) { // one that comes or goes matters to those it lies in
			c.queue.Add("r/" + r.Name)
		}
	})
	c.addresses.OnChange(func(old, now *networkingv1.IPAddress) {
		if old == nil || now == nil { // a range that is to go stays for the first of its addresses, and goes with the last
			for _, r := range c.ranges.List("", nil) {
				if r.DeletionTimestamp != nil {
					c.queue.Add("r/" + r.Name)
				}
			}
		}
		c.queue.Add("a/" + cmp.Or(now, old).Name)
	})
	c.services.OnChange(func(old, now *corev1.Service) {
		for _, s := range []*corev1.Service{old, now} {
			if s == nil {
				continue
			}
			for _, ip := range core.ClusterIPs(s) {
				c.queue.Add("a/" + ip.String())
			}
		}
	})
	return c
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	go c.record.Run(ctx)
	return c.queue.Run(ctx, 2, func(ctx context.Context, key string) (time.Duration, error) {
		if name, ok := strings.CutPrefix(key, "r/"); ok {
			return c.reconcileRange(ctx, name)
		}
		return c.reconcileAddress(ctx, strings.TrimPrefix(key, "a/"))
	}, c.ranges.Synced(), c.addresses.Synced(), c.services.Synced())
}

func (c *Controller) reconcileRange(ctx context.Context, name string) (time.Duration, error) {
	r, ok := c.ranges.Get("", name)
	if !ok {
		return 0, nil
	}
	protected := slices.Contains(r.Finalizers, Finalizer)
	switch {
	case r.DeletionTimestamp == nil && !protected:
		out := r.DeepCopy()
		out.Finalizers = append(out.Finalizers, Finalizer)
		_, err := c.writeR.Update(ctx, out) // its condition follows, with the change
		return 0, err
	case r.DeletionTimestamp == nil:
		return 0, c.condition(ctx, r, metav1.ConditionTrue, "", "Kubernetes Service CIDR is ready")
	case !protected:
		return 0, nil
	case orphans(r, c.ranges.List("", nil), c.addresses.List("", nil)):
		return 0, c.condition(ctx, r, metav1.ConditionFalse, networkingv1.ServiceCIDRReasonTerminating,
			"There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR")
	}
	if left := r.DeletionTimestamp.Add(grace).Sub(c.now()); left > 0 {
		return left, nil
	}
	out := r.DeepCopy()
	out.Finalizers = slices.DeleteFunc(out.Finalizers, func(f string) bool { return f == Finalizer })
	_, err := c.writeR.Update(ctx, out)
	return 0, err
}

// condition Ready of a range, if it is another than it has.
func (c *Controller) condition(ctx context.Context, r *networkingv1.ServiceCIDR, status metav1.ConditionStatus, reason, message string) error {
	is := meta.FindStatusCondition(r.Status.Conditions, networkingv1.ServiceCIDRConditionReady)
	if is != nil && is.Status == status && is.Reason == reason && is.Message == message {
		return nil
	}
	out := r.DeepCopy()
	meta.SetStatusCondition(&out.Status.Conditions, metav1.Condition{
		Type: networkingv1.ServiceCIDRConditionReady, Status: status, Reason: reason, Message: message,
	})
	_, err := c.writeR.UpdateStatus(ctx, out)
	return err
}

// orphans says whether addresses would be left without a range if this one went.
func orphans(gone *networkingv1.ServiceCIDR, all []*networkingv1.ServiceCIDR, addresses []*networkingv1.IPAddress) bool {
	var own, others []netip.Prefix
	for _, r := range all {
		for _, text := range r.Spec.CIDRs {
			p, err := netip.ParsePrefix(text)
			switch {
			case err != nil:
			case r.Name == gone.Name:
				own = append(own, p)
			default:
				others = append(others, p)
			}
		}
	}
	for _, a := range addresses {
		ip, err := netip.ParseAddr(a.Name)
		if err != nil || !networking.OfService(a) {
			continue
		}
		in := func(p netip.Prefix) bool { return p.Contains(ip) }
		if slices.ContainsFunc(own, in) && !slices.ContainsFunc(others, in) {
			return true
		}
	}
	return false
}
