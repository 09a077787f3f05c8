package pod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"

	"github.com/proa-dev/proa/internal/network/pod/cni"
	"github.com/proa-dev/proa/internal/network/pod/ipam"
)

// routeProtocol marks routes as ours.
const routeProtocol = 80

// overlayPort is VXLAN's usual UDP port on Linux.
const overlayPort = 8472

const overlayOverhead = 50

// Config of the driver.
type Config struct {
	Cluster string // names the table, the overlay device and the CNI network
	Node    string
	// ClusterCIDRs are those all pods are in: what goes elsewhere is masqueraded.
	ClusterCIDRs []netip.Prefix
	// ServiceCIDRs get a route if the host has none that leads there (a host
	// without a default route), or its own programs could not use cluster IPs.
	ServiceCIDRs []netip.Prefix
	ConfDir      string // where the runtime looks for CNI configurations
	DataDir      string // for the addresses given out
	MTU          int    // 0 = that of the node's link, less the overlay's share
	Log          *slog.Logger
}

// Driver makes the pod network of one node, in the network namespace it is called in.
type Driver struct {
	cfg Config
	mu  sync.Mutex
	nft knftables.Interface

	masqueraded string   // the transaction that made the table as it is
	stuck       []string // bridge ports that were warned of
}

// New makes the driver; nothing is changed before Set.
func New(cfg Config) *Driver {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Driver{cfg: cfg}
}

func (d *Driver) table() string   { return "proa-" + d.cfg.Cluster + "-pods" }
func (d *Driver) overlay() string { return fmt.Sprintf("proa%06x", overlayID(d.cfg.Cluster)) }

// network is the name of the pods' network in CNI.
func (d *Driver) network() string { return "proa-" + d.cfg.Cluster }

// ConfFile is the CNI configuration Set writes.
func (d *Driver) ConfFile() string {
	return filepath.Join(d.cfg.ConfDir, "10-"+d.network()+".conflist")
}

// Collect takes back what sandboxes have that the runtime no longer knows of, as
// after its state was lost: nobody will tell the plugin that they are gone. have
// are the IDs of those it knows.
func (d *Driver) Collect(have []string) error {
	store, err := ipam.Open(filepath.Join(d.cfg.DataDir, d.network()))
	if err != nil {
		return wrap("addresses", err)
	}
	gone, err := cni.Collect(store, func(o ipam.Owner) bool { return slices.Contains(have, o.Container) })
	for _, o := range gone {
		d.cfg.Log.Info("the address of a sandbox that is gone is free again", "sandbox", o.Container)
	}
	return wrap("addresses", err)
}

// Set makes the node's part of the pod network as desired. It writes only what
// differs, and may be called at any time.
func (d *Driver) Set(ctx context.Context, want Desired) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	links, err := readLinks(d.overlay())
	if err != nil {
		return fmt.Errorf("pod network: the host's links: %w", err)
	}
	p := plan(d.cfg.Cluster, want, links)
	d.warnBridge(p)
	return errors.Join(
		d.sysctls(want),
		wrap("masquerade", d.masquerade(ctx, want.PodCIDRs)),
		wrap("firewall", d.passFirewall(ctx)),
		wrap("overlay", d.tunnels(want, p)),
		wrap("routes", d.routes(p)),
		wrap("service route", d.serviceRoutes(want, links)),
		wrap("CNI configuration", d.conflist(want, p)),
	)
}

// forget that the table is as it should be.
func (d *Driver) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.masqueraded = ""
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("pod network: %s: %w", what, err)
}

func (d *Driver) conflist(want Desired, p routePlan) error {
	if len(want.PodCIDRs) == 0 {
		return nil // until the node has a range, the runtime says the network is not ready
	}
	mtu := d.cfg.MTU
	if mtu == 0 {
		if mtu = p.Link.MTU; len(p.Tunnels) > 0 {
			mtu -= overlayOverhead
		}
	}
	content := Conflist(d.network(), want.PodCIDRs, d.cfg.DataDir, mtu)
	if old, err := os.ReadFile(d.ConfFile()); err == nil && bytes.Equal(old, content) {
		return nil
	}
	if err := os.MkdirAll(d.cfg.ConfDir, 0o755); err != nil {
		return err
	}
	tmp := d.ConfFile() + ".tmp" // the runtime reads *.conflist as it appears: it must be whole
	if err := os.WriteFile(tmp, content, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, d.ConfFile())
}

func (d *Driver) sysctls(want Desired) error {
	set := map[string]string{"net/ipv4/ip_forward": "1"}
	if slices.ContainsFunc(want.PodCIDRs, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		set["net/ipv6/conf/all/forwarding"] = "1"
	}
	for path, value := range set {
		file := "/proc/sys/" + path
		if old, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(old)) == value {
			continue
		}
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			return fmt.Errorf("pod network: %s cannot be set to %s (run as root, or set it before): %w", strings.ReplaceAll(path, "/", "."), value, err)
		}
	}
	return nil
}

