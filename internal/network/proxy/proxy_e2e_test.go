package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/network/nettest"
	"github.com/proa-dev/proa/internal/network/nftwatch"
)

// world is a node with two pods on it and a client outside.
type world struct {
	t                   *testing.T
	node, a, b, outside *nettest.NS
	proxy               *Proxy
	services            map[Owner]Plan
}

func newWorld(t *testing.T) *world {
	nettest.NeedNFT(t)
	w := &world{t: t, services: map[Owner]Plan{}}
	w.node, w.outside = nettest.New(t), nettest.New(t)
	nettest.Cable(w.node, w.outside, "eth0", "eth0", "192.0.2.1/24", "192.0.2.9/24")
	w.outside.Route("10.96.0.0/16", "192.0.2.1")
	w.outside.Route("198.51.100.0/24", "192.0.2.1")
	w.node.Route("", "192.0.2.9")
	w.a = w.node.Pod("pod-a", "10.244.0.2", "10.244.0.1")
	w.b = w.node.Pod("pod-b", "10.244.0.3", "10.244.0.1")
	for name, pod := range map[string]*nettest.NS{"a": w.a, "b": w.b} {
		pod.ServeTCP(":8080", name)
		pod.ServeUDP(":8081", name)
	}
	w.restart()
	return w
}

// restart makes a driver that knows nothing of what is there.
func (w *world) restart() {
	w.node.Do(func() {
		var err error
		w.proxy, err = New(Config{
			Cluster: "test", Node: Node{Name: "n1"}, Localhost: true,
			PodCIDRs:     []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
			ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
		})
		if err != nil {
			w.t.Fatal(err)
		}
		if err := w.proxy.Set(context.Background(), w.services); err != nil {
			w.t.Fatal(err)
		}
	})
	w.t.Cleanup(w.proxy.Close)
}

func (w *world) apply(svc *corev1.Service, slices ...*discoveryv1.EndpointSlice) {
	w.t.Helper()
	o := Owner("service default/" + svc.Name)
	w.services[o] = Decide(svc, slices, Node{Name: "n1"})
	w.node.Do(func() {
		if err := w.proxy.Apply(context.Background(), map[Owner]Plan{o: w.services[o]}); err != nil {
			w.t.Fatal(err)
		}
	})
}

// answers asks n times and counts who answered.
func (w *world) answers(from *nettest.NS, network, addr string, n int) map[string]int {
	w.t.Helper()
	out := map[string]int{}
	for range n {
		s, err := from.Ask(network, addr)
		if err != nil {
			w.t.Fatalf("%s %s: %v\n%s", network, addr, err, w.node.Run("nft", "list", "table", "inet", "proa-test"))
		}
		out[s]++
	}
	return out
}

func (w *world) refused(from *nettest.NS, network, addr string) {
	w.t.Helper()
	var s string
	var err error
	for range 5 { // the kernel limits how many ICMP answers it gives per second
		s, err = from.Ask(network, addr)
		// A UDP sender on the node itself is told EPERM.
		if errors.Is(err, syscall.ECONNREFUSED) || network == "udp" && errors.Is(err, syscall.EPERM) {
			return
		}
	}
	w.t.Errorf("%s %s: got %q, %v; want connection refused", network, addr, s, err)
}

func service(name, ip string, change ...func(*corev1.Service)) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip},
			Ports: []corev1.ServicePort{
				{Name: "web", Protocol: corev1.ProtocolTCP, Port: 80},
				{Name: "udp", Protocol: corev1.ProtocolUDP, Port: 53},
			},
		},
	}
	for _, f := range change {
		f(svc)
	}
	return svc
}

func nodePorts(svc *corev1.Service) {
	svc.Spec.Type = corev1.ServiceTypeNodePort
	for i := range svc.Spec.Ports {
		svc.Spec.Ports[i].NodePort = 30000 + svc.Spec.Ports[i].Port
	}
}

