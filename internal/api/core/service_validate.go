package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/proa-dev/proa/internal/api/validate"
)

// validateService runs after addresses and ports have been allocated.
func validateService(e *validate.Errs, s, old *corev1.Service, sub string) {
	p := validate.Root("spec")
	var was *corev1.ServiceSpec
	if old != nil {
		was = &old.Spec
	}
	if sub == "status" {
		loadBalancerStatus(e, s, old)
		return
	}
	spec := &s.Spec
	mode, hasMode := s.Annotations[corev1.AnnotationTopologyMode]
	hints, hasHints := s.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	if hasMode && hasHints && mode != hints {
		e.Invalid(validate.Root("metadata").Child("annotations").Key(corev1.AnnotationTopologyMode), mode,
			fmt.Sprintf("must match annotations[%s] when both are specified", corev1.DeprecatedAnnotationTopologyAwareHints))
	}
	if was != nil {
		serviceUpdate(e, spec, was, p)
	}
	serviceType(e, spec, p)
	servicePorts(e, spec, p.Child("ports"))
	validate.Labels(e, spec.Selector, p.Child("selector"))
	validate.RequiredOneOf(e, p.Child("sessionAffinity"), spec.SessionAffinity, corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	sessionAffinity(e, spec, p.Child("sessionAffinityConfig"))
	clusterIPs(e, spec, was, p)
	externalIPs(e, spec, was, p.Child("externalIPs"))
	sourceRanges(e, s, old, p.Child("LoadBalancerSourceRanges"))

	balanced := spec.Type == corev1.ServiceTypeLoadBalancer
	const only = "may only be used when `type` is 'LoadBalancer'"
	if !balanced && spec.AllocateLoadBalancerNodePorts != nil {
		e.Forbidden(p.Child("allocateLoadBalancerNodePorts"), only)
	} else if balanced && spec.AllocateLoadBalancerNodePorts == nil {
		e.Required(validate.Root("allocateLoadBalancerNodePorts"), "")
	}
	if class := spec.LoadBalancerClass; class != nil && balanced {
		validate.LabelKey(e, *class, p.Child("loadBalancerClass"))
	} else if class != nil {
		e.Forbidden(p.Child("loadBalancerClass"), only)
	}
	traffic(e, spec, p)
}

func serviceType(e *validate.Errs, s *corev1.ServiceSpec, p *validate.Path) {
	if len(s.Ports) == 0 && !isHeadless(s) && s.Type != corev1.ServiceTypeExternalName {
		e.Required(p.Child("ports"), "")
	}
	switch s.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		if isHeadless(s) {
			e.Invalid(p.Child("clusterIPs").Index(0), s.ClusterIPs[0], fmt.Sprintf("may not be set to 'None' for %s services", s.Type))
		}
	case corev1.ServiceTypeExternalName:
		const why = "may not be set for ExternalName services"
		if len(s.ClusterIPs) > 0 {
			e.Forbidden(p.Child("clusterIPs"), why)
		}
		if len(s.IPFamilies) > 0 {
			e.Forbidden(p.Child("ipFamilies"), why)
		}
		if s.IPFamilyPolicy != nil {
			e.Forbidden(p.Child("ipFamilyPolicy"), why)
		}
		if name := strings.TrimSuffix(s.ExternalName, "."); name != "" {
			requiredSubdomain(e, name, p.Child("externalName"))
		} else {
			e.Required(p.Child("externalName"), "")
		}
	}
	validate.RequiredOneOf(e, p.Child("type"), s.Type, corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)
}

