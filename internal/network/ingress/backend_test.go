package ingress

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"
)

// The name of a Service that is another name is looked up in the cluster, and may
// not lead to what listens for this machine alone.
func TestExternalName(t *testing.T) {
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var own netip.Addr
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
			own = p.Addr()
		}
	}
	if !own.IsValid() {
		t.Skip("needs an IPv4 address that is not a loopback one")
	}
	answers := map[string]string{"web.other.svc.cluster.local.": own.String(), "inside.example.com.": "127.0.0.1"}
	resolver := &mdns.Server{PacketConn: l, Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, req *mdns.Msg) {
		m := new(mdns.Msg).SetReply(req)
		q := req.Question[0]
		if ip, ok := answers[q.Name]; ok && q.Qtype == mdns.TypeA {
			m.Answer = append(m.Answer, &mdns.A{Hdr: mdns.RR_Header{Name: q.Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: 5}, A: net.ParseIP(ip)})
		} else if !ok {
			m.Rcode = mdns.RcodeNameError
		}
		w.WriteMsg(m)
	})}
	go resolver.ActivateAndServe()
	defer resolver.Shutdown()

	s := serve(t, HTTP, Options{})
	s.backends.resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", l.LocalAddr().String())
	}}
	web, err := net.Listen("tcp", netip.AddrPortFrom(own, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(web.Addr().String())
	outside := &http.Server{Handler: says("from outside")}
	go outside.Serve(web)
	defer outside.Close()
	local, _ := pod(t, says("secret"))
	_, localPort, _ := net.SplitHostPort(local)
	for _, c := range []struct {
		name, port string
		status     int
		word       string
	}{
		{"web.other.svc.cluster.local", port, 200, "from outside"},
		{"none.other.svc.cluster.local", port, 502, "no such host"},
		{"inside.example.com", localPort, 502, "leads to 127.0.0.1"},
		{"127.0.0.1", localPort, 502, "leads to 127.0.0.1"},
		{"169.254.169.254", "80", 502, "leads to 169.254.169.254"},
		{"localhost", localPort, 502, ""},
	} {
		s.set(Backend{Protocol: HTTP, External: true, Endpoints: []string{net.JoinHostPort(c.name, c.port)}})
		if code, body := get(t, s.url); code != c.status || !strings.Contains(body, c.word) || strings.Contains(body, "secret") {
			t.Errorf("%s: %d %s", c.name, code, body)
		}
	}
}