func sticky(seconds int32) func(*corev1.Service) {
	return func(svc *corev1.Service) {
		svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		svc.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
}

func ptr[T any](v T) *T { return &v }

// slice has an endpoint per "ADDR@NODE" or "ADDR@NODE,not-ready" or "ADDR@NODE,terminating".
func slice(endpoints ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{
			{Name: ptr("web"), Protocol: ptr(corev1.ProtocolTCP), Port: ptr(int32(8080))},
			{Name: ptr("udp"), Protocol: ptr(corev1.ProtocolUDP), Port: ptr(int32(8081))},
		},
	}
	for _, e := range endpoints {
		at, state, _ := strings.Cut(e, ",")
		addr, node, _ := strings.Cut(at, "@")
		ep := discoveryv1.Endpoint{Addresses: []string{addr}, NodeName: &node}
		if strings.Contains(addr, ":") {
			s.AddressType = discoveryv1.AddressTypeIPv6
		}
		switch {
		case state == "terminating":
			ep.Conditions = discoveryv1.EndpointConditions{Ready: ptr(false), Serving: ptr(true), Terminating: ptr(true)}
		case state == "not-ready":
			ep.Conditions = discoveryv1.EndpointConditions{Ready: ptr(false), Serving: ptr(false)}
		case strings.HasPrefix(state, "zone="):
			ep.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: state[5:]}}}
		case strings.HasPrefix(state, "node="):
			ep.Hints = &discoveryv1.EndpointHints{ForNodes: []discoveryv1.ForNode{{Name: state[5:]}}}
		}
		s.Endpoints = append(s.Endpoints, ep)
	}
	return s
}

const both = 20 // asks after which two endpoints have both been seen, but for one time in 500,000

func TestTraffic(t *testing.T) {
	w := newWorld(t)
	w.apply(service("web", "10.96.0.10", nodePorts), slice("10.244.0.2@n1", "10.244.0.3@n1"))

	for _, c := range []struct {
		name, addr string
		from       *nettest.NS
	}{
		{"pod to cluster IP", "10.96.0.10:80", w.a},
		{"node to cluster IP", "10.96.0.10:80", w.node},
		{"outside to cluster IP", "10.96.0.10:80", w.outside},
		{"outside to node port", "192.0.2.1:30080", w.outside},
		{"node to its own node port", "192.0.2.1:30080", w.node},
		{"node to localhost", "127.0.0.1:30080", w.node},
		{"pod to node port", "192.0.2.1:30080", w.a},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := map[string]bool{}
			for who := range w.answers(c.from, "tcp", c.addr, both) {
				seen[strings.Fields(who)[0]] = true
			}
			if len(seen) != 2 {
				t.Errorf("only %v answered, want a and b", seen)
			}
		})
	}
	t.Run("a pod keeps its address, hairpin does not", func(t *testing.T) {
		got := w.answers(w.a, "tcp", "10.96.0.10:80", both)
		if got["b 10.244.0.2"] == 0 || got["a 10.244.0.2"] > 0 || got["a 10.244.0.1"]+got["a 192.0.2.1"] == 0 {
			t.Errorf("answers: %v", got)
		}
	})
	t.Run("udp", func(t *testing.T) {
		for addr, from := range map[string]*nettest.NS{"10.96.0.10:53": w.a, "192.0.2.1:30053": w.outside, "127.0.0.1:30053": w.node} {
			if got := w.answers(from, "udp", addr, both); len(got) != 2 {
				t.Errorf("%s: %v", addr, got)
			}
		}
	})
	t.Run("what no service has is refused", func(t *testing.T) {
		w.refused(w.a, "tcp", "10.96.0.10:81")
		w.refused(w.node, "tcp", "10.96.7.7:80")
	})
	t.Run("no endpoints", func(t *testing.T) {
		w.apply(service("web", "10.96.0.10", nodePorts))
		for _, network := range []string{"tcp", "udp"} {
			port := map[string]string{"tcp": "80", "udp": "53"}[network]
			w.refused(w.a, network, "10.96.0.10:"+port)
			w.refused(w.node, network, "10.96.0.10:"+port)
			w.refused(w.outside, network, "192.0.2.1:300"+port)
		}
	})
}

