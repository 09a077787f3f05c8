// Package nettest gives tests network namespaces with real traffic: nodes,
// pods and clients that vanish with the test.
package nettest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// NS is a network namespace that lives as long as the test.
type NS struct {
	dialed atomic.Uint32 // connections over UDP
	t      testing.TB
	handle netns.NsHandle
}

// New makes a namespace with lo up and forwarding on. It skips the test where
// that is not allowed.
func New(t testing.TB) *NS {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: network namespaces are made")
	}
	ns := &NS{t: t}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		h, err := netns.New()
		ns.handle = h
		done <- err
	}()
	if err := <-done; err != nil {
		t.Skipf("needs the right to make network namespaces (CAP_SYS_ADMIN): %v", err)
	}
	t.Cleanup(func() { ns.handle.Close() })
	ns.Do(func() {
		lo, err := netlink.LinkByName("lo")
		ns.must(err)
		ns.must(netlink.LinkSetUp(lo))
	})
	ns.Sysctl("net/ipv4/ip_forward", "1")
	return ns
}

// NeedNFT skips the test if there is no nft.
func NeedNFT(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft (package nftables)")
	}
}

// Do runs f in the namespace, and waits for it. What f opens stays there.
func (ns *NS) Do(f func()) {
	done := make(chan any, 1)
	go func() {
		runtime.LockOSThread()
		ok := false
		defer func() {
			if p := recover(); p != nil {
				done <- p
			} else if !ok { // f ended the test, which only its own goroutine can
				done <- failed{}
			}
		}()
		ns.must(netns.Set(ns.handle))
		f()
		ok = true
		done <- nil
	}()
	switch p := <-done; p {
	case nil:
	case failed{}:
		ns.t.FailNow()
	default:
		panic(p)
	}
}

type failed struct{}

// Path names the namespace to other programs.
func (ns *NS) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(ns.handle)) }

func (ns *NS) must(err error) {
	if err != nil {
		panic(err)
	}
}

// Sysctl writes /proc/sys/PATH of the namespace.
func (ns *NS) Sysctl(path, value string) {
	ns.Do(func() { ns.must(os.WriteFile("/proc/sys/"+path, []byte(value), 0o644)) })
}

// Run runs a command in the namespace and returns what it prints.
func (ns *NS) Run(name string, args ...string) string {
	ns.t.Helper()
	var out []byte
	var err error
	ns.Do(func() { out, err = exec.Command(name, args...).CombinedOutput() })
	if err != nil {
		ns.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Cable joins two namespaces by a veth pair with an address on each side
// ("10.0.0.1/24", "" = none).
func Cable(a, b *NS, nameA, nameB, addrA, addrB string) {
	a.Do(func() {
		a.must(netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: nameA}, PeerName: nameB, PeerNamespace: netlink.NsFd(b.handle),
		}))
	})
	for _, end := range []struct {
		ns         *NS
		name, addr string
	}{{a, nameA, addrA}, {b, nameB, addrB}} {
		end.ns.Do(func() {
			link, err := netlink.LinkByName(end.name)
			a.must(err)
			if end.addr != "" {
				addr, err := netlink.ParseAddr(end.addr)
				a.must(err)
				addr.Flags = 0x02 // IFA_F_NODAD: usable at once
				a.must(netlink.AddrAdd(link, addr))
			}
			a.must(netlink.LinkSetUp(link))
		})
	}
}

// Bridge makes a bridge with an address ("" = none).
func (ns *NS) Bridge(name, addr string) {
	ns.Do(func() {
		link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
		ns.must(netlink.LinkAdd(link))
		if addr != "" {
			a, err := netlink.ParseAddr(addr)
			ns.must(err)
			a.Flags = 0x02 // IFA_F_NODAD: usable at once
			ns.must(netlink.AddrAdd(link, a))
		}
		ns.must(netlink.LinkSetUp(link))
	})
}

// Plug joins another namespace, which gets eth0, to a port of ns's bridge.
func (ns *NS) Plug(bridge, port string, other *NS, addr string) {
	Cable(ns, other, port, "eth0", "", addr)
	ns.Do(func() {
		b, err := netlink.LinkByName(bridge)
		ns.must(err)
		p, err := netlink.LinkByName(port)
		ns.must(err)
		ns.must(netlink.LinkSetMaster(p, b))
	})
}

// Route adds a route; dst "" = default.
func (ns *NS) Route(dst, via string) {
	ns.Do(func() {
		r := &netlink.Route{Gw: net.ParseIP(via)}
		if dst != "" {
			_, n, err := net.ParseCIDR(dst)
			ns.must(err)
			r.Dst = n
		}
		ns.must(netlink.RouteAdd(r))
	})
}

// Pod joins a pod to the node as CNI's ptp does: an address of its own, the
// node as gateway, a host route back.
func (ns *NS) Pod(name, addr, gateway string) *NS {
	pod := New(ns.t)
	bits := "/32"
	if strings.Contains(addr, ":") {
		bits = "/128"
	}
	Cable(ns, pod, name, "eth0", gateway+bits, addr+bits)
	ns.Do(func() {
		link, err := netlink.LinkByName(name)
		ns.must(err)
		ns.must(netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: netlink.NewIPNet(net.ParseIP(addr))}))
	})
	pod.Do(func() {
		link, err := netlink.LinkByName("eth0")
		ns.must(err)
		ns.must(netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: netlink.NewIPNet(net.ParseIP(gateway))}))
	})
	pod.Route("", gateway)
	return pod
}

// ServeTCP answers every connection to addr with name and the client's address.
func (ns *NS) ServeTCP(addr, name string) {
	ns.t.Helper()
	var l net.Listener
	ns.Do(func() {
		var err error
		if l, err = net.Listen("tcp", addr); err != nil {
			ns.t.Fatal(err)
		}
	})
	ns.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(name + " " + netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().Unmap().String()))
			_ = c.Close()
		}
	}()
}

// ServeUDP answers every packet to addr with name.
func (ns *NS) ServeUDP(addr, name string) {
	ns.t.Helper()
	var c net.PacketConn
	ns.Do(func() {
		var err error
		if c, err = net.ListenPacket("udp", addr); err != nil {
			ns.t.Fatal(err)
		}
	})
	ns.t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			_, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(name), from)
		}
	}()
}

// Ask connects (network "tcp" or "udp"), sends a byte over UDP, and returns
// what is answered.
func (ns *NS) Ask(network, addr string) (string, error) {
	c, err := ns.Dial(network, addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return AskOn(c)
}

// Dial connects from within the namespace. Over UDP each connection has a port that
// none had before it: with one that is used again, the kernel would take the next
// packet for one of the old connection, which goes where that went.
func (ns *NS) Dial(network, addr string) (c net.Conn, err error) {
	d := net.Dialer{Timeout: time.Second}
	if strings.HasPrefix(network, "udp") {
		d.LocalAddr = &net.UDPAddr{Port: firstPort + int(ns.dialed.Add(1))%ports}
	}
	ns.Do(func() { c, err = d.Dial(network, addr) })
	return c, err
}

// The ports that Dial takes: below those that the kernel gives.
const firstPort, ports = 10_000, 19_000

// AskOn sends a byte, if c is UDP, and reads one answer.
func AskOn(c net.Conn) (string, error) {
	if _, udp := c.(*net.UDPConn); udp {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}
