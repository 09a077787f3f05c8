package proxy

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/network/nettest"
	"github.com/proa-dev/proa/internal/network/pod"
)

// addresses of one family.
type addresses struct {
	v6                              bool
	podNet, serviceNet              string
	podCIDR, pod, gateway           string // of node %d (and pod %d)
	node, wan                       string // of number %d
	service, external, loadBalancer string
	hostBits, everywhere            string
}

var families = []addresses{
	{false, "10.244.0.0/16", "10.96.0.0/16", "10.244.%d.0/24", "10.244.%d.%d", "10.244.%d.1",
		"192.0.2.%d", "203.0.113.%d", "10.96.0.10", "198.51.100.7", "198.51.100.8", "/24", "0.0.0.0/0"},
	{true, "fd00:1::/48", "fd00:2::/112", "fd00:1:0:%d::/64", "fd00:1:0:%d::%d", "fd00:1:0:%d::1",
		"2001:db8::%d", "2001:db8:9::%d", "fd00:2::a", "2001:db8:2::7", "2001:db8:2::8", "/64", "::/0"},
}

// cluster is two nodes as "proa up --nodes 2" makes them: the second one hangs on
// a bridge that the first one's address is on.
type cluster struct {
	t       *testing.T
	addr    addresses
	nodes   map[string]*nettest.NS // n1, n2
	proxies map[string]*Proxy
	// clients by name: "pod 1" and "node 1" are on node 1, "outside 1" is on the bridge,
	// too; "outside 2" is behind node 2.
	clients map[string]*nettest.NS
}

func newCluster(t *testing.T, addr addresses, bridgedNAT bool) *cluster {
	nettest.NeedNFT(t)
	c := &cluster{t: t, addr: addr, nodes: map[string]*nettest.NS{}, proxies: map[string]*Proxy{}, clients: map[string]*nettest.NS{}}
	made := func() *nettest.NS {
		ns := nettest.New(t)
		if addr.v6 {
			if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
				t.Skip("needs IPv6")
			}
			ns.Sysctl("net/ipv6/conf/all/forwarding", "1")
			ns.Sysctl("net/ipv6/conf/default/accept_dad", "0") // usable at once
		}
		return ns
	}
	n1, n2, o1, o2 := made(), made(), made(), made()
	n1.Bridge("br0", fmt.Sprintf(addr.node, 1)+addr.hostBits)
	if _, err := os.Stat("/proc/sys/net/bridge"); err != nil && bridgedNAT {
		t.Skip("needs the kernel's module br_netfilter")
	} else if err == nil {
		on := map[bool]string{true: "1", false: "0"}[bridgedNAT]
		n1.Sysctl("net/bridge/bridge-nf-call-iptables", on)
		n1.Sysctl("net/bridge/bridge-nf-call-ip6tables", on)
	}
	for port, other := range map[string]*nettest.NS{"2": n2, "8": o1} {
		n1.Plug("br0", "port-"+port, other, strings.Replace(addr.node, "%d", port, 1)+addr.hostBits)
		n1.Do(func() {
			link, err := netlink.LinkByName("port-" + port)
			if err == nil {
				err = pod.BridgePort(link)
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
	nettest.Cable(n2, o2, "wan", "eth0", fmt.Sprintf(addr.wan, 1)+addr.hostBits, fmt.Sprintf(addr.wan, 9)+addr.hostBits)
	for ns, router := range map[*nettest.NS]string{
		o1: fmt.Sprintf(addr.node, 1), o2: fmt.Sprintf(addr.wan, 1), n1: fmt.Sprintf(addr.node, 2), n2: fmt.Sprintf(addr.wan, 9),
	} {
		ns.Route(addr.everywhere, router)
	}
	c.clients["outside 1"], c.clients["outside 2"] = o1, o2
	var nodes []*corev1.Node
	for i := 1; i <= 2; i++ {
		nodes = append(nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i)},
			Spec:   corev1.NodeSpec{PodCIDRs: []string{fmt.Sprintf(addr.podCIDR, i)}},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf(addr.node, i)}}}})
	}
	for i, ns := range []*nettest.NS{n1, n2} {
		c.addNode(i+1, ns, nodes)
	}
	return c
}