func TestUDPFollowsTheEndpoints(t *testing.T) {
	w := newWorld(t)
	w.apply(service("dns", "10.96.0.10", nodePorts), slice("10.244.0.2@n1"))
	for addr, from := range map[string]*nettest.NS{"10.96.0.10:53": w.b, "192.0.2.1:30053": w.outside} {
		c, err := from.Dial("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		w.apply(service("dns", "10.96.0.10", nodePorts), slice("10.244.0.2@n1"))
		if s, err := nettest.AskOn(c); s != "a" {
			t.Fatalf("%s: %q, %v", addr, s, err)
		}
		w.apply(service("dns", "10.96.0.10", nodePorts), slice("10.244.0.3@n1"))
		if s, err := nettest.AskOn(c); s != "b" {
			t.Fatalf("%s after the endpoint has moved: %q, %v", addr, s, err)
		}
	}
}

func TestAffinity(t *testing.T) {
	w := newWorld(t)
	change := []func(*corev1.Service){nodePorts, sticky(60)}
	w.apply(service("web", "10.96.0.10", change...), slice("10.244.0.2@n1", "10.244.0.3@n1"))
	for addr, from := range map[string]*nettest.NS{"10.96.0.10:80": w.node, "192.0.2.1:30080": w.outside} {
		w.apply(service("web", "10.96.0.10", change...), slice("10.244.0.2@n1", "10.244.0.3@n1"))
		first := w.answers(from, "tcp", addr, both)
		if len(first) != 1 {
			t.Fatalf("%s: a client met %v, want one endpoint", addr, first)
		}
		w.restart()
		if again := w.answers(from, "tcp", addr, both); fmt.Sprint(again) != fmt.Sprint(first) {
			t.Errorf("%s: after a restart %v, before %v", addr, again, first)
		}
		left, other := "10.244.0.2@n1", "a"
		for who := range first {
			if strings.HasPrefix(who, "a") {
				left, other = "10.244.0.3@n1", "b"
			}
		}
		w.apply(service("web", "10.96.0.10", change...), slice(left))
		for who := range w.answers(from, "tcp", addr, 3) {
			if !strings.HasPrefix(who, other) {
				t.Errorf("%s: %s answered, want %s", addr, who, other)
			}
		}
		w.apply(service("web", "10.96.0.10", change...), slice("10.244.0.2@n1", "10.244.0.3@n1"))
		for who := range w.answers(from, "tcp", addr, both) {
			if !strings.HasPrefix(who, other) {
				t.Errorf("%s: the client did not stay with %s: %s answered", addr, other, who)
			}
		}
	}
}

func TestExternal(t *testing.T) {
	w := newWorld(t)
	lb := func(svc *corev1.Service) {
		nodePorts(svc)
		svc.Spec.Type = corev1.ServiceTypeLoadBalancer
		svc.Spec.ExternalIPs = []string{"198.51.100.7"}
		svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "198.51.100.8"}}
	}
	local := func(svc *corev1.Service) {
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		svc.Spec.HealthCheckNodePort = 31999
	}
	w.apply(service("web", "10.96.0.10", lb), slice("10.244.0.2@n1", "10.244.0.3@n1"))
	for _, addr := range []string{"198.51.100.7:80", "198.51.100.8:80"} {
		if got := w.answers(w.outside, "tcp", addr, both); len(got) != 2 || got["a 192.0.2.9"] > 0 {
			t.Errorf("policy Cluster, %s: %v", addr, got)
		}
	}
	// b is said to be on another node.
	w.apply(service("web", "10.96.0.10", lb, local), slice("10.244.0.2@n1", "10.244.0.3@n2"))
	for _, addr := range []string{"198.51.100.7:80", "198.51.100.8:80", "192.0.2.1:30080"} {
		if got := w.answers(w.outside, "tcp", addr, both); len(got) != 1 || got["a 192.0.2.9"] == 0 {
			t.Errorf("policy Local, %s: %v", addr, got)
		}
		if got := w.answers(w.node, "tcp", addr, both); len(got) < 2 {
			t.Errorf("policy Local, %s from the node: %v", addr, got)
		}
	}
	w.apply(service("web", "10.96.0.10", lb, func(svc *corev1.Service) {
		svc.Spec.LoadBalancerSourceRanges = []string{"203.0.113.0/24", "203.0.113.0/26"}
	}), slice("10.244.0.2@n1"))
	if s, err := w.outside.Ask("tcp", "198.51.100.8:80"); err == nil {
		t.Errorf("a client outside the source ranges got %q", s)
	}
	w.answers(w.outside, "tcp", "198.51.100.7:80", 1)
	w.apply(service("web", "10.96.0.10", lb, func(svc *corev1.Service) {
		svc.Spec.LoadBalancerSourceRanges = []string{"203.0.113.0/24", "192.0.2.0/25"}
	}), slice("10.244.0.2@n1"))
	w.answers(w.outside, "tcp", "198.51.100.8:80", 1)
}

