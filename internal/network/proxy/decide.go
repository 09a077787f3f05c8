package proxy

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Node is what a decision has to know of the node it is made for.
type Node struct {
	Name string
	Zone string // label topology.kubernetes.io/zone, "" = unknown
}

// Plan is what one owner (a Service or a pod with host ports) wants of the node.
type Plan struct {
	Frontends []Frontend
	HostPorts []HostPort
	// Hairpin are the addresses on this node that may be sent their own traffic.
	Hairpin []netip.Addr
	// HealthPort is the healthCheckNodePort, 0 = none.
	HealthPort uint16
	// LocalReady is how many endpoints on this node are ready, for HealthPort.
	LocalReady int
}

// Frontend is an address clients connect to, and where they end up.
type Frontend struct {
	Addr     netip.Addr // invalid = every address of the node (a NodePort) of family IPv6
	IPv6     bool
	Protocol corev1.Protocol
	Port     uint16

	// Endpoints get the traffic. Empty: refused, or dropped if Drop.
	Endpoints []netip.AddrPort
	// Inside get the traffic that comes from this node and its pods, if Split
	// (externalTrafficPolicy Local cuts nobody inside off).
	Inside []netip.AddrPort
	Split  bool
	Drop   bool
	// Masquerade hides the client from the endpoint, so that answers come back here.
	Masquerade bool
	// Sticky > 0: a client keeps its endpoint for that long after its last connection.
	Sticky time.Duration
	// Sources may connect; nil = everybody.
	Sources []netip.Prefix
}

// HostPort is a port of the node that leads to a pod on it.
type HostPort struct {
	Addr     netip.Addr // invalid = every address
	Protocol corev1.Protocol
	Port     uint16
	To       netip.AddrPort
}

// Decide says what svc needs on node. all are the slices of the Service, in any order.
// The plan is empty for Services that need no proxy (headless, ExternalName,
// served by another proxy).
func Decide(svc *corev1.Service, all []*discoveryv1.EndpointSlice, node Node) Plan {
	var plan Plan
	if svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.ClusterIP == "" || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		return plan
	}
	if _, other := svc.Labels["service.kubernetes.io/service-proxy-name"]; other {
		return plan
	}
	clusterIPs := svc.Spec.ClusterIPs
	if len(clusterIPs) == 0 {
		clusterIPs = []string{svc.Spec.ClusterIP}
	}
	hairpin := map[netip.Addr]bool{}
	ready := map[netip.Addr]bool{}
	for _, s := range clusterIPs {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			continue
		}
		for i := range svc.Spec.Ports {
			eps := endpointsOf(&svc.Spec.Ports[i], all, ip.Is6())
			plan.Frontends = append(plan.Frontends, frontends(svc, &svc.Spec.Ports[i], ip, eps, node)...)
			for _, e := range eps {
				if e.node == node.Name {
					hairpin[e.addr.Addr()] = true
					if e.ready {
						ready[e.addr.Addr()] = true
					}
				}
			}
		}
	}
	for ip := range hairpin {
		plan.Hairpin = append(plan.Hairpin, ip)
	}
	slices.SortFunc(plan.Hairpin, netip.Addr.Compare)
	if externalLocal(svc) && svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.Spec.HealthCheckNodePort > 0 {
		plan.HealthPort, plan.LocalReady = uint16(svc.Spec.HealthCheckNodePort), len(ready)
	}
	return plan
}