func servicePorts(e *validate.Errs, s *corev1.ServiceSpec, p *validate.Path) {
	type pair struct {
		protocol corev1.Protocol
		port     int32
	}
	var names seen[string]
	var ports, nodePorts seen[pair]
	for i := range s.Ports {
		port, at := &s.Ports[i], p.Index(i)
		if port.Name != "" {
			label(e, port.Name, at.Child("name"))
			if !names.add(port.Name) {
				e.Duplicate(at.Child("name"), port.Name)
			}
		} else if len(s.Ports) > 1 {
			e.Required(at.Child("name"), "")
		}
		validate.Port(e, port.Port, at.Child("port"))
		protocol(e, port.Protocol, at.Child("protocol"))
		validate.PortOrName(e, port.TargetPort, at.Child("targetPort"))
		if port.AppProtocol != nil {
			validate.LabelKey(e, *port.AppProtocol, at.Child("appProtocol"))
		}
		if port.NodePort != 0 && s.Type == corev1.ServiceTypeClusterIP {
			e.Forbidden(at.Child("nodePort"), "may not be used when `type` is 'ClusterIP'")
		}
		if port.NodePort != 0 && !nodePorts.add(pair{port.Protocol, port.NodePort}) {
			e.Duplicate(at.Child("nodePort"), port.NodePort)
		}
		if !ports.add(pair{port.Protocol, port.Port}) {
			e.Duplicate(at, corev1.ServicePort{Protocol: port.Protocol, Port: port.Port})
		}
	}
}

func sessionAffinity(e *validate.Errs, s *corev1.ServiceSpec, p *validate.Path) {
	c := s.SessionAffinityConfig
	const why = "when session affinity type is ClientIP"
	switch {
	case s.SessionAffinity == corev1.ServiceAffinityNone && c != nil:
		e.Forbidden(p, "must not be set when session affinity is None")
	case s.SessionAffinity != corev1.ServiceAffinityClientIP:
	case c == nil:
		e.Required(p, why)
	case c.ClientIP == nil:
		e.Required(p.Child("clientIP"), why)
	case c.ClientIP.TimeoutSeconds == nil:
		e.Required(p.Child("clientIP").Child("timeoutSeconds"), why)
	default:
		if n := *c.ClientIP.TimeoutSeconds; n <= 0 || n > 86400 {
			e.Invalid(p.Child("clientIP").Child("timeoutSeconds"), n, "must be greater than 0 and less than 86400")
		}
	}
}

func externalIPs(e *validate.Errs, s, old *corev1.ServiceSpec, p *validate.Path) {
	var was []string
	if old != nil {
		was = old.ExternalIPs
	}
	for i, a := range s.ExternalIPs {
		n := e.Len()
		ip(e, a, was, p.Index(i))
		if e.Len() == n {
			EndpointIP(e, a, p.Index(i))
		}
	}
}

// EndpointIP: an address that can be sent to from anywhere in the cluster.
func EndpointIP(e *validate.Errs, s string, p *validate.Path) {
	a := netutils.ParseIPSloppy(s)
	if a == nil {
		e.Invalid(p, s, "must be a valid IP address")
		return
	}
	if a.IsUnspecified() {
		e.Invalid(p, s, fmt.Sprintf("may not be unspecified (%v)", s))
	}
	if a.IsLoopback() {
		e.Invalid(p, s, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
	}
	if a.IsLinkLocalUnicast() {
		e.Invalid(p, s, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
	}
	if a.IsLinkLocalMulticast() {
		e.Invalid(p, s, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
	}
}

func sourceRanges(e *validate.Errs, s, old *corev1.Service, p *validate.Path) {
	const only = "may only be used when `type` is 'LoadBalancer'"
	if ranges := s.Spec.LoadBalancerSourceRanges; len(ranges) > 0 {
		if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
			e.Forbidden(p, only)
		}
		var was []string
		if old != nil {
			for _, r := range old.Spec.LoadBalancerSourceRanges {
				was = append(was, strings.TrimSpace(r))
			}
		}
		for i, r := range ranges {
			cidr(e, strings.TrimSpace(r), was, p.Index(i))
		}
		return
	}
	v, ok := s.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]
	if !ok {
		return
	}
	at := validate.Root("metadata").Child("annotations").Key(corev1.AnnotationLoadBalancerSourceRangesKey)
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		e.Forbidden(at, only)
	}
	if old != nil && old.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey] == v || strings.TrimSpace(v) == "" {
		return
	}
	for r := range strings.SplitSeq(v, ",") {
		cidr(e, strings.TrimSpace(r), nil, at)
	}
}