// addNode makes pod network and proxy of a node, a pod that serves and one that asks.
func (c *cluster) addNode(i int, ns *nettest.NS, nodes []*corev1.Node) {
	name, dir := fmt.Sprintf("n%d", i), c.t.TempDir()
	c.nodes[name], c.clients[fmt.Sprintf("node %d", i)] = ns, ns
	podNets, serviceNets := []netip.Prefix{netip.MustParsePrefix(c.addr.podNet)}, []netip.Prefix{netip.MustParsePrefix(c.addr.serviceNet)}
	ns.Do(func() {
		d := pod.New(pod.Config{Cluster: "test", Node: name, ConfDir: dir + "/net.d", DataDir: dir + "/data", ClusterCIDRs: podNets, ServiceCIDRs: serviceNets})
		if err := d.Set(context.Background(), pod.Decide(nodes, name)); err != nil {
			c.t.Fatal(err)
		}
		p, err := New(Config{Cluster: "test", Node: Node{Name: name}, Localhost: true, PodCIDRs: podNets, ServiceCIDRs: serviceNets})
		if err == nil {
			err = p.Set(context.Background(), nil)
		}
		if err != nil {
			c.t.Fatal(err)
		}
		c.proxies[name] = p
	})
	c.t.Cleanup(c.proxies[name].Close)
	server := ns.Pod("server", fmt.Sprintf(c.addr.pod, i, 2), fmt.Sprintf(c.addr.gateway, i))
	server.ServeTCP(":8080", name)
	server.ServeUDP(":8081", name)
	c.clients[fmt.Sprintf("endpoint %d", i)] = server
	c.clients[fmt.Sprintf("pod %d", i)] = ns.Pod("client", fmt.Sprintf(c.addr.pod, i, 3), fmt.Sprintf(c.addr.gateway, i))
}

func (c *cluster) apply(svc *corev1.Service, endpoints ...int) {
	c.t.Helper()
	var at []string
	for _, i := range endpoints {
		at = append(at, fmt.Sprintf(c.addr.pod, i, 2)+fmt.Sprintf("@n%d", i))
	}
	for name, ns := range c.nodes {
		ns.Do(func() {
			plan := Decide(svc, []*discoveryv1.EndpointSlice{slice(at...)}, Node{Name: name})
			if err := c.proxies[name].Apply(context.Background(), map[Owner]Plan{"service default/web": plan}); err != nil {
				c.t.Fatal(err)
			}
		})
	}
}

// way is a client and what it connects to.
type way struct {
	client, target string
	node           string // whose proxy decides
	inside         bool   // the client is on that node
	addr           string // without the port
	port           map[string]string
}

func (c *cluster) ways() []way {
	front, nodePort := map[string]string{"tcp": "80", "udp": "53"}, map[string]string{"tcp": "30080", "udp": "30053"}
	var out []way
	for _, client := range slices.Sorted(maps.Keys(c.clients)) {
		kind, i, _ := strings.Cut(client, " ")
		own := "n" + i
		if kind != "outside" {
			out = append(out, way{client, "cluster IP", own, true, c.addr.service, front})
		}
		if kind == "node" && !c.addr.v6 {
			out = append(out, way{client, "localhost", own, true, "127.0.0.1", nodePort})
		}
		out = append(out, way{client, "external IP", own, kind != "outside", c.addr.external, front})
		out = append(out, way{client, "load balancer", own, kind != "outside", c.addr.loadBalancer, front})
		for n := 1; n <= 2; n++ {
			node := fmt.Sprintf("n%d", n)
			out = append(out, way{client, "port of " + node, node, node == own && kind != "outside", fmt.Sprintf(c.addr.node, n), nodePort})
		}
	}
	return out
}