// frontends are those of one port in the family of clusterIP.
func frontends(svc *corev1.Service, port *corev1.ServicePort, clusterIP netip.Addr, eps []endpoint, node Node) []Frontend {
	v6 := clusterIP.Is6()
	cluster := choose(nearby(eps, node), func(endpoint) bool { return true })
	if len(cluster) == 0 {
		cluster = choose(eps, func(endpoint) bool { return true })
	}
	local := choose(eps, func(e endpoint) bool { return e.node == node.Name })

	base := Frontend{IPv6: v6, Protocol: port.Protocol, Port: uint16(port.Port)}
	if base.Protocol == "" {
		base.Protocol = corev1.ProtocolTCP
	}
	if svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		base.Sticky = time.Duration(corev1.DefaultClientIPServiceAffinitySeconds) * time.Second
		if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			base.Sticky = time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
		}
	}

	inside := base
	inside.Addr, inside.Endpoints = clusterIP, cluster
	if p := svc.Spec.InternalTrafficPolicy; p != nil && *p == corev1.ServiceInternalTrafficPolicyLocal {
		inside.Endpoints, inside.Drop = local, len(cluster) > 0
	}
	out := []Frontend{inside}

	outside := base
	if externalLocal(svc) {
		outside.Endpoints, outside.Inside, outside.Split = local, cluster, len(cluster) > 0
		outside.Drop = len(cluster) > 0
	} else {
		outside.Endpoints, outside.Masquerade = cluster, true
	}
	for _, s := range svc.Spec.ExternalIPs {
		if ip, err := netip.ParseAddr(s); err == nil && ip.Is6() == v6 {
			f := outside
			f.Addr = ip
			out = append(out, f)
		}
	}
	if svc.Spec.Type == corev1.ServiceTypeLoadBalancer {
		for _, in := range svc.Status.LoadBalancer.Ingress {
			ip, err := netip.ParseAddr(in.IP)
			if err != nil || ip.Is6() != v6 || in.IPMode != nil && *in.IPMode == corev1.LoadBalancerIPModeProxy {
				continue
			}
			f := outside
			f.Addr = ip
			f.Sources = sources(svc, ip)
			out = append(out, f)
		}
	}
	if port.NodePort > 0 && svc.Spec.Type != corev1.ServiceTypeClusterIP {
		f := outside
		f.Port = uint16(port.NodePort)
		out = append(out, f)
	}
	return out
}

// sources are the load balancer's source ranges in the family of ip, and ip
// itself: a load balancer on this node connects from its own address.
func sources(svc *corev1.Service, ip netip.Addr) []netip.Prefix {
	if len(svc.Spec.LoadBalancerSourceRanges) == 0 {
		return nil
	}
	out := []netip.Prefix{netip.PrefixFrom(ip, ip.BitLen())}
	for _, s := range svc.Spec.LoadBalancerSourceRanges {
		if p, err := netip.ParsePrefix(s); err == nil && p.Addr().Is6() == ip.Is6() {
			if p.Bits() == 0 {
				return nil
			}
			out = append(out, p.Masked())
		}
	}
	return disjoint(out)
}

// disjoint drops the prefixes that lie in another one: interval sets refuse overlaps.
func disjoint(in []netip.Prefix) []netip.Prefix {
	slices.SortFunc(in, func(a, b netip.Prefix) int {
		return cmp.Or(cmp.Compare(a.Bits(), b.Bits()), a.Addr().Compare(b.Addr()))
	})
	var out []netip.Prefix
	for _, p := range in {
		if !slices.ContainsFunc(out, func(o netip.Prefix) bool { return o.Overlaps(p) }) {
			out = append(out, p)
		}
	}
	return out
}

func externalLocal(svc *corev1.Service) bool {
	return svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// endpoint is one address of a slice with what matters for choosing it.
type endpoint struct {
	addr         netip.AddrPort
	node         string
	ready        bool
	lastResort   bool // terminating, but still serving
	zones, nodes []string
}

// endpointsOf finds the endpoints of a Service port in one family, each address once, sorted.
func endpointsOf(port *corev1.ServicePort, all []*discoveryv1.EndpointSlice, v6 bool) []endpoint {
	family, protocol := discoveryv1.AddressTypeIPv4, cmp.Or(port.Protocol, corev1.ProtocolTCP)
	if v6 {
		family = discoveryv1.AddressTypeIPv6
	}
	byAddr := map[netip.AddrPort]endpoint{}
	for _, slice := range all {
		if slice.AddressType != family || slice.DeletionTimestamp != nil {
			continue
		}
		for i := range slice.Ports {
			p := &slice.Ports[i]
			if p.Port == nil || deref(p.Name, "") != port.Name || deref(p.Protocol, corev1.ProtocolTCP) != protocol {
				continue
			}
			for j := range slice.Endpoints {
				e, ok := endpointOf(&slice.Endpoints[j], uint16(*p.Port))
				// The same address may be in two slices while it moves: ready wins.
				if old, twice := byAddr[e.addr]; ok && (!twice || !old.ready) {
					byAddr[e.addr] = e
				}
			}
		}
	}
	out := make([]endpoint, 0, len(byAddr))
	for _, e := range byAddr {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b endpoint) int { return a.addr.Compare(b.addr) })
	return out
}