func TestHostPort(t *testing.T) {
	w := newWorld(t)
	pod := &corev1.Pod{
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{
			{HostPort: 8000, ContainerPort: 8080}, {HostPort: 8001, HostIP: "127.0.0.1", ContainerPort: 8080}}}}},
		Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.244.0.2"}}},
	}
	w.node.Do(func() {
		if err := w.proxy.Apply(context.Background(), map[Owner]Plan{"pod default/a": DecidePod(pod)}); err != nil {
			t.Fatal(err)
		}
	})
	for addr, from := range map[string]*nettest.NS{"192.0.2.1:8000": w.outside, "127.0.0.1:8000": w.node, "127.0.0.1:8001": w.node, "10.244.0.1:8000": w.a} {
		w.answers(from, "tcp", addr, 1)
	}
	w.refused(w.outside, "tcp", "192.0.2.1:8001")
	// From another of the node's addresses, as the conformance suite does.
	w.node.Do(func() {
		d := net.Dialer{Timeout: time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP("192.0.2.1")}}
		c, err := d.Dial("tcp", "127.0.0.1:8001")
		if err != nil {
			t.Errorf("from 192.0.2.1 to 127.0.0.1:8001: %v", err)
			return
		}
		c.Close()
	})
}

func TestBesideAnotherCluster(t *testing.T) {
	w := newWorld(t)
	w.apply(service("web", "10.96.0.10", nodePorts), slice("10.244.0.2@n1"))
	other := *w
	w.node.Do(func() {
		p, err := New(Config{Cluster: "other", Node: Node{Name: "n1"}, ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.97.0.0/16")}})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		plan := Decide(service("web", "10.97.0.10"), []*discoveryv1.EndpointSlice{slice("10.244.0.3@n1")}, Node{Name: "n1"})
		if err := p.Set(context.Background(), map[Owner]Plan{"service default/web": plan}); err != nil {
			t.Fatal(err)
		}
		other.proxy = p
	})
	w.answers(w.node, "tcp", "10.96.0.10:80", 2)
	w.answers(w.a, "tcp", "10.97.0.10:80", 2)
	w.answers(w.outside, "tcp", "192.0.2.1:30080", 2)
	w.node.Do(func() {
		if err := other.proxy.Down(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
	w.answers(w.node, "tcp", "10.96.0.10:80", 2)
	if tables := w.node.Run("nft", "list", "tables"); strings.Contains(tables, "proa-other") || !strings.Contains(tables, "proa-test") {
		t.Errorf("tables: %s", tables)
	}
}

func TestTableRemovedBySomebody(t *testing.T) {
	w := newWorld(t)
	w.apply(service("web", "10.96.0.10", nodePorts), slice("10.244.0.2@n1"))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var lost <-chan struct{}
	w.node.Do(func() {
		var err error
		if lost, err = nftwatch.Deleted(ctx, TableName("test")); err != nil {
			t.Fatal(err)
		}
	})
	w.node.Run("nft", "flush", "ruleset")
	select {
	case <-lost:
	case <-time.After(5 * time.Second):
		t.Fatal("the removal was not noticed")
	}
	w.node.Do(func() {
		if err := w.proxy.Restore(ctx); err != nil {
			t.Fatal(err)
		}
	})
	w.answers(w.node, "tcp", "10.96.0.10:80", 1)
	w.answers(w.outside, "tcp", "192.0.2.1:30080", 1)
}

// The DNS Service leads to the server in this node's process.
func TestServiceAnsweredByTheNode(t *testing.T) {
	w := newWorld(t)
	w.node.ServeUDP("192.0.2.1:10053", "node")
	w.node.ServeTCP("192.0.2.1:10053", "node")
	at := netip.MustParseAddrPort("192.0.2.1:10053")
	svc := service("dns", "10.96.0.10")
	w.apply(svc, answeredHere(svc, at, Node{Name: "n1"}))
	for _, from := range []*nettest.NS{w.a, w.node} {
		if got := w.answers(from, "udp", "10.96.0.10:53", 3); got["node"] != 3 {
			t.Errorf("udp: %v", got)
		}
		for who := range w.answers(from, "tcp", "10.96.0.10:80", 3) {
			if !strings.HasPrefix(who, "node") {
				t.Errorf("tcp: %s", who)
			}
		}
	}
}

func TestIPv6(t *testing.T) {
	nettest.NeedNFT(t)
	w := &world{t: t, services: map[Owner]Plan{}}
	w.node, w.outside = nettest.New(t), nettest.New(t)
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		t.Skip("needs IPv6")
	}
	w.node.Sysctl("net/ipv6/conf/all/forwarding", "1")
	nettest.Cable(w.node, w.outside, "eth0", "eth0", "2001:db8::1/64", "2001:db8::9/64")
	w.outside.Route("fd00:2::/112", "2001:db8::1")
	w.node.Route("fd00:2::/112", "2001:db8::9") // any route will do
	w.a = w.node.Pod("pod-a", "fd00:1::2", "fd00:1::1")
	w.b = w.node.Pod("pod-b", "fd00:1::3", "fd00:1::1")
	w.a.ServeTCP(":8080", "a")
	w.b.ServeTCP(":8080", "b")
	w.node.Do(func() {
		var err error
		w.proxy, err = New(Config{Cluster: "test", Node: Node{Name: "n1"}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("fd00:1::/64")},
			ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("fd00:2::/112")}})
		if err != nil {
			t.Fatal(err)
		}
	})
	w.apply(service("web", "fd00:2::a", nodePorts), slice("fd00:1::2@n1", "fd00:1::3@n1"))
	for range 5 { // the links' own addresses are being checked for duplicates
		if _, err := w.a.Ask("tcp", "[fd00:1::3]:8080"); err == nil {
			break
		}
	}
	for addr, from := range map[string]*nettest.NS{"[fd00:2::a]:80": w.a, "[2001:db8::1]:30080": w.outside} {
		seen := map[string]bool{}
		for who := range w.answers(from, "tcp", addr, both) {
			seen[who[:1]] = true
		}
		if len(seen) != 2 {
			t.Errorf("%s: %v", addr, seen)
		}
	}
	w.answers(w.node, "tcp", "[fd00:2::a]:80", 2)
	w.answers(w.outside, "tcp", "[fd00:2::a]:80", 2)
	w.refused(w.a, "tcp", "[fd00:2::b]:80")
	w.apply(service("web", "fd00:2::a", nodePorts, sticky(60)), slice("fd00:1::2@n1", "fd00:1::3@n1"))
	if got := w.answers(w.outside, "tcp", "[fd00:2::a]:80", both); len(got) != 1 {
		t.Errorf("sticky: %v", got)
	}
}

func TestDownLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.apply(service("web", "10.96.0.10", nodePorts), slice("10.244.0.2@n1"))
	w.answers(w.node, "tcp", "127.0.0.1:30080", 1)
	w.node.Do(func() {
		// Another run, that knows the cluster's name alone.
		p, err := New(Config{Cluster: "test"})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := p.Down(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	})
	if left := w.node.Run("nft", "list", "ruleset"); left != "" {
		t.Errorf("left: %s", left)
	}
	if left := strings.TrimSpace(w.node.Run("cat", routeLocalnet)); left != "0" {
		t.Errorf("route_localnet is %s", left)
	}
}
