package servicecidr

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
)

// holders are the Services (their keys) that have an address: one, unless two were
// written past the allocator.
type holders struct {
	mu sync.Mutex
	of map[netip.Addr][]string
}

// change of a Service; it returns the addresses that it had or has.
func (h *holders) change(old, now *corev1.Service) (touched []netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if old != nil {
		key := client.Key(old.Namespace, old.Name)
		for _, ip := range clusterIPs(old) {
			if left := slices.DeleteFunc(h.of[ip], func(k string) bool { return k == key }); len(left) > 0 {
				h.of[ip] = left
			} else {
				delete(h.of, ip)
			}
			touched = append(touched, ip)
		}
	}
	if now != nil {
		key := client.Key(now.Namespace, now.Name)
		for _, ip := range clusterIPs(now) {
			if !slices.Contains(h.of[ip], key) {
				h.of[ip] = append(h.of[ip], key)
			}
			touched = append(touched, ip)
		}
	}
	return touched
}

func (h *holders) get(ip netip.Addr) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.of[ip])
}

func clusterIPs(s *corev1.Service) (all []netip.Addr) {
	for _, text := range s.Spec.ClusterIPs {
		if ip, err := netip.ParseAddr(text); err == nil { // not None
			all = append(all, ip)
		}
	}
	return all
}

func (c *Controller) reconcileAddress(ctx context.Context, name string) error {
	ip, err := netip.ParseAddr(name)
	if err != nil {
		return nil
	}
	services := c.holding(ip)
	address, there := c.addresses.Get("", name)
	if len(services) == 0 {
		if !there || !managed(address) {
			return nil // nobody's, or somebody else's
		}
		return c.free(ctx, ip, address)
	}
	for _, s := range services[1:] {
		c.record.Warning(event.Ref(c.readS.Kind(), s), "ClusterIPAlreadyAllocated",
			"the ClusterIP [%v]: %s for Service %s/%s was assigned to multiple services; please recreate service", family(ip), ip, s.Namespace, s.Name)
	}
	s := services[0]
	if !within(ip, c.ranges.List("", nil)) {
		c.record.Warning(event.Ref(c.readS.Kind(), s), "ClusterIPOutOfRange",
			"Cluster IP [%v]: %s is not within any configured Service CIDR; please recreate service", family(ip), ip)
	}
	if there && refersTo(address, s) && managed(address) {
		return nil
	}
	if there { // whose it is cannot be changed
		c.record.Warning(event.Ref(c.readS.Kind(), s), "ClusterIPNotAllocated",
			"the ClusterIP [%v]: %s for Service %s/%s has a wrong reference; repairing", family(ip), ip, s.Namespace, s.Name)
		if err := c.remove(ctx, address); err != nil {
			return err
		}
	}
	_, err = c.writeA.Create(ctx, &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			networkingv1.LabelIPAddressFamily: string(family(ip)), networkingv1.LabelManagedBy: ManagedBy,
		}},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: s.Namespace, Name: s.Name}},
	})
	if apierrors.IsAlreadyExists(err) {
		return nil // it is on its way here
	}
	return err
}

// holding an address, who had it first at the front.
func (c *Controller) holding(ip netip.Addr) (all []*corev1.Service) {
	for _, key := range c.holders.get(ip) {
		namespace, name, err := cache.SplitMetaNamespaceKey(key)
		if err != nil {
			continue
		}
		if s, ok := c.services.Get(namespace, name); ok && slices.Contains(clusterIPs(s), ip) {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *corev1.Service) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
	})
	return all
}

// free an address that no Service has, if it is really so: what is shown here may
// be behind.
func (c *Controller) free(ctx context.Context, ip netip.Addr, address *networkingv1.IPAddress) error {
	if ref := address.Spec.ParentRef; ref != nil && ref.Group == "" && ref.Resource == "services" {
		s, err := c.readS.Get(ctx, ref.Namespace, ref.Name)
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		if err == nil && slices.Contains(clusterIPs(s), ip) {
			return nil
		}
	}
	return c.remove(ctx, address)
}

func (c *Controller) remove(ctx context.Context, address *networkingv1.IPAddress) error {
	err := c.writeA.Delete(ctx, "", address.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &address.UID}})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func refersTo(a *networkingv1.IPAddress, s *corev1.Service) bool {
	ref := a.Spec.ParentRef
	return ref != nil && ref.Group == "" && ref.Resource == "services" && ref.Namespace == s.Namespace && ref.Name == s.Name
}

func within(ip netip.Addr, ranges []*networkingv1.ServiceCIDR) bool {
	for _, r := range ranges {
		for _, text := range r.Spec.CIDRs {
			if p, err := netip.ParsePrefix(text); err == nil && p.Contains(ip) {
				return true
			}
		}
	}
	return false
}

func family(ip netip.Addr) corev1.IPFamily {
	if ip.Is6() {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}
