package allocate

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// families fills in ipFamilyPolicy and ipFamilies from what the Service says and
// what the cluster has (KEP-563).
func (c *claim) families() error {
	spec := &c.svc.Spec
	if spec.Type == corev1.ServiceTypeExternalName || len(c.s.ranges) == 0 {
		return nil
	}
	if len(spec.ClusterIPs) == 0 && spec.ClusterIP != "" {
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
	bare := spec.ClusterIP == corev1.ClusterIPNone && len(spec.Selector) == 0
	if spec.IPFamilyPolicy == nil {
		policy := corev1.IPFamilyPolicySingleStack
		if bare {
			policy = corev1.IPFamilyPolicyRequireDualStack
		}
		spec.IPFamilyPolicy = &policy
	}
	policy := *spec.IPFamilyPolicy
	at := field.NewPath("spec", "ipFamilyPolicy")
	var all field.ErrorList
	if policy == corev1.IPFamilyPolicySingleStack {
		const want = "must be 'RequireDualStack' or 'PreferDualStack' when multiple "
		if c.single(); len(spec.ClusterIPs) == 2 {
			all = append(all, field.Invalid(at, spec.IPFamilyPolicy, want+"cluster IPs are specified"))
		}
		if len(spec.IPFamilies) == 2 {
			all = append(all, field.Invalid(at, spec.IPFamilyPolicy, want+"IP families are specified"))
		}
	}
	for i, text := range spec.ClusterIPs {
		ip, err := netip.ParseAddr(text)
		if err != nil || i < len(spec.IPFamilies) {
			continue
		}
		family := corev1.IPv4Protocol
		if ip.Is6() {
			family = corev1.IPv6Protocol
		}
		if c.s.rangeOf(family) == nil {
			all = append(all, field.Invalid(field.NewPath("spec", "clusterIPs").Index(i), spec.ClusterIPs, fmt.Sprintf("%s is not configured on this cluster", family)))
			continue
		}
		spec.IPFamilies = append(spec.IPFamilies, family)
	}
	if len(all) > 0 {
		return c.invalid(all...)
	}
	first := c.s.ranges[0].family
	if bare {
		if len(spec.IPFamilies) == 0 {
			spec.IPFamilies = []corev1.IPFamily{first}
		}
		if len(spec.IPFamilies) < 2 && policy != corev1.IPFamilyPolicySingleStack {
			spec.IPFamilies = append(spec.IPFamilies, otherThan(spec.IPFamilies[0]))
		}
		return nil
	}
	if policy == corev1.IPFamilyPolicyRequireDualStack && len(c.s.ranges) < 2 {
		all = append(all, field.Invalid(at, spec.IPFamilyPolicy, "this cluster is not configured for dual-stack services"))
	}
	for i, family := range spec.IPFamilies {
		if c.s.rangeOf(family) == nil {
			all = append(all, field.Invalid(field.NewPath("spec", "ipFamilies").Index(i), family, "not configured on this cluster"))
		}
	}
	if len(all) > 0 {
		return c.invalid(all...)
	}
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{first}
	}
	if policy != corev1.IPFamilyPolicySingleStack && len(spec.IPFamilies) == 1 && len(c.s.ranges) == 2 {
		spec.IPFamilies = append(spec.IPFamilies, otherThan(spec.IPFamilies[0]))
	}
	return nil
}

// single lets a Service go back to one family by its policy alone: the second
// address and family that it has already are dropped.
func (c *claim) single() {
	spec := &c.svc.Spec
	if held, ok := c.s.has[c.svc.UID]; ok && len(held.ips) == 2 && len(spec.ClusterIPs) == 2 && spec.ClusterIPs[1] == held.ips[1].String() {
		spec.ClusterIPs = spec.ClusterIPs[:1]
		if len(spec.IPFamilies) == 2 {
			spec.IPFamilies = spec.IPFamilies[:1]
		}
	}
}

func otherThan(f corev1.IPFamily) corev1.IPFamily {
	if f == corev1.IPv4Protocol {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}
