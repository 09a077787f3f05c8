package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/miekg/dns"
)

func ptr[T any](v T) *T { return &v }

func svc(name, ip string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: strings.Split(ip, ","),
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}, {Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}}},
	}
}

func index() *Index {
	x := NewIndex("cluster.local")
	x.SetNamespace("shop", true)
	dual := svc("web", "10.96.0.7,fd00::7")
	dual.Spec.ClusterIP = "10.96.0.7"
	x.Set("shop/web", Of(x.Zone(), dual, nil))
	ext := svc("ext", "")
	ext.Spec.Type, ext.Spec.ExternalName = corev1.ServiceTypeExternalName, "www.example.com"
	x.Set("shop/ext", Of(x.Zone(), ext, nil))
	inside := svc("inside", "")
	inside.Spec.Type, inside.Spec.ExternalName = corev1.ServiceTypeExternalName, "web.shop.svc.cluster.local"
	x.Set("shop/inside", Of(x.Zone(), inside, nil))
	for at, to := range map[string]string{"ring": "gnir", "gnir": "ring"} {
		ring := svc(at, "")
		ring.Spec.Type, ring.Spec.ExternalName = corev1.ServiceTypeExternalName, to+".shop.svc.cluster.local"
		x.Set("shop/"+at, Of(x.Zone(), ring, nil))
	}
	slice := &discoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr("http"), Port: ptr(int32(8080)), Protocol: ptr(corev1.ProtocolTCP)}},
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.244.0.5"}, Hostname: ptr("db-0")},
			{Addresses: []string{"10.244.0.6"}},
			{Addresses: []string{"10.244.0.7"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr(false)}},
		},
	}
	x.Set("shop/db", Of(x.Zone(), svc("db", "None"), []*discoveryv1.EndpointSlice{slice}))
	return x
}

// upstream is a resolver that knows www.example.com, big.example.com (which
// needs TCP) and missing.example.com (which is not there).
func upstream(t testing.TB, asked *atomic.Int32) string {
	pc, l, err := listenBoth("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		asked.Add(1)
		m := new(dns.Msg)
		m.SetReply(req)
		name := req.Question[0].Name
		switch name {
		case "old.example.com.":
			if req.IsEdns0() != nil {
				m.Rcode = dns.RcodeFormatError
				break
			}
			m.Answer = append(m.Answer, address(name, netip.MustParseAddr("192.0.2.81"), 60))
		case "srv.example.com.":
			m.Answer = append(m.Answer, &dns.CNAME{Hdr: header(name, dns.TypeCNAME, 60), Target: "www.example.com."})
		case "www.example.com.":
			if req.Question[0].Qtype != dns.TypeA {
				m.Ns = append(m.Ns, &dns.SOA{Hdr: header("com.", dns.TypeSOA, 60), Ns: "a.", Mbox: "b.", Minttl: 60})
				break
			}
			m.Answer = append(m.Answer, address(name, netip.MustParseAddr("192.0.2.80"), 60))
		case "big.example.com.":
			if w.RemoteAddr().Network() == "udp" {
				m.Truncated = true
				break
			}
			for i := range 200 {
				m.Answer = append(m.Answer, address(name, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 60))
			}
		default:
			m.Rcode = dns.RcodeNameError
			m.Ns = append(m.Ns, &dns.SOA{Hdr: header("com.", dns.TypeSOA, 60), Ns: "a.", Mbox: "b.", Minttl: 60})
		}
		w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		up := make(chan bool)
		s.NotifyStartedFunc = func() { close(up) }
		go s.ActivateAndServe()
		<-up
		t.Cleanup(func() { s.Shutdown() })
	}
	return pc.LocalAddr().String()
}

// serve starts a server that forwards to the resolver given ("" = none).
func serve(t testing.TB, resolver string) *Server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 10.96.0.10\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := Listen(Config{Index: index(), ResolvConf: file, Own: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, Log: slog.New(slog.DiscardHandler),
		Networks: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.244.0.0/16")}}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if resolver != "" { // resolv.conf cannot name a port
		s.forward.resolvers, s.forward.looked = []string{resolver}, time.Now().Add(time.Hour)
	}
	s.cfg.Index.Complete()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return s
}