func traffic(e *validate.Errs, s *corev1.ServiceSpec, p *validate.Path) {
	at := p.Child("externalTrafficPolicy")
	if isExternal(s) {
		validate.RequiredOneOf(e, at, s.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)
	} else if s.ExternalTrafficPolicy != "" {
		e.Invalid(at, s.ExternalTrafficPolicy, "may only be set for externally-accessible services")
	}
	at = p.Child("healthCheckNodePort")
	switch n := s.HealthCheckNodePort; {
	case !NeedsHealthCheckPort(s) && n != 0:
		e.Invalid(at, n, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'")
	case NeedsHealthCheckPort(s) && n == 0:
		e.Required(at, "")
	case n != 0:
		validate.Port(e, n, at)
	}
	at = p.Child("internalTrafficPolicy")
	if s.InternalTrafficPolicy != nil {
		validate.OneOf(e, at, *s.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)
	} else if usesClusterIP(s) {
		e.Required(at, "")
	}
	if s.TrafficDistribution != nil {
		validate.OneOf(e, p.Child("trafficDistribution"), *s.TrafficDistribution,
			corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode)
	}
}

// clusterIPs checks addresses, families and policy against each other.
func clusterIPs(e *validate.Errs, s, old *corev1.ServiceSpec, p *validate.Path) {
	if s.Type == corev1.ServiceTypeExternalName {
		return
	}
	at := p.Child("clusterIPs")
	switch {
	case s.ClusterIP != "" && len(s.ClusterIPs) == 0:
		e.Required(at, "")
	case s.ClusterIP != "" && s.ClusterIPs[0] != s.ClusterIP:
		e.Invalid(at, s.ClusterIPs, "first value must match `clusterIP`")
	case s.ClusterIP == "" && len(s.ClusterIPs) != 0:
		e.Invalid(at, s.ClusterIPs, "must be empty when `clusterIP` is not specified")
	}
	var families seen[corev1.IPFamily]
	for i, f := range s.IPFamilies {
		validate.OneOf(e, p.Child("ipFamilies").Index(i), f, corev1.IPv4Protocol, corev1.IPv6Protocol)
		if !families.add(f) {
			e.Duplicate(p.Child("ipFamilies").Index(i), f)
		}
	}
	if s.IPFamilyPolicy != nil {
		validate.OneOf(e, p.Child("ipFamilyPolicy"), *s.IPFamilyPolicy, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack)
	}
	var was []string
	if old != nil {
		was = old.ClusterIPs
	}
	bad := false
	for i, a := range s.ClusterIPs {
		n := e.Len()
		if i == 0 && a == corev1.ClusterIPNone {
			if len(s.ClusterIPs) > 1 {
				e.Invalid(at, s.ClusterIPs, "'None' must be the first and only value")
			}
		} else {
			ip(e, a, was, at.Index(i))
		}
		bad = bad || e.Len() > n
	}
	if len(s.ClusterIPs) > 2 {
		e.Invalid(at, s.ClusterIPs, "may only hold up to 2 values")
	}
	if bad {
		return
	}
	if len(s.ClusterIPs) > 1 {
		dual, err := netutils.IsDualStackIPStrings(s.ClusterIPs)
		if err != nil {
			e.Add(field.InternalError(at.Field(), fmt.Errorf("failed to check for dual stack with error:%v", err)))
		}
		if !dual {
			e.Invalid(at, s.ClusterIPs, "may specify no more than one IP for each IP family")
		}
	}
	for i, a := range s.ClusterIPs {
		if isHeadless(s) || i >= len(s.IPFamilies) {
			break
		}
		six := netutils.IsIPv6String(a)
		if s.IPFamilies[i] == corev1.IPv4Protocol && six {
			e.Invalid(at.Index(i), a, fmt.Sprintf("expected an IPv4 value as indicated by `ipFamilies[%v]`", i))
		} else if s.IPFamilies[i] == corev1.IPv6Protocol && !six {
			e.Invalid(at.Index(i), a, fmt.Sprintf("expected an IPv6 value as indicated by `ipFamilies[%v]`", i))
		}
	}
}

// serviceUpdate: the first address and family stay; a second one may come, and
// go if the policy says so.
func serviceUpdate(e *validate.Errs, s, old *corev1.ServiceSpec, p *validate.Path) {
	if s.Type == corev1.ServiceTypeLoadBalancer && old.Type == corev1.ServiceTypeLoadBalancer && !samePtr(s.LoadBalancerClass, old.LoadBalancerClass) {
		e.Invalid(p.Child("loadBalancerClass"), s.LoadBalancerClass, "may not change once set")
	}
	if NeedsHealthCheckPort(s) && NeedsHealthCheckPort(old) && s.HealthCheckNodePort != old.HealthCheckNodePort {
		e.Forbidden(p.Child("healthCheckNodePort"), validate.IsImmutable)
	}
	if s.Type == corev1.ServiceTypeExternalName || old.Type == corev1.ServiceTypeExternalName {
		return
	}
	single := s.IPFamilyPolicy != nil && *s.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack
	at := p.Child("clusterIPs")
	now, was := s.ClusterIPs, old.ClusterIPs
	switch {
	case isHeadless(s) && isHeadless(old):
	case len(now) == len(was):
		for i := range was {
			if now[i] != was[i] {
				e.Invalid(at.Index(i), now, "may not change once set")
			}
		}
	default:
		if len(now) == 0 {
			e.Invalid(at.Index(0), now, "primary clusterIP can not be unset")
		} else if len(was) > 0 && now[0] != was[0] {
			e.Invalid(at.Index(0), now, "may not change once set")
		}
		if len(now) == 1 && len(was) > 1 && !single {
			e.Invalid(p.Child("ipFamilyPolicy"), s.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary clusterIP")
		}
	}
	if isHeadless(s) || isHeadless(old) {
		return
	}
	first := p.Child("ipFamilies").Index(0)
	fam, had := s.IPFamilies, old.IPFamilies
	switch {
	case len(fam) == len(had):
		for i := range had {
			if fam[i] != had[i] {
				e.Invalid(first, fam, "may not change once set")
			}
		}
	default:
		if len(fam) < len(had) && len(now) == 0 {
			e.Invalid(first, fam, "primary ipFamily can not be unset")
		}
		if len(fam) > 0 && len(had) > 0 && fam[0] != had[0] {
			e.Invalid(first, now, "may not change once set")
		}
		if len(fam) == 1 && len(had) > 1 && !single {
			e.Invalid(p.Child("ipFamilyPolicy"), s.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary ipFamily")
		}
	}
}

func loadBalancerStatus(e *validate.Errs, s, old *corev1.Service) {
	at := validate.Root("status").Child("loadBalancer").Child("ingress")
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		if len(s.Status.LoadBalancer.Ingress) > 0 {
			e.Forbidden(at, "may only be used when `spec.type` is 'LoadBalancer'")
		}
		return
	}
	var was []string
	for _, in := range old.Status.LoadBalancer.Ingress {
		was = append(was, in.IP)
	}
	for i := range s.Status.LoadBalancer.Ingress {
		in, at := &s.Status.LoadBalancer.Ingress[i], at.Index(i)
		if in.IP != "" {
			ip(e, in.IP, was, at.Child("ip"))
		}
		switch {
		case in.IPMode == nil && in.IP != "":
			e.Required(at.Child("ipMode"), "must be specified when `ip` is set")
		case in.IPMode != nil && in.IP == "":
			e.Forbidden(at.Child("ipMode"), "may not be specified when `ip` is not set")
		case in.IPMode != nil:
			validate.OneOf(e, at.Child("ipMode"), *in.IPMode, corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP)
		}
		if in.Hostname != "" {
			e.Invalids(at.Child("hostname"), in.Hostname, validation.IsDNS1123Subdomain(in.Hostname))
			if netutils.ParseIPSloppy(in.Hostname) != nil {
				e.Invalid(at.Child("hostname"), in.Hostname, "must be a DNS name, not an IP address")
			}
		}
	}
}
