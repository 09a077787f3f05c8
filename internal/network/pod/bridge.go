package pod

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// A node's address may be on a bridge, with other nodes on its ports. Where the
// kernel shows bridged frames to the IP hooks (br_netfilter), a packet for a
// NodePort is translated as its frame comes in; if its endpoint lies behind the
// bridge again, the frame is not routed but bridged on, and a bridge sends
// nothing back out of the port it came from: who is on the node of the endpoint
// times out. A port in hairpin mode does send it back.

// BridgePort readies a port of a bridge that a node has its address on. Use it
// for ports into network namespaces alone: what a port into a real network
// reflects would confuse the switches there.
func BridgePort(port netlink.Link) error {
	if err := netlink.LinkSetHairpin(port, true); err != nil {
		return fmt.Errorf("hairpin mode of bridge port %s: %w", port.Attrs().Name, err)
	}
	return nil
}

// warnBridge says which ports of the node's own bridge are not ready. They are
// not ours, so they are left as they are.
func (d *Driver) warnBridge(p routePlan) {
	if !slices.ContainsFunc(p.Direct, func(r direct) bool { return r.Link == p.Link.Index }) {
		return // no node is behind it
	}
	if ports := stuckPorts(p.Link.Index); len(ports) > 0 && !slices.Equal(ports, d.stuck) {
		d.cfg.Log.Warn("nodes behind these bridge ports cannot reach their own pods by a NodePort of this node: "+
			"write 0 to net.bridge.bridge-nf-call-iptables, or turn hairpin mode of the ports on", "ports", ports)
		d.stuck = ports
	}
}

// stuckPorts are the ports of a bridge that translated frames cannot go back
// through, sorted. None if the link is no bridge or bridged frames are not translated.
func stuckPorts(bridge int) []string {
	if on, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables"); err != nil || strings.TrimSpace(string(on)) == "0" {
		return nil
	}
	if link, err := netlink.LinkByIndex(bridge); err != nil || link.Type() != "bridge" {
		return nil
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil
	}
	var stuck []string
	for _, l := range links {
		if l.Attrs().MasterIndex != bridge {
			continue
		}
		if info, err := netlink.LinkGetProtinfo(l); err == nil && !info.Hairpin {
			stuck = append(stuck, l.Attrs().Name)
		}
	}
	slices.Sort(stuck)
	return stuck
}
