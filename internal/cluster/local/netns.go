package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"

	"github.com/proa-dev/proa/internal/cluster/daemon"
	"github.com/proa-dev/proa/internal/network/pod"
)

// ensureBridge makes the bridge whose address is the first node's: it stays the
// same whatever network the machine joins.
func (s *Spec) ensureBridge(ctx context.Context) error {
	link, err := netlink.LinkByName(s.bridge())
	if err != nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = s.bridge()
		// With an address of its own the bridge keeps it when ports come and go.
		attrs.HardwareAddr = net.HardwareAddr{0x02, 0x70, 0x72, 0x6f, 0x61, byte(s.Slot)}
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return fmt.Errorf("the bridge %s cannot be made: %w (the kernel needs the module bridge)", s.bridge(), err)
		}
		if link, err = netlink.LinkByName(s.bridge()); err != nil {
			return err
		}
	}
	addr, err := netlink.ParseAddr(s.Address(1) + "/24")
	if err != nil {
		return err
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	return s.masquerade(ctx)
}

// masquerade lets the nodes on the bridge out to the world by this machine's
// addresses.
func (s *Spec) masquerade(ctx context.Context) error {
	nft, err := knftables.New(knftables.IPv4Family, s.natTable())
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("nodes of the local cluster " + s.Name)})
	tx.Add(&knftables.Chain{
		Name: "postrouting", Type: knftables.PtrTo(knftables.NATType),
		Hook: knftables.PtrTo(knftables.PostroutingHook), Priority: knftables.PtrTo(knftables.SNATPriority),
	})
	tx.Flush(&knftables.Chain{Name: "postrouting"})
	tx.Add(&knftables.Rule{Chain: "postrouting", Rule: knftables.Concat(
		"ip saddr", s.bridgeRange(), "ip daddr != {", s.bridgeRange(), ",", s.podRange(), ",", s.serviceRange(), "} masquerade")})
	return nft.Run(ctx, tx)
}

// ensureNode makes the namespaces of node i and its link to the bridge.
func (s *Spec) ensureNode(i int) error {
	if err := inThread(func() error { return s.makeNetns(i) }); err != nil {
		return fmt.Errorf("the network namespace of %s: %w", s.NodeName(i), err)
	}
	if err := s.connect(i); err != nil {
		return fmt.Errorf("the link of %s: %w", s.NodeName(i), err)
	}
	if err := inThread(func() error { return s.makeUTS(i) }); err != nil {
		return fmt.Errorf("the host name of %s: %w", s.NodeName(i), err)
	}
	return nil
}

// inThread runs f in a thread of its own, which ends with it: so f may change
// the thread's namespaces.
func inThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		done <- f()
	}()
	return <-done
}

// namesDir is where named network namespaces are, those of pods too.
const namesDir = "/run/netns"

// shareNames makes the folder of named network namespaces a shared mount, as "ip
// netns add" does when it is called first. Called later, that would mount the
// folder onto itself with all that is in it, and no name made before could be
// removed any more. So it is done only where there are no names yet.
func shareNames() error {
	if err := os.MkdirAll(namesDir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("", namesDir, "none", unix.MS_SHARED|unix.MS_REC, ""); !errors.Is(err, unix.EINVAL) {
		return err
	}
	names, err := os.ReadDir(namesDir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if mounted(filepath.Join(namesDir, n.Name())) {
			return nil
		}
	}
	if err := unix.Mount(namesDir, namesDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return unix.Mount("", namesDir, "none", unix.MS_SHARED|unix.MS_REC, "")
}

func (s *Spec) makeNetns(i int) error {
	if ns, err := netns.GetFromName(s.netns(i)); err == nil {
		return ns.Close()
	}
	ns, err := netns.NewNamed(s.netns(i))
	if err != nil {
		return err
	}
	return ns.Close()
}

func (s *Spec) connect(i int) error {
	if port, err := netlink.LinkByName(s.veth(i)); err == nil {
		return pod.BridgePort(port)
	}
	ns, err := netns.GetFromName(s.netns(i))
	if err != nil {
		return err
	}
	defer ns.Close()
	bridge, err := netlink.LinkByName(s.bridge())
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = s.veth(i), bridge.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns))}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	if err := pod.BridgePort(veth); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return err
	}
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer inside.Close()
	return s.configure(i, inside)
}

func (s *Spec) configure(i int, inside *netlink.Handle) error {
	lo, err := inside.LinkByName("lo")
	if err != nil {
		return err
	}
	eth, err := inside.LinkByName("eth0")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(s.Address(i) + "/24")
	if err != nil {
		return err
	}
	gateway := net.ParseIP(s.Address(1))
	return firstError(
		func() error { return inside.LinkSetUp(lo) },
		func() error { return inside.AddrAdd(eth, addr) },
		func() error { return inside.LinkSetUp(eth) },
		func() error { return inside.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: gateway}) },
	)
}

func firstError(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// makeUTS keeps a UTS namespace with the node's name in a file, so that pods
// on the host's network see the name too.
func (s *Spec) makeUTS(i int) error {
	file := s.utsFile(i)
	if mounted(file) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o711); err != nil {
		return err
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(s.NodeName(i))); err != nil {
		return err
	}
	return unix.Mount("/proc/thread-self/ns/uts", file, "", unix.MS_BIND, "")
}

// mounted says whether a namespace is mounted on a file.
func mounted(file string) bool {
	var st unix.Statfs_t
	const nsfs = 0x6e736673
	return unix.Statfs(file, &st) == nil && st.Type == nsfs
}

// startIn starts a process in the namespaces of node i. Only the thread that
// starts it enters them.
func (s *Spec) startIn(i int, cmd *exec.Cmd) (p *daemon.Process, err error) {
	err = inThread(func() error {
		for _, file := range []string{filepath.Join(namesDir, s.netns(i)), s.utsFile(i)} {
			if err := enter(file); err != nil {
				return err
			}
		}
		p, err = daemon.Start(s.agentPID(i), s.agentLog(i), cmd)
		return err
	})
	return p, err
}

func enter(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), 0); err != nil {
		return fmt.Errorf("enter %s: %w", file, err)
	}
	return nil
}

// removeNode takes the namespaces of node i away, and with the last process in
// them its links, routes and tables.
func (s *Spec) removeNode(i int) error {
	var errs []error
	if link, err := netlink.LinkByName(s.veth(i)); err == nil {
		errs = append(errs, netlink.LinkDel(link))
	}
	if _, err := os.Stat(filepath.Join(namesDir, s.netns(i))); err == nil {
		errs = append(errs, netns.DeleteNamed(s.netns(i)))
	}
	if mounted(s.utsFile(i)) {
		errs = append(errs, unix.Unmount(s.utsFile(i), unix.MNT_DETACH))
	}
	return errors.Join(errs...)
}

func (s *Spec) removeBridge(ctx context.Context) error {
	var errs []error
	if link, err := netlink.LinkByName(s.bridge()); err == nil {
		errs = append(errs, netlink.LinkDel(link))
	}
	return errors.Join(append(errs, removeTable(ctx, knftables.IPv4Family, s.natTable()))...)
}

// removeTable if it is there.
func removeTable(ctx context.Context, family knftables.Family, name string) error {
	nft, err := knftables.New(family, name)
	if err != nil {
		return err
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{}) // deleting what is not there is an error
	tx.Delete(&knftables.Table{})
	return nft.Run(ctx, tx)
}
