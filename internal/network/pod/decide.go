package pod

import (
	"cmp"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Decide says what the node called self needs of the pod network.
func Decide(nodes []*corev1.Node, self string) Desired {
	var d Desired
	for _, n := range nodes {
		var addrs []netip.Addr
		for _, a := range n.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
				addrs = append(addrs, ip)
			}
		}
		cidrs := PodCIDRs(n)
		switch {
		case n.Name == self:
			d.PodCIDRs, d.Addrs = cidrs, addrs
		case len(cidrs) > 0 && len(addrs) > 0:
			d.Peers = append(d.Peers, Peer{Name: n.Name, PodCIDRs: cidrs, Addrs: addrs})
		}
	}
	slices.SortFunc(d.Peers, func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
	return d
}

// Link is an interface of the host.
type Link struct {
	Index int
	MTU   int
	Nets  []netip.Prefix // its addresses with their prefix lengths
}

// routePlan is what the kernel shall hold.
type routePlan struct {
	Direct  []direct
	Tunnels []tunnel
	// Link carries the traffic between nodes; its MTU is what pods start from.
	Link Link
}

// direct is a route over a link both nodes are on.
type direct struct {
	Dst  netip.Prefix
	Via  netip.Addr
	Link int
}

// tunnel is a route through the overlay.
type tunnel struct {
	Dst  netip.Prefix
	Via  netip.Addr       // the peer's address inside the overlay: the first of Dst
	MAC  net.HardwareAddr // of the peer's overlay device
	Node netip.Addr       // where the encapsulated packet goes
}

// plan finds for every peer the way to it.
func plan(cluster string, d Desired, links []Link) routePlan {
	var p routePlan
	p.Link = linkOf(d.Addrs, links)
	for _, peer := range d.Peers {
		for _, dst := range peer.PodCIDRs {
			if via, link, ok := onLink(peer.Addrs, dst.Addr().Is6(), links); ok {
				p.Direct = append(p.Direct, direct{dst, via, link})
				continue
			}
			p.Tunnels = append(p.Tunnels, tunnel{dst, dst.Masked().Addr(), overlayMAC(cluster, peer.Name), peer.Addrs[0]})
		}
	}
	return p
}

// onLink finds an address of the family that is a neighbour of ours.
func onLink(addrs []netip.Addr, v6 bool, links []Link) (netip.Addr, int, bool) {
	for _, a := range addrs {
		if a.Is6() != v6 {
			continue
		}
		for _, l := range links {
			for _, n := range l.Nets {
				if n.Contains(a) && n.Addr() != a && !n.IsSingleIP() {
					return a, l.Index, true
				}
			}
		}
	}
	return netip.Addr{}, 0, false
}

// linkOf finds the link that has one of the addresses.
func linkOf(addrs []netip.Addr, links []Link) Link {
	for _, a := range addrs {
		for _, l := range links {
			if slices.ContainsFunc(l.Nets, func(n netip.Prefix) bool { return n.Addr() == a }) {
				return l
			}
		}
	}
	return Link{MTU: 1500}
}

// overlayMAC of a node's overlay device: every node can work it out.
func overlayMAC(cluster, node string) net.HardwareAddr {
	h := fnv.New64a()
	h.Write([]byte(cluster + "/" + node))
	sum := h.Sum(nil)
	return net.HardwareAddr{0x02, sum[0], sum[1], sum[2], sum[3], sum[4]}
}

// overlayID is the VXLAN network identifier of a cluster.
func overlayID(cluster string) int {
	h := fnv.New32a()
	h.Write([]byte(cluster))
	return int(h.Sum32() & (1<<24 - 1))
}