// masquerade hides pods from what is outside the cluster.
func (d *Driver) masquerade(ctx context.Context, own []netip.Prefix) error {
	if d.nft == nil {
		nft, err := knftables.New(knftables.InetFamily, d.table())
		if err != nil {
			return fmt.Errorf("nftables cannot be used: %w (install the nftables package, run as root)", err)
		}
		d.nft = nft
	}
	tx := d.nft.NewTransaction()
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("pod network of cluster " + d.cfg.Cluster)})
	chain := &knftables.Chain{Name: "postrouting",
		Type: knftables.PtrTo(knftables.NATType), Hook: knftables.PtrTo(knftables.PostroutingHook), Priority: knftables.PtrTo(knftables.SNATPriority)}
	tx.Add(chain)
	tx.Flush(&knftables.Chain{Name: "postrouting"})
	for _, family := range []struct {
		ip, multicast string
		v6            bool
	}{{"ip", "224.0.0.0/4", false}, {"ip6", "ff00::/8", true}} {
		inside := []string{family.multicast}
		for _, c := range d.cfg.ClusterCIDRs {
			if c.Addr().Is6() == family.v6 {
				inside = append(inside, c.String())
			}
		}
		for _, c := range own {
			if c.Addr().Is6() == family.v6 {
				tx.Add(&knftables.Rule{Chain: "postrouting", Rule: knftables.Concat(
					family.ip, "saddr", c.String(), family.ip, "daddr != {", strings.Join(inside, ", "), "}", "masquerade fully-random")})
			}
		}
	}
	if tx.String() == d.masqueraded {
		return nil
	}
	err := d.nft.Run(ctx, tx)
	if err == nil {
		d.masqueraded = tx.String()
	}
	return err
}

// routes makes the direct routes, and removes ours that are not wanted.
func (d *Driver) routes(p routePlan) error {
	want := map[string]netlink.Route{}
	for _, r := range p.Direct {
		route := netlink.Route{Dst: ipnet(r.Dst), Gw: r.Via.AsSlice(), LinkIndex: r.Link, Protocol: routeProtocol}
		want[r.Dst.String()] = route
	}
	if len(p.Tunnels) > 0 {
		link, err := netlink.LinkByName(d.overlay())
		if err != nil {
			return err
		}
		for _, t := range p.Tunnels {
			want[t.Dst.String()] = netlink.Route{Dst: ipnet(t.Dst), Gw: t.Via.AsSlice(), LinkIndex: link.Attrs().Index, Protocol: routeProtocol, Flags: int(netlink.FLAG_ONLINK)}
		}
	}
	have, err := d.ownRoutes()
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range have {
		w, ok := want[h.Dst.String()]
		if ok && w.LinkIndex == h.LinkIndex && w.Gw.Equal(h.Gw) {
			delete(want, h.Dst.String())
		} else if !ok && !d.isServiceRoute(h) {
			errs = append(errs, netlink.RouteDel(&h))
		}
	}
	for _, w := range want {
		if err := netlink.RouteReplace(&w); err != nil {
			errs = append(errs, fmt.Errorf("to %s via %s: %w", w.Dst, w.Gw, err))
		}
	}
	return errors.Join(errs...)
}

// ownRoutes are those in the cluster's ranges that carry our mark.
func (d *Driver) ownRoutes() ([]netlink.Route, error) {
	all, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: routeProtocol, Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, err
	}
	var own []netlink.Route
	for _, r := range all {
		if r.Dst != nil && (d.isServiceRoute(r) || slices.ContainsFunc(d.cfg.ClusterCIDRs, func(c netip.Prefix) bool { return c.Overlaps(prefix(r.Dst)) })) {
			own = append(own, r)
		}
	}
	return own, nil
}

func (d *Driver) isServiceRoute(r netlink.Route) bool {
	return r.Dst != nil && slices.Contains(d.cfg.ServiceCIDRs, prefix(r.Dst))
}

// serviceRoutes let the node's own programs reach cluster IPs: the kernel looks
// for a route before the service proxy translates the address. Any route will do.
func (d *Driver) serviceRoutes(want Desired, links []Link) error {
	for _, c := range d.cfg.ServiceCIDRs {
		if _, err := netlink.RouteGet(c.Addr().Next().AsSlice()); err == nil {
			continue
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		r := &netlink.Route{Dst: ipnet(c), LinkIndex: lo.Attrs().Index, Scope: netlink.SCOPE_LINK, Protocol: routeProtocol}
		for _, a := range want.Addrs {
			if a.Is6() == c.Addr().Is6() && linkOf([]netip.Addr{a}, links).Index != 0 {
				r.Src = a.AsSlice()
				break
			}
		}
		if err := netlink.RouteReplace(r); err != nil {
			return err
		}
	}
	return nil
}

// Down removes what Set made: table, routes, overlay, CNI configuration and
// the notes of addresses. Pods must be gone by then.
func (d *Driver) Down(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	if own, err := d.ownRoutes(); err != nil {
		errs = append(errs, err)
	} else {
		for _, r := range own {
			errs = append(errs, netlink.RouteDel(&r))
		}
	}
	if link, err := netlink.LinkByName(d.overlay()); err == nil {
		errs = append(errs, netlink.LinkDel(link))
	}
	if nft, err := knftables.New(knftables.InetFamily, d.table()); err == nil {
		tx := nft.NewTransaction()
		tx.Add(&knftables.Table{})
		tx.Delete(&knftables.Table{})
		errs = append(errs, nft.Run(ctx, tx))
	}
	d.nft, d.masqueraded = nil, ""
	errs = append(errs, d.leaveFirewall(ctx))
	for _, err := range []error{os.Remove(d.ConfFile()), os.RemoveAll(d.cfg.DataDir)} {
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func ipnet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefix(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}
