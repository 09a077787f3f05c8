package allocate

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/proa-dev/proa/internal/api/networking"
	"github.com/proa-dev/proa/internal/cache"
)

// Objects that say which cluster IPs there are and who else has one; nil = none.
type Objects struct {
	Ranges    cache.Reader // ServiceCIDRs
	Addresses cache.Reader // IPAddresses
}

// elsewhere says whether somebody who is no Service has an address.
func (o *Objects) elsewhere(ip netip.Addr) bool {
	if o.Addresses == nil {
		return false
	}
	item := o.Addresses.Get("", ip.String())
	return item != nil && !networking.OfService(item.Object)
}

// rangesOf a family in which there are addresses to give, in the order in which
// they are tried: the one given at the start, then the oldest. nil = the cluster
// does not have the family. A range that is going or said not to be ready gives
// none; those who have one of it keep it.
func (s *Services) rangesOf(f corev1.IPFamily) []ipRange {
	first := s.rangeOf(f)
	if first == nil || s.more.Ranges == nil {
		if first == nil {
			return nil
		}
		return []ipRange{*first}
	}
	objects := []*networkingv1.ServiceCIDR{}
	s.more.Ranges.Snapshot().Ascend("", "", "", func(i *cache.Item) bool {
		objects = append(objects, i.Object.(*networkingv1.ServiceCIDR))
		return true
	})
	slices.SortStableFunc(objects, func(a, b *networkingv1.ServiceCIDR) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	var others []ipRange
	open, closed := false, false // as the objects say of the first; neither = its object is still to be made
	for _, o := range objects {
		usable := o.DeletionTimestamp == nil && !meta.IsStatusConditionFalse(o.Status.Conditions, networkingv1.ServiceCIDRConditionReady)
		for _, text := range o.Spec.CIDRs {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				continue
			}
			r, err := newRange(p)
			switch {
			case err != nil || r.family != f:
			case r.prefix == first.prefix:
				open, closed = open || usable, closed || !usable
			case usable:
				others = append(others, r)
			}
		}
	}
	if closed && !open {
		return others
	}
	return append([]ipRange{*first}, others...)
}

func prefixes(ranges []ipRange) string {
	text := make([]string, len(ranges))
	for i := range ranges {
		text[i] = ranges[i].prefix.String()
	}
	return strings.Join(text, ", ")
}
