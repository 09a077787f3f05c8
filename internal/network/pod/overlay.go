package pod

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// readLinks reads the host's links that are up, but for lo and the overlay.
func readLinks(overlay string) ([]Link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	var out []Link
	for _, l := range all {
		a := l.Attrs()
		if a.Flags&net.FlagLoopback != 0 || a.Flags&net.FlagUp == 0 || a.Name == overlay {
			continue
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, err
		}
		link := Link{Index: a.Index, MTU: a.MTU}
		for _, addr := range addrs {
			if p := prefix(addr.IPNet); !p.Addr().IsLinkLocalUnicast() {
				link.Nets = append(link.Nets, p)
			}
		}
		if len(link.Nets) > 0 {
			out = append(out, link)
		}
	}
	return out, nil
}

// tunnels makes the overlay device and teaches it where the peers are, or
// removes it when no peer needs it.
func (d *Driver) tunnels(want Desired, p routePlan) error {
	link, err := netlink.LinkByName(d.overlay())
	var missing netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &missing) {
		return err
	}
	if len(p.Tunnels) == 0 {
		if err == nil {
			return netlink.LinkDel(link)
		}
		return nil
	}
	if len(want.Addrs) == 0 {
		return errors.New("this node has no internal address yet")
	}
	device := &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: d.overlay(), MTU: p.Link.MTU - overlayOverhead, HardwareAddr: overlayMAC(d.cfg.Cluster, d.cfg.Node)},
		VxlanId:   overlayID(d.cfg.Cluster), SrcAddr: want.Addrs[0].AsSlice(), Port: overlayPort, Learning: false,
	}
	if old, is := link.(*netlink.Vxlan); err == nil && (!is || old.VxlanId != device.VxlanId || !old.SrcAddr.Equal(device.SrcAddr) || old.MTU != device.MTU) {
		if err := netlink.LinkDel(link); err != nil {
			return err
		}
		link = nil
	} else if err != nil {
		link = nil
	}
	if link == nil {
		if err := netlink.LinkAdd(device); err != nil {
			return fmt.Errorf("VXLAN device %s (nodes that are not on one network need the kernel's vxlan module): %w", d.overlay(), err)
		}
		if link, err = netlink.LinkByName(d.overlay()); err != nil {
			return err
		}
	}
	for _, c := range want.PodCIDRs {
		a := c.Masked().Addr()
		if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipnet(netip.PrefixFrom(a, a.BitLen()))}); err != nil {
			return err
		}
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	return d.neighbours(link.Attrs().Index, p.Tunnels)
}

// neighbours writes, for each peer, its device's address (as ARP would find it)
// and the node behind it, and removes those of peers that are gone.
func (d *Driver) neighbours(link int, tunnels []tunnel) error {
	want := map[string]netlink.Neigh{}
	for _, t := range tunnels {
		n := netlink.Neigh{LinkIndex: link, State: netlink.NUD_PERMANENT, IP: t.Via.AsSlice(), HardwareAddr: t.MAC}
		f := netlink.Neigh{LinkIndex: link, State: netlink.NUD_PERMANENT, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, IP: t.Node.AsSlice(), HardwareAddr: t.MAC}
		want[neighKey(n)], want[neighKey(f)] = n, f
	}
	var errs []error
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6, unix.AF_BRIDGE} {
		have, err := netlink.NeighList(link, family)
		if err != nil {
			return err
		}
		for _, h := range have {
			if h.State&netlink.NUD_PERMANENT == 0 || h.HardwareAddr.String() == "00:00:00:00:00:00" || h.IP == nil {
				continue
			}
			if family == unix.AF_BRIDGE {
				h.Family = family
			} else {
				h.Family = 0
			}
			if _, ok := want[neighKey(h)]; ok {
				delete(want, neighKey(h))
			} else {
				h.Family = family
				errs = append(errs, netlink.NeighDel(&h))
			}
		}
	}
	for _, n := range want {
		if err := netlink.NeighSet(&n); err != nil {
			errs = append(errs, fmt.Errorf("neighbour %s: %w", n.IP, err))
		}
	}
	return errors.Join(errs...)
}

func neighKey(n netlink.Neigh) string { return fmt.Sprint(n.Family, n.IP, n.HardwareAddr) }