// TestNodes asks every way that there is, whatever the Service, wherever its endpoints are.
func TestNodes(t *testing.T) {
	for _, addr := range families {
		for _, bridgedNAT := range []bool{true, false} {
			t.Run(fmt.Sprintf("v6=%v,br_netfilter=%v", addr.v6, bridgedNAT), func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, addr, bridgedNAT)
				for _, sticks := range []bool{true, false} {
					for _, local := range []bool{false, true} {
						for _, endpoints := range [][]int{{1}, {2}, {1, 2}} {
							name := fmt.Sprintf("affinity=%v,local=%v,endpoints=%v", sticks, local, endpoints)
							t.Run(name, func(t *testing.T) { c.ask(t, sticks, local, endpoints) })
						}
					}
				}
			})
		}
	}
}

func (c *cluster) ask(t *testing.T, sticks, local bool, endpoints []int) {
	change := []func(*corev1.Service){nodePorts, func(svc *corev1.Service) {
		svc.Spec.Type = corev1.ServiceTypeLoadBalancer
		svc.Spec.ExternalIPs = []string{c.addr.external}
		svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: c.addr.loadBalancer}}
		if local {
			svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		}
	}}
	if sticks {
		change = append(change, sticky(60))
	}
	c.apply(service("web", c.addr.service, change...), endpoints...)
	for _, w := range c.ways() {
		want := map[string]bool{}
		for _, i := range endpoints {
			// Policy Local: from elsewhere a node sends to its own endpoints alone.
			if node := fmt.Sprintf("n%d", i); !local || w.inside || w.node == node {
				want[node] = true
			}
		}
		for _, network := range []string{"tcp", "udp"} {
			c.askOne(t, w, network, want, sticks, local)
		}
	}
}

func (c *cluster) askOne(t *testing.T, w way, network string, want map[string]bool, sticks, local bool) {
	t.Helper()
	at, what := net.JoinHostPort(w.addr, w.port[network]), w.client+" to "+w.target+" over "+network
	from := c.clients[w.client]
	if len(want) == 0 {
		if got, err := quickly(from, network, at); err == nil {
			t.Errorf("%s: %q answered, want no answer", what, got)
		}
		return
	}
	asks := 3
	if len(want) > 1 && !sticks {
		asks = both
	}
	seen := map[string]bool{}
	for range asks {
		got, err := from.Ask(network, at)
		if err != nil {
			t.Errorf("%s: %v, want an answer of %v", what, err, slices.Sorted(maps.Keys(want)))
			return
		}
		who, client, _ := strings.Cut(got, " ")
		seen[who] = true
		if !want[who] {
			t.Errorf("%s: %s answered, want %v", what, who, slices.Sorted(maps.Keys(want)))
		}
		if kind, i, _ := strings.Cut(w.client, " "); network == "tcp" && kind == "outside" && local {
			if own := map[string]string{"1": fmt.Sprintf(c.addr.node, 8), "2": fmt.Sprintf(c.addr.wan, 9)}[i]; client != own {
				t.Errorf("%s: policy Local shows the client as %s, not %s", what, client, own)
			}
		}
	}
	if sticks && len(seen) > 1 {
		t.Errorf("%s: one client met %v", what, seen)
	}
	if !sticks && len(seen) != len(want) {
		t.Errorf("%s: only %v answered, want %v", what, seen, want)
	}
}

// quickly asks what should not answer.
func quickly(from *nettest.NS, network, addr string) (out string, err error) {
	from.Do(func() {
		var c net.Conn
		if c, err = net.DialTimeout(network, addr, 50*time.Millisecond); err != nil {
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(50 * time.Millisecond))
		if network == "udp" {
			c.Write([]byte("?"))
		}
		buf := make([]byte, 100)
		n, e := c.Read(buf)
		if out, err = string(buf[:n]), e; e == io.EOF {
			err = nil
		}
	})
	return out, err
}