func ask(t testing.TB, s *Server, network, name string, typ uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, typ)
	c := dns.Client{Net: network, Timeout: 5 * time.Second}
	resp, _, err := c.Exchange(m, s.Addr().String())
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return resp
}

// short is an answer in words, sorted.
func short(m *dns.Msg) string {
	var out []string
	for _, rr := range m.Answer {
		h := rr.Header()
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s", dns.TypeToString[h.Rrtype], strings.TrimPrefix(rr.String(), h.String()))))
	}
	slices.Sort(out)
	if m.Rcode != dns.RcodeSuccess {
		out = append(out, dns.RcodeToString[m.Rcode])
	}
	return strings.Join(out, "; ")
}

func TestSchema(t *testing.T) {
	var asked atomic.Int32
	s := serve(t, upstream(t, &asked))
	for _, c := range []struct {
		name string
		typ  uint16
		want string
	}{
		{"web.shop.svc.cluster.local.", dns.TypeA, "A 10.96.0.7"},
		{"WEB.shop.svc.Cluster.local.", dns.TypeA, "A 10.96.0.7"},
		{"web.shop.svc.cluster.local.", dns.TypeAAAA, "AAAA fd00::7"},
		{"_http._tcp.web.shop.svc.cluster.local.", dns.TypeSRV, "SRV 0 100 80 web.shop.svc.cluster.local."},
		{"_dns._udp.web.shop.svc.cluster.local.", dns.TypeSRV, "SRV 0 100 53 web.shop.svc.cluster.local."},
		{"_http._udp.web.shop.svc.cluster.local.", dns.TypeSRV, "NXDOMAIN"},
		{"7.0.96.10.in-addr.arpa.", dns.TypePTR, "PTR web.shop.svc.cluster.local."},
		{"7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, "PTR web.shop.svc.cluster.local."},
		{"db.shop.svc.cluster.local.", dns.TypeA, "A 10.244.0.5; A 10.244.0.6"},
		{"db-0.db.shop.svc.cluster.local.", dns.TypeA, "A 10.244.0.5"},
		{"10-244-0-6.db.shop.svc.cluster.local.", dns.TypeA, "A 10.244.0.6"},
		{"_http._tcp.db.shop.svc.cluster.local.", dns.TypeSRV, "SRV 0 100 8080 10-244-0-6.db.shop.svc.cluster.local.; SRV 0 100 8080 db-0.db.shop.svc.cluster.local."},
		{"5.0.244.10.in-addr.arpa.", dns.TypePTR, "PTR db-0.db.shop.svc.cluster.local."},
		{"9.0.244.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{"ext.shop.svc.cluster.local.", dns.TypeA, "A 192.0.2.80; CNAME www.example.com."},
		{"ext.shop.svc.cluster.local.", dns.TypeCNAME, "CNAME www.example.com."},
		{"ext.shop.svc.cluster.local.", dns.TypeSRV, "CNAME www.example.com."},
		{"inside.shop.svc.cluster.local.", dns.TypeA, "A 10.96.0.7; CNAME web.shop.svc.cluster.local."},
		{"_http._tcp.inside.shop.svc.cluster.local.", dns.TypeSRV, "NXDOMAIN"},
		{"10-244-0-9.shop.pod.cluster.local.", dns.TypeA, "A 10.244.0.9"},
		{"10-244-0-9.none.pod.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"x.shop.pod.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"dns-version.cluster.local.", dns.TypeTXT, `TXT "1.1.0"`},
		{"cluster.local.", dns.TypeNS, "NS ns.dns.cluster.local."},
		{"ns.dns.cluster.local.", dns.TypeA, "A 10.96.0.10"},
		{"none.shop.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"web.shop.svc.cluster.local.", dns.TypeMX, ""},
		{"shop.svc.cluster.local.", dns.TypeA, ""}, // names lie below it: it exists
		{"www.example.com.", dns.TypeA, "A 192.0.2.80"},
		{"missing.example.com.", dns.TypeA, "NXDOMAIN"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			m := ask(t, s, network, c.name, c.typ)
			if got := short(m); got != c.want {
				t.Errorf("%s %s %s: %q, want %q", network, dns.TypeToString[c.typ], c.name, got, c.want)
			}
			if m.Question[0].Name != c.name || len(m.Answer) > 0 && m.Answer[0].Header().Name != c.name {
				t.Errorf("%s: the answer is in another case", c.name)
			}
			if len(m.Answer) == 0 && (len(m.Ns) != 1 || m.Ns[0].Header().Rrtype != dns.TypeSOA) {
				t.Errorf("%s: a negative answer without SOA", c.name)
			}
		}
	}
}

func TestIndexFollows(t *testing.T) {
	x := index()
	find := func(name string) bool { _, ok := x.Find(name); return ok }
	x.Set("shop/web", Of(x.Zone(), svc("web", "10.96.0.8"), nil))
	if find("7.0.96.10.in-addr.arpa.") || !find("8.0.96.10.in-addr.arpa.") {
		t.Error("the address did not change")
	}
	for _, owner := range []string{"shop/web", "shop/ext", "shop/db", "shop/inside", "shop/ring", "shop/gnir"} {
		x.Set(owner, nil)
	}
	if len(x.owners) != 0 || len(x.names) != 0 {
		t.Errorf("left: %v %v", x.owners, x.names)
	}
}

func TestTruncation(t *testing.T) {
	var asked atomic.Int32
	s := serve(t, upstream(t, &asked))
	m := ask(t, s, "udp", "big.example.com.", dns.TypeA)
	m.Compress = true
	if !m.Truncated || m.Len() > 512 {
		t.Errorf("%d bytes over UDP, truncated %v", m.Len(), m.Truncated)
	}
	if m := ask(t, s, "tcp", "big.example.com.", dns.TypeA); m.Truncated || len(m.Answer) != 200 {
		t.Errorf("%d answers over TCP", len(m.Answer))
	}
	m = new(dns.Msg)
	m.SetQuestion("big.example.com.", dns.TypeA)
	m.SetEdns0(4096, false)
	c := dns.Client{UDPSize: 4096}
	resp, _, err := c.Exchange(m, s.Addr().String())
	if err != nil || resp.IsEdns0() == nil || !resp.Truncated || len(resp.Answer) < 50 {
		t.Errorf("with EDNS0: %v, %d answers", err, len(resp.Answer))
	}
}

func TestForwardedAnswersAreRemembered(t *testing.T) {
	var asked atomic.Int32
	s := serve(t, upstream(t, &asked))
	for range 3 {
		ask(t, s, "udp", "www.example.com.", dns.TypeA)
		ask(t, s, "udp", "missing.example.com.", dns.TypeA)
	}
	if asked.Load() != 2 {
		t.Errorf("the resolver was asked %d times, want 2", asked.Load())
	}
	q := question{name: "www.example.com.", typ: dns.TypeA}
	if m := s.forward.recall(q, time.Now().Add(20*time.Second)); m == nil || m.Answer[0].Header().Ttl > 41 {
		t.Errorf("20 s later: %v", m)
	}
	if m := s.forward.recall(q, time.Now().Add(61*time.Second)); m != nil {
		t.Errorf("after its time: %v", m)
	}
}

func TestCircleOfExternalNames(t *testing.T) {
	var asked atomic.Int32
	s := serve(t, upstream(t, &asked))
	for _, typ := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypeANY, dns.TypeCNAME} {
		if m := ask(t, s, "tcp", "ring.shop.svc.cluster.local.", typ); len(m.Answer) == 0 || len(m.Answer) > 10 {
			t.Errorf("%s: %d answers", dns.TypeToString[typ], len(m.Answer))
		}
	}
}

func TestResolverFromBeforeEDNS(t *testing.T) {
	var asked atomic.Int32
	s := serve(t, upstream(t, &asked))
	if got := short(ask(t, s, "udp", "old.example.com.", dns.TypeA)); got != "A 192.0.2.81" {
		t.Error(got)
	}
}

// What a pod sends may be anything.
func FuzzAnswer(f *testing.F) {
	var asked atomic.Int32
	s := serve(f, upstream(f, &asked))
	for _, name := range []string{"web.shop.svc.cluster.local.", "ext.shop.svc.cluster.local.", "ring.shop.svc.cluster.local.", "5.0.244.10.in-addr.arpa.", "-.shop.pod.cluster.local.", "."} {
		for _, typ := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypeANY, dns.TypePTR, dns.TypeAXFR} {
			m := new(dns.Msg)
			m.SetQuestion(name, typ)
			m.SetEdns0(1232, true)
			b, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil {
			return
		}
		resp := s.Answer(m)
		resp.Truncate(512)
		if _, err := resp.Pack(); err != nil && len(m.Question) == 1 {
			t.Errorf("%v: %v", m.Question, err)
		}
	})
}

func TestResolver(t *testing.T) {
	s := serve(t, "")
	r := Resolver(s.Addr())
	if got, err := r.LookupNetIP(context.Background(), "ip4", "web.shop.svc.cluster.local."); err != nil || len(got) != 1 || got[0].String() != "10.96.0.7" {
		t.Errorf("%v %v", got, err)
	}
}

func TestNoResolver(t *testing.T) {
	s := serve(t, "") // its resolv.conf names the cluster DNS itself: a loop
	m := new(dns.Msg)
	m.SetQuestion("www.example.com.", dns.TypeA)
	m.SetEdns0(1232, false)
	resp := s.Answer(m)
	if resp.Rcode != dns.RcodeServerFailure || !strings.Contains(resp.String(), "names no resolver") {
		t.Errorf("%v", resp)
	}
	if got := short(ask(t, s, "udp", "web.shop.svc.cluster.local.", dns.TypeA)); got != "A 10.96.0.7" {
		t.Errorf("the cluster's names: %s", got)
	}
}

func TestPublishedEndpoints(t *testing.T) {
	node := func(name, ip string, ready corev1.ConditionStatus) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: ip}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}}}
	}
	s := EndpointSlice([]*corev1.Node{node("b", "192.0.2.2", corev1.ConditionUnknown), node("a", "192.0.2.1", corev1.ConditionTrue)}, 10053)
	if len(s.Endpoints) != 2 || s.Endpoints[0].Addresses[0] != "192.0.2.1" || s.Endpoints[0].Hints.ForNodes[0].Name != "a" || !*s.Endpoints[0].Conditions.Ready || *s.Endpoints[1].Conditions.Ready {
		t.Errorf("%+v", s.Endpoints)
	}
	s = EndpointSlice([]*corev1.Node{node("a", "192.0.2.1", corev1.ConditionFalse)}, 10053)
	if !*s.Endpoints[0].Conditions.Ready {
		t.Error("with no node ready, none serves")
	}
}

func BenchmarkAnswer(b *testing.B) {
	s := serve(b, "")
	for i := range 10000 {
		v := svc(fmt.Sprintf("s%d", i), fmt.Sprintf("10.97.%d.%d", i>>8, i&255))
		s.cfg.Index.Set("shop/"+v.Name, Of(s.cfg.Index.Zone(), v, nil))
	}
	m := new(dns.Msg)
	m.SetQuestion("web.shop.svc.cluster.local.", dns.TypeA)
	for b.Loop() {
		if len(s.Answer(m).Answer) != 1 {
			b.Fatal("no answer")
		}
	}
}

func BenchmarkUDP(b *testing.B) {
	s := serve(b, "")
	b.RunParallel(func(pb *testing.PB) {
		c := dns.Client{}
		conn, err := c.Dial(s.Addr().String())
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		m := new(dns.Msg)
		m.SetQuestion("web.shop.svc.cluster.local.", dns.TypeA)
		for pb.Next() {
			if _, _, err := c.ExchangeWithConn(m, conn); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "queries/s")
}
