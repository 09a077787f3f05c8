package pod

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/network/nettest"
	"github.com/proa-dev/proa/internal/network/pod/cni"
	"github.com/proa-dev/proa/internal/network/pod/ipam"
)

func node(name, addr string, cidrs ...string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.NodeSpec{PodCIDRs: cidrs},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: addr}}},
	}
}

func TestPlan(t *testing.T) {
	nodes := []*corev1.Node{
		node("c", "198.51.100.3", "10.244.3.0/24"), // elsewhere
		node("b", "192.0.2.2", "10.244.2.0/24"),    // a neighbour
		node("a", "192.0.2.1", "10.244.1.0/24"),    // this one
		node("d", "192.0.2.4"),                     // has no range yet
	}
	d := Decide(nodes, "a")
	p := plan("c", d, []Link{{Index: 1, MTU: 9000, Nets: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/24")}},
		{Index: 2, MTU: 1400, Nets: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}})
	if got := fmt.Sprint(p.Direct); got != "[{10.244.2.0/24 192.0.2.2 2}]" {
		t.Errorf("direct routes: %s", got)
	}
	if len(p.Tunnels) != 1 || p.Tunnels[0].Dst.String() != "10.244.3.0/24" || p.Tunnels[0].Node.String() != "198.51.100.3" ||
		p.Tunnels[0].MAC.String() != overlayMAC("c", "c").String() {
		t.Errorf("tunnels: %v", p.Tunnels)
	}
	if p.Link.MTU != 1400 {
		t.Errorf("MTU %d is not that of the node's link", p.Link.MTU)
	}
}

func TestConflist(t *testing.T) {
	out := Conflist("proa-c", []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00::/64")}, "/data", 1450)
	var list struct {
		CNIVersion, Name string
		Plugins          []struct {
			Type, DataDir string
			MTU           int
			Subnets       []string
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	p := list.Plugins[0]
	if list.Name != "proa-c" || p.Type != "proa-cni" || p.MTU != 1450 || p.DataDir != "/data" || fmt.Sprint(p.Subnets) != "[10.244.1.0/24 fd00::/64]" {
		t.Errorf("%s", out)
	}
}

// host is a node of the end-to-end tests.
type host struct {
	ns     *nettest.NS
	driver *Driver
	pod    *nettest.NS
}

func newHost(t *testing.T, ns *nettest.NS, name string, nodes []*corev1.Node) *host {
	dir := t.TempDir()
	h := &host{ns: ns}
	h.driver = New(Config{
		Cluster: "test", Node: name, ConfDir: dir + "/net.d", DataDir: dir + "/data",
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
	})
	h.set(t, nodes)
	cidr := Decide(nodes, name).PodCIDRs[0]
	first := cidr.Addr().Next()
	h.pod = ns.Pod("pod", first.Next().String(), first.String())
	h.pod.ServeTCP(":80", name)
	return h
}

func (h *host) set(t *testing.T, nodes []*corev1.Node) {
	t.Helper()
	h.ns.Do(func() {
		if err := h.driver.Set(context.Background(), Decide(nodes, h.driver.cfg.Node)); err != nil {
			t.Fatal(err)
		}
	})
}

func (h *host) down(t *testing.T) {
	t.Helper()
	h.ns.Do(func() {
		if err := h.driver.Down(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
	if left := h.ns.Run("nft", "list", "tables"); left != "" {
		t.Errorf("tables left: %s", left)
	}
	if left := h.ns.Run("ip", "route", "show", "proto", fmt.Sprint(routeProtocol)); left != "" {
		t.Errorf("routes left: %s", left)
	}
	if left := h.ns.Run("ip", "-brief", "link"); strings.Contains(left, h.driver.overlay()) {
		t.Errorf("links left: %s", left)
	}
	if left, _ := os.ReadDir(h.driver.cfg.ConfDir); len(left) != 0 {
		t.Errorf("files left: %v", left)
	}
}

func ask(t *testing.T, from *nettest.NS, addr, want string) {
	t.Helper()
	if got, err := from.Ask("tcp", addr); err != nil || got != want {
		t.Errorf("%s: got %q, %v; want %q", addr, got, err, want)
	}
}

func TestNodesOnOneNetwork(t *testing.T) {
	nettest.NeedNFT(t)
	sw, a, b := nettest.New(t), nettest.New(t), nettest.New(t)
	sw.Run("ip", "link", "add", "br0", "type", "bridge")
	sw.Run("ip", "link", "set", "br0", "up")
	sw.Run("ip", "addr", "add", "192.0.2.9/24", "dev", "br0")
	nettest.Cable(sw, a, "port-a", "eth0", "", "192.0.2.1/24")
	nettest.Cable(sw, b, "port-b", "eth0", "", "192.0.2.2/24")
	sw.Run("ip", "link", "set", "port-a", "master", "br0")
	sw.Run("ip", "link", "set", "port-b", "master", "br0")
	sw.ServeTCP(":80", "outside")

	nodes := []*corev1.Node{node("a", "192.0.2.1", "10.244.1.0/24"), node("b", "192.0.2.2", "10.244.2.0/24")}
	ha, hb := newHost(t, a, "a", nodes), newHost(t, b, "b", nodes)
	ask(t, ha.pod, "10.244.2.2:80", "b 10.244.1.2") // pods see each other's own addresses
	ask(t, hb.pod, "10.244.1.2:80", "a 10.244.2.2")
	ask(t, a, "10.244.2.2:80", "b 192.0.2.1")
	ask(t, ha.pod, "192.0.2.9:80", "outside 192.0.2.1") // masqueraded
	if conf, err := os.ReadFile(ha.driver.ConfFile()); err != nil || !strings.Contains(string(conf), `"mtu": 1500`) {
		t.Errorf("%s %v", conf, err)
	}
	if route := a.Run("ip", "route", "get", "10.96.0.10"); !strings.Contains(route, "192.0.2.1") {
		t.Errorf("no route to cluster IPs: %s", route)
	}
	ha.set(t, nodes)
	ask(t, ha.pod, "10.244.2.2:80", "b 10.244.1.2")
	ha.set(t, nodes[:1])
	if routes := a.Run("ip", "route"); strings.Contains(routes, "10.244.2.0") {
		t.Errorf("the route to a node that has gone is left: %s", routes)
	}
	ha.down(t)
	hb.down(t)
}

func TestNodesBehindARouter(t *testing.T) {
	nettest.NeedNFT(t)
	router, a, b := nettest.New(t), nettest.New(t), nettest.New(t)
	nettest.Cable(router, a, "a", "eth0", "192.0.2.9/24", "192.0.2.1/24")
	nettest.Cable(router, b, "b", "eth0", "198.51.100.9/24", "198.51.100.1/24")
	a.Route("", "192.0.2.9")
	b.Route("", "198.51.100.9")
	if out := a.Run("sh", "-c", "ip link add vx type vxlan id 5 dstport 4789 local 192.0.2.1 2>&1 && ip link del vx || echo missing: $?"); strings.Contains(out, "missing") {
		t.Skipf("needs VXLAN devices: %s", out)
	}
	nodes := []*corev1.Node{node("a", "192.0.2.1", "10.244.1.0/24"), node("b", "198.51.100.1", "10.244.2.0/24")}
	ha, hb := newHost(t, a, "a", nodes), newHost(t, b, "b", nodes)
	ask(t, ha.pod, "10.244.2.2:80", "b 10.244.1.2")
	ask(t, hb.pod, "10.244.1.2:80", "a 10.244.2.2")
	if conf, err := os.ReadFile(ha.driver.ConfFile()); err != nil || !strings.Contains(string(conf), `"mtu": 1450`) {
		t.Errorf("%s %v", conf, err)
	}
	ha.set(t, nodes)
	ask(t, ha.pod, "10.244.2.2:80", "b 10.244.1.2")
	// The other node moves onto our network: no overlay any more.
	ha.set(t, []*corev1.Node{nodes[0], node("b", "192.0.2.2", "10.244.2.0/24")})
	if links := a.Run("ip", "-brief", "link"); strings.Contains(links, ha.driver.overlay()) {
		t.Errorf("the overlay device is left: %s", links)
	}
	ha.down(t)
	hb.down(t)
}

func TestFirewallThatDrops(t *testing.T) {
	nettest.NeedNFT(t)
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("needs iptables")
	}
	a := nettest.New(t)
	a.Run("iptables", "-P", "FORWARD", "DROP") // as Docker does
	a.Run("iptables", "-P", "INPUT", "DROP")   // as ufw does
	nodes := []*corev1.Node{node("a", "192.0.2.1", "10.244.1.0/24")}
	h := newHost(t, a, "a", nodes)
	other := a.Pod("other", "10.244.1.9", "10.244.1.1")
	a.ServeTCP(":80", "node")
	ask(t, other, "10.244.1.2:80", "a 10.244.1.9")
	ask(t, other, "10.244.1.1:80", "node 10.244.1.9")
	h.set(t, nodes)
	if n := strings.Count(a.Run("iptables", "-S"), "proa-test"); n != 3 {
		t.Errorf("%d rules, want 3", n)
	}
	a.Do(func() {
		if err := h.driver.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if rules := a.Run("iptables", "-S"); strings.Contains(rules, "proa-test") {
		t.Errorf("left: %s", rules)
	}
}

// The configuration is one that the plugin takes: a pod made by it works, and what
// it has is collected once nobody knows of it.
func TestPluginTakesTheConflist(t *testing.T) {
	nettest.NeedNFT(t)
	a, p := nettest.New(t), nettest.New(t)
	h := newHost(t, a, "a", []*corev1.Node{node("a", "192.0.2.1", "10.244.1.0/24")})
	data, err := os.ReadFile(h.driver.ConfFile())
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		CNIVersion string
		Name       string
		Plugins    []map[string]any
	}
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	conf := list.Plugins[0]
	conf["name"], conf["cniVersion"] = list.Name, list.CNIVersion
	data, _ = json.Marshal(conf)
	run := func(command, id string, ns *nettest.NS) string {
		var out strings.Builder
		env := map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": id, "CNI_NETNS": ns.Path(), "CNI_IFNAME": "eth0"}
		code := 0
		a.Do(func() {
			code = cni.Main(func(k string) string { return env[k] }, strings.NewReader(string(data)), &out)
		})
		if code != 0 {
			t.Fatalf("%s: %s", command, out.String())
		}
		return out.String()
	}
	store, err := ipam.Open(filepath.Join(h.driver.cfg.DataDir, "proa-test"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Take(ipam.Owner{Container: "other", Interface: "eth0"}, []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}); err != nil {
		t.Fatal(err) // the address of h.pod
	}
	if out := run("ADD", "test", p); !strings.Contains(out, "10.244.1.3/") {
		t.Fatalf("%s", out)
	}
	p.ServeTCP(":80", "made")
	for began := time.Now(); time.Since(began) < 10*time.Second; { // until the kernel has noticed the new link
		if _, err := a.Ask("tcp", "10.244.1.3:80"); err == nil {
			break
		}
	}
	ask(t, h.pod, "10.244.1.3:80", "made 10.244.1.2")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(h.driver.cfg.DataDir, "proa-test", "10.244.1.3"), old, old); err != nil {
		t.Fatal(err)
	}
	for _, have := range [][]string{{"other", "test"}, {"other"}} {
		a.Do(func() {
			if err := h.driver.Collect(have); err != nil {
				t.Fatal(err)
			}
		})
		if routes := a.Run("ip", "route"); strings.Contains(routes, "10.244.1.3") != (len(have) == 2) {
			t.Errorf("%v: %s", have, routes)
		}
	}
}
