package servicecidr

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api/core"
	"github.com/proa-dev/proa/internal/api/networking"
	"github.com/proa-dev/proa/internal/client/event"
)

// shown is how long after an address was made it is looked whether it is there. A watch
// need not tell of one that somebody else deletes at once.
const shown = time.Second

func (c *Controller) reconcileAddress(ctx context.Context, name string) (time.Duration, error) {
	ip, err := netip.ParseAddr(name)
	if err != nil {
		return 0, nil
	}
	services := c.holding(ip)
	address, there := c.addresses.Get("", name)
	if len(services) == 0 {
		if !there || !networking.OfService(address) {
			return 0, nil // nobody's, or somebody else's
		}
		return 0, c.free(ctx, ip, address)
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
	if there && refersTo(address, s) && networking.OfService(address) {
		return 0, nil
	}
	if there { // whose it is cannot be changed
		c.record.Warning(event.Ref(c.readS.Kind(), s), "ClusterIPNotAllocated",
			"the ClusterIP [%v]: %s for Service %s/%s has a wrong reference; repairing", family(ip), ip, s.Namespace, s.Name)
		if err := c.remove(ctx, address); err != nil {
			return 0, err
		}
	}
	_, err = c.writeA.Create(ctx, &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			networkingv1.LabelIPAddressFamily: string(family(ip)), networkingv1.LabelManagedBy: networking.OfServices,
		}},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: s.Namespace, Name: s.Name}},
	})
	if apierrors.IsAlreadyExists(err) {
		err = nil // it is on its way here
	}
	return shown, err
}

// holding an address, who had it first at the front: one, unless two were written
// past the allocator.
func (c *Controller) holding(ip netip.Addr) []*corev1.Service {
	all := c.services.ByIndex(core.ClusterIPIndex, ip.String())
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
		if err == nil && slices.Contains(core.ClusterIPs(s), ip) {
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