func endpointOf(in *discoveryv1.Endpoint, port uint16) (endpoint, bool) {
	if len(in.Addresses) == 0 {
		return endpoint{}, false
	}
	ip, err := netip.ParseAddr(in.Addresses[0])
	if err != nil {
		return endpoint{}, false
	}
	c := in.Conditions
	e := endpoint{addr: netip.AddrPortFrom(ip, port), node: deref(in.NodeName, ""), ready: deref(c.Ready, true)}
	e.lastResort = !e.ready && deref(c.Serving, e.ready) && deref(c.Terminating, false)
	if in.Hints != nil {
		for _, z := range in.Hints.ForZones {
			e.zones = append(e.zones, z.Name)
		}
		for _, n := range in.Hints.ForNodes {
			e.nodes = append(e.nodes, n.Name)
		}
	}
	return e, e.ready || e.lastResort
}

// nearby keeps the ready endpoints hinted for this node or zone. Hints count
// only when every ready endpoint has them and one is for us; a node hint goes
// before a zone hint.
func nearby(all []endpoint, node Node) []endpoint {
	hinted := func(mine string, of func(endpoint) []string) []endpoint {
		var out []endpoint
		for _, e := range all {
			if !e.ready {
				continue
			}
			if len(of(e)) == 0 {
				return nil
			}
			if slices.Contains(of(e), mine) {
				out = append(out, e)
			}
		}
		return out
	}
	if out := hinted(node.Name, func(e endpoint) []string { return e.nodes }); len(out) > 0 {
		return out
	}
	if node.Zone != "" {
		if out := hinted(node.Zone, func(e endpoint) []string { return e.zones }); len(out) > 0 {
			return out
		}
	}
	return all
}

// choose takes the ready endpoints that may serve, or the terminating ones
// that still do when there is no ready one.
func choose(all []endpoint, may func(endpoint) bool) []netip.AddrPort {
	var ready, last []netip.AddrPort
	for _, e := range all {
		switch {
		case !may(e):
		case e.ready:
			ready = append(ready, e.addr)
		case e.lastResort:
			last = append(last, e.addr)
		}
	}
	if len(ready) == 0 {
		return last
	}
	return ready
}

// DecidePod says what the host ports of a pod on this node need.
func DecidePod(pod *corev1.Pod) Plan {
	var plan Plan
	done := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	if pod.Spec.HostNetwork || done || len(pod.Status.PodIPs) == 0 {
		return plan
	}
	for _, pip := range pod.Status.PodIPs {
		ip, err := netip.ParseAddr(pip.IP)
		if err != nil {
			continue
		}
		before := len(plan.HostPorts)
		for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for _, c := range list {
				for _, p := range c.Ports {
					host, err := netip.ParseAddr(cmp.Or(p.HostIP, "0.0.0.0"))
					if p.HostPort == 0 || err != nil || !host.IsUnspecified() && host.Is6() != ip.Is6() {
						continue
					}
					if host.IsUnspecified() {
						host = netip.Addr{}
					}
					plan.HostPorts = append(plan.HostPorts, HostPort{
						Addr: host, Protocol: cmp.Or(p.Protocol, corev1.ProtocolTCP), Port: uint16(p.HostPort),
						To: netip.AddrPortFrom(ip, uint16(p.ContainerPort)),
					})
				}
			}
		}
		if len(plan.HostPorts) > before {
			plan.Hairpin = append(plan.Hairpin, ip)
		}
	}
	return plan
}

func deref[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
