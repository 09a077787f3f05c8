package allocate

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/cache"
)

// Objects that say which cluster IPs there are and who else has one; nil = none.
type Objects struct {
	Ranges    cache.Reader // ServiceCIDRs
	Addresses cache.Reader // IPAddresses
}

// managedBy is the label's value of IPAddresses that show what Services have.
const managedBy = "ipallocator.k8s.io"

// elsewhere says whether somebody who is no Service has an address.
func (o *Objects) elsewhere(ip netip.Addr) bool {
	if o.Addresses == nil {
		return false
	}
	item := o.Addresses.Get("", ip.String())
	return item != nil && item.Object.GetLabels()[networkingv1.LabelManagedBy] != managedBy
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
	type aged struct {
		ipRange
		since metav1.Time
	}
	all, closed := []aged{}, false
	s.more.Ranges.Snapshot().Ascend("", "", "", func(i *cache.Item) bool {
		o := i.Object.(*networkingv1.ServiceCIDR)
		usable := o.DeletionTimestamp == nil && !meta.IsStatusConditionFalse(o.Status.Conditions, networkingv1.ServiceCIDRConditionReady)
		for _, text := range o.Spec.CIDRs {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				continue
			}
			r, err := newRange(p)
			switch {
			case err != nil || r.family != f:
			case usable:
				all = append(all, aged{r, o.CreationTimestamp})
			case r.prefix == first.prefix:
				closed = true
			}
		}
		return true
	})
	slices.SortStableFunc(all, func(a, b aged) int {
		return cmp.Or(before(a.prefix == first.prefix, b.prefix == first.prefix), a.since.Compare(b.since.Time))
	})
	out := []ipRange{}
	for i := range all {
		out = append(out, all[i].ipRange)
	}
	if !closed && (len(out) == 0 || out[0].prefix != first.prefix) { // its object is still to be made
		out = slices.Insert(out, 0, *first)
	}
	return out
}

func before(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func prefixes(ranges []ipRange) string {
	text := make([]string, len(ranges))
	for i := range ranges {
		text[i] = ranges[i].prefix.String()
	}
	return strings.Join(text, ", ")
}
