package cni

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/proa-dev/proa/internal/network/pod/ipam"
)

// pair of network interfaces, one on the node and one in the pod. All but the MTU
// follows from the owner, so that the node's end is found again by whoever knows it.
type pair struct {
	node, pod       string
	nodeMAC, podMAC net.HardwareAddr
	mtu             int
}

func newPair(o ipam.Owner, mtu int) pair {
	h := fnv.New128a()
	h.Write([]byte(o.String()))
	sum := h.Sum(nil)
	const digits = "0123456789abcdefghijklmnopqrstuv"
	node := []byte("veth")
	for _, b := range sum[5:] { // 15 bytes is all a name can have
		node = append(node, digits[b%32])
	}
	mac := func(b []byte) net.HardwareAddr { // one that nobody has been assigned
		return net.HardwareAddr{b[0]&^3 | 2, b[1], b[2], b[3], b[4], b[5]}
	}
	return pair{node: string(node), pod: o.Interface, nodeMAC: mac(sum), podMAC: mac(sum[8:]), mtu: mtu}
}

// attach makes the pair and gives the pod its addresses and routes. After an error
// nothing of it is left.
func (p pair) attach(path string, ips []IP) (err error) {
	file, pod, err := enter(path)
	if err != nil {
		return err
	}
	defer file.Close()
	defer pod.Close()
	node, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer node.Close()
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: p.node, MTU: p.mtu, HardwareAddr: p.nodeMAC, Flags: net.FlagUp, TxQLen: -1},
		PeerName:  p.pod, PeerHardwareAddr: p.podMAC, PeerNamespace: netlink.NsFd(file.Fd()), PeerMTU: uint32(p.mtu),
	}
	if err = node.LinkAdd(veth); errors.Is(err, unix.EEXIST) {
		// The one on the node is a leftover of a call for this very pod; one in the
		// pod is another network's.
		if err = p.detach(""); err == nil {
			err = node.LinkAdd(veth)
		}
	}
	if err != nil {
		return fmt.Errorf("make interfaces %s on the node and %s in the pod: %w", p.node, p.pod, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.detach(""))
		}
	}()
	if err := p.inside(pod, file, ips); err != nil {
		return fmt.Errorf("interface %s in the pod: %w", p.pod, err)
	}
	for _, ip := range ips {
		// Each pod's interface has the gateway's address: it is asked for only there.
		gateway := &netlink.Addr{IPNet: single(ip.Gateway), Flags: unix.IFA_F_NODAD}
		route := &netlink.Route{LinkIndex: veth.Index, Dst: single(ip.Address.Addr()), Scope: netlink.SCOPE_LINK}
		if err := errors.Join(node.AddrAdd(veth, gateway), node.RouteReplace(route)); err != nil {
			return fmt.Errorf("interface %s on the node: %w", p.node, err)
		}
	}
	return nil
}

// inside the pod: all goes to the gateway, which is the one neighbour.
func (p pair) inside(pod *netlink.Handle, namespace *os.File, ips []IP) error {
	link, err := pod.LinkByName(p.pod)
	if err != nil {
		return err
	}
	for _, ip := range ips {
		if ip.Address.Addr().Is6() {
			if err := within(namespace, func() error { return allowIPv6(p.pod) }); err != nil {
				return err
			}
		}
	}
	if err := pod.LinkSetUp(link); err != nil {
		return err
	}
	for _, ip := range ips {
		index, gw := link.Attrs().Index, ip.Gateway.AsSlice()
		if err := pod.AddrAdd(link, &netlink.Addr{IPNet: single(ip.Address.Addr()), Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("address %s: %w", ip.Address, err)
		}
		if err := pod.RouteAdd(&netlink.Route{LinkIndex: index, Dst: single(ip.Gateway), Scope: netlink.SCOPE_LINK}); err != nil {
			return fmt.Errorf("route to %s: %w", ip.Gateway, err)
		}
		if err := pod.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gw}); err != nil {
			return fmt.Errorf("route via %s: %w", ip.Gateway, err)
		}
	}
	return nil
}

// allowIPv6 on an interface, where the node's default forbids it.
func allowIPv6(link string) error {
	for file, value := range map[string]string{"disable_ipv6": "0", "keep_addr_on_down": "1"} {
		path := "/proc/sys/net/ipv6/conf/" + link + "/" + file
		if err := os.WriteFile(path, []byte(value), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// detach removes the pair. The node's end takes the pod's with it; without one, as
// other plugins name theirs differently, the pod's end is looked for in its namespace.
func (p pair) detach(path string) error {
	node, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer node.Close()
	found, err := unlink(node, p.node)
	if found || err != nil || path == "" {
		return err
	}
	file, pod, err := enter(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	defer pod.Close()
	_, err = unlink(pod, p.pod)
	return err
}

func unlink(h *netlink.Handle, name string) (found bool, err error) {
	link, err := h.LinkByName(name)
	if err == nil {
		err = h.LinkDel(link)
	}
	if gone := (netlink.LinkNotFoundError{}); errors.As(err, &gone) || errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return true, fmt.Errorf("remove interface %s: %w", name, err)
	}
	return true, nil
}

// verify that the pair is there, and that the pod has the addresses.
func (p pair) verify(path string, own []netip.Addr) error {
	file, pod, err := enter(path)
	if err != nil {
		return err
	}
	defer file.Close()
	defer pod.Close()
	if _, err := netlink.LinkByName(p.node); err != nil {
		return fmt.Errorf("interface %s on the node: %w", p.node, err)
	}
	link, err := pod.LinkByName(p.pod)
	if err != nil {
		return fmt.Errorf("interface %s in the pod: %w", p.pod, err)
	}
	have, err := pod.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, a := range own {
		found := false
		for _, h := range have {
			found = found || h.IP.Equal(a.AsSlice())
		}
		if !found {
			return fmt.Errorf("interface %s in the pod has lost its address %s", p.pod, a)
		}
		if r, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Dst: single(a)}, netlink.RT_FILTER_DST); err != nil || len(r) == 0 {
			return fmt.Errorf("the node has lost its route to %s (%v)", a, err)
		}
	}
	return nil
}

// enter a network namespace with a socket, while the thread stays where it is.
func enter(path string) (*os.File, *netlink.Handle, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("the pod's network namespace: %w", err)
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(file.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		_ = file.Close()
		return nil, nil, fmt.Errorf("the pod's network namespace %s: %w", path, err)
	}
	return file, h, nil
}

// within a network namespace, on a thread that ends with it.
func within(namespace *os.File, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}
