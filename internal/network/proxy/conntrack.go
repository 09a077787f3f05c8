package proxy

import (
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
)

// UDP has no end of a connection: as long as a client goes on sending, the
// kernel sends its packets where the first one went, also after that endpoint
// has gone, or into the void if there was none yet. Such entries are cut.

func datagram(in []Frontend) []Frontend {
	var out []Frontend
	for _, f := range in {
		if f.Protocol == corev1.ProtocolUDP {
			out = append(out, f)
		}
	}
	return out
}

// dropStaleUDP cuts the flows to the frontends given that lead to none of
// their endpoints of now.
func (p *Proxy) dropStaleUDP(changed []Frontend) error {
	s := staleFlows{touched: map[frontKey]bool{}, ends: map[frontKey]map[netip.AddrPort]bool{}}
	for _, f := range changed {
		s.touched[frontKey{f.Addr, f.Port}] = true
	}
	for _, plan := range p.plans {
		for _, f := range plan.Frontends {
			k := frontKey{f.Addr, f.Port}
			if f.Protocol != corev1.ProtocolUDP || !s.touched[k] {
				continue
			}
			if s.ends[k] == nil {
				s.ends[k] = map[netip.AddrPort]bool{}
			}
			for _, list := range [][]netip.AddrPort{f.Endpoints, f.Inside} {
				for _, e := range list {
					s.ends[k][e] = true
				}
			}
		}
	}
	var first error
	for _, family := range []netlink.InetFamily{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, s); err != nil && first == nil && !strings.Contains(err.Error(), "no such file") {
			first = err
		}
	}
	return first
}

// frontKey is a UDP frontend; addr is invalid for a NodePort.
type frontKey struct {
	addr netip.Addr
	port uint16
}

type staleFlows struct {
	touched map[frontKey]bool
	ends    map[frontKey]map[netip.AddrPort]bool
}

// MatchConntrackFlow says whether to cut the flow.
func (s staleFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != 17 {
		return false
	}
	to, _ := netip.AddrFromSlice(flow.Forward.DstIP)
	from, _ := netip.AddrFromSlice(flow.Reverse.SrcIP)
	to, from = to.Unmap(), from.Unmap()
	end := netip.AddrPortFrom(from, flow.Reverse.SrcPort)
	translated := from != to || flow.Reverse.SrcPort != flow.Forward.DstPort
	if k := (frontKey{to, flow.Forward.DstPort}); s.touched[k] {
		return !s.ends[k][end]
	}
	// A flow to this port of some address: ours if it was translated to an
	// endpoint, or not translated while the NodePort was not there yet.
	k := frontKey{port: flow.Forward.DstPort}
	return s.touched[k] && !s.ends[k][end] && (translated || len(s.ends[k]) > 0)
}
