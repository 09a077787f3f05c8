package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Config of a server.
type Config struct {
	Index *Index
	// Networks are the cluster's Service and pod ranges: the names of their
	// addresses are known here or nowhere.
	Networks []netip.Prefix
	// ResolvConf names the resolvers for all other names, read again when it
	// changes. "" = /etc/resolv.conf.
	ResolvConf string
	// Own are addresses that lead here (the cluster DNS IP): never forwarded to.
	Own []netip.Addr
	Log *slog.Logger
}

// Server answers queries.
type Server struct {
	cfg     Config
	forward *forwarder
	turn    atomic.Uint32
	udp     net.PacketConn
	tcp     net.Listener
}

// udpSize is what we take and send in one UDP packet (DNS flag day 2020).
const udpSize = 1232

// Listen opens UDP and TCP of addr ("192.0.2.1:10053", port 0 = any, the same for both).
func Listen(cfg Config, addr string) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	udp, tcp, err := listenBoth(addr)
	if err != nil {
		return nil, fmt.Errorf("cluster DNS: %s cannot be listened on: %w", addr, err)
	}
	at := tcp.Addr().(*net.TCPAddr).AddrPort()
	_ = udp.SetReadBuffer(1 << 20)
	s := &Server{cfg: cfg, udp: udp, tcp: tcp}
	own := map[netip.AddrPort]bool{at: true}
	for _, ip := range cfg.Own {
		own[netip.AddrPortFrom(ip, 53)] = true
	}
	s.forward = newForwarder(cfg.ResolvConf, own, cfg.Log)
	return s, nil
}

// listenBoth opens one port for both protocols. A port that TCP was given may be
// taken for UDP: then another is tried, if any will do.
func listenBoth(addr string) (udp *net.UDPConn, tcp net.Listener, err error) {
	for range 10 {
		if tcp, err = net.Listen("tcp", addr); err != nil {
			return nil, nil, err
		}
		if udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(tcp.Addr().(*net.TCPAddr).AddrPort())); err == nil {
			return udp, tcp, nil
		}
		_ = tcp.Close()
		if _, port, _ := net.SplitHostPort(addr); port != "0" {
			break
		}
	}
	return nil, nil, err
}

// Addr both protocols are served on.
func (s *Server) Addr() netip.AddrPort { return s.tcp.Addr().(*net.TCPAddr).AddrPort() }

// Serve answers until ctx ends. It begins when the index is complete; what is
// asked before waits in the sockets.
func (s *Server) Serve(ctx context.Context) error {
	select {
	case <-s.cfg.Index.ready:
	case <-ctx.Done():
		_ = s.udp.Close()
		_ = s.tcp.Close()
		return ctx.Err()
	}
	servers := []*dns.Server{{PacketConn: s.udp, Handler: s, UDPSize: udpSize}, {Listener: s.tcp, Handler: s, IdleTimeout: func() time.Duration { return 30 * time.Second }}}
	ended := make(chan error, len(servers))
	for _, d := range servers {
		go func() { ended <- d.ActivateAndServe() }()
	}
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = ctx.Err()
	}
	_ = s.udp.Close()
	_ = s.tcp.Close()
	if errors.Is(err, net.ErrClosed) {
		err = ctx.Err()
	}
	return err
}

// ServeDNS answers one query.
func (s *Server) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	// Whatever a pod asks must not end this process.
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.Error("a DNS query could not be answered", "query", fmt.Sprint(req.Question), "error", p, "stack", string(debug.Stack()))
			_ = w.WriteMsg(new(dns.Msg).SetRcode(req, dns.RcodeServerFailure))
		}
	}()
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	resp := s.Answer(req)
	size := dns.MaxMsgSize
	if udp {
		size = dns.MinMsgSize
		if opt := req.IsEdns0(); opt != nil {
			size = max(dns.MinMsgSize, min(int(opt.UDPSize()), udpSize))
		}
	}
	resp.Compress = true
	resp.Truncate(size)
	if err := w.WriteMsg(resp); err != nil {
		s.cfg.Log.Debug("a DNS answer could not be sent", "to", w.RemoteAddr().String(), "error", err)
	}
}

// Answer a query.
func (s *Server) Answer(req *dns.Msg) *dns.Msg {
	resp := new(dns.Msg)
	resp.SetReply(req)
	resp.RecursionAvailable = true
	if opt := req.IsEdns0(); opt != nil {
		resp.SetEdns0(udpSize, opt.Do())
		if opt.Version() != 0 {
			resp.Rcode = dns.RcodeBadVers
			return resp
		}
	}
	switch {
	case req.Opcode != dns.OpcodeQuery:
		resp.Rcode = dns.RcodeNotImplemented
		return resp
	case len(req.Question) != 1:
		resp.Rcode = dns.RcodeFormatError
		return resp
	case req.Question[0].Qclass != dns.ClassINET && req.Question[0].Qclass != dns.ClassANY:
		resp.Rcode = dns.RcodeRefused
		return resp
	}
	q := req.Question[0]
	name := strings.ToLower(q.Name)
	switch {
	case name == s.cfg.Index.zone || strings.HasSuffix(name, "."+s.cfg.Index.zone):
		s.inZone(resp, q, name)
	case strings.HasSuffix(name, ".arpa.") && s.reverse(resp, q, name):
	default:
		s.elsewhere(resp, req)
	}
	return resp
}

// inZone answers with authority.
func (s *Server) inZone(resp *dns.Msg, q dns.Question, name string) {
	resp.Authoritative = true
	zone := s.cfg.Index.zone
	switch {
	case name == zone:
		if q.Qtype == dns.TypeSOA || q.Qtype == dns.TypeANY {
			resp.Answer = append(resp.Answer, s.soa())
		}
		if q.Qtype == dns.TypeNS || q.Qtype == dns.TypeANY {
			resp.Answer = append(resp.Answer, &dns.NS{Hdr: header(zone, dns.TypeNS, ttlService), Ns: "ns.dns." + zone})
		}
	case name == "dns-version."+zone:
		if q.Qtype == dns.TypeTXT || q.Qtype == dns.TypeANY {
			resp.Answer = append(resp.Answer, &dns.TXT{Hdr: header(q.Name, dns.TypeTXT, ttlService), Txt: []string{SchemaVersion}})
		}
	case name == "ns.dns."+zone:
		for _, ip := range s.cfg.Own {
			if rr := address(q.Name, ip, ttlService); rr.Header().Rrtype == q.Qtype {
				resp.Answer = append(resp.Answer, rr)
			}
		}
	case name == "svc."+zone || name == "dns."+zone: // exist, whatever is below
	default:
		records, exists := s.cfg.Index.Find(name)
		if !exists {
			resp.Rcode = dns.RcodeNameError
			break
		}
		s.take(resp, q, records)
	}
	if len(resp.Answer) == 0 {
		resp.Ns = append(resp.Ns, s.soa())
	}
}

// take the records of the type asked for, in an order that changes so that
// clients which use the first share the endpoints; the addresses of SRV
// targets go along.
func (s *Server) take(resp *dns.Msg, q dns.Question, records []dns.RR) {
	from := 0
	if len(records) > 1 {
		from = int(s.turn.Add(1) % uint32(len(records)))
	}
	for i := range records {
		rr := records[(from+i)%len(records)]
		switch t := rr.Header().Rrtype; {
		case t == q.Qtype || q.Qtype == dns.TypeANY:
			if rr.Header().Name != q.Name { // answer in the case that was asked in
				rr = dns.Copy(rr)
				rr.Header().Name = q.Name
			}
			resp.Answer = append(resp.Answer, rr)
		case t == dns.TypeCNAME:
			rr = dns.Copy(rr)
			rr.Header().Name = q.Name
			resp.Answer = append(resp.Answer, rr)
			s.follow(resp, rr.(*dns.CNAME).Target, q.Qtype)
		}
	}
	if q.Qtype != dns.TypeSRV {
		return
	}
	done := map[string]bool{}
	for _, rr := range resp.Answer {
		srv, ok := rr.(*dns.SRV) // or the CNAME that led here
		if !ok || done[srv.Target] {
			continue
		}
		done[srv.Target] = true
		more, _ := s.cfg.Index.Find(srv.Target)
		for _, a := range more {
			if t := a.Header().Rrtype; t == dns.TypeA || t == dns.TypeAAAA {
				resp.Extra = append(resp.Extra, a)
			}
		}
	}
}

// follow adds what the target of a CNAME is.
func (s *Server) follow(resp *dns.Msg, target string, qtype uint16) {
	if len(resp.Answer) > 8 { // a circle
		return
	}
	next := new(dns.Msg)
	next.SetQuestion(target, qtype)
	name := strings.ToLower(target)
	if strings.HasSuffix(name, "."+s.cfg.Index.zone) {
		if records, ok := s.cfg.Index.Find(name); ok {
			s.take(resp, next.Question[0], records)
		}
		return
	}
	if got, err := s.forward.ask(next); err == nil {
		resp.Answer = append(resp.Answer, got.Answer...)
	}
}

// reverse answers for addresses of the cluster; false = it is none.
func (s *Server) reverse(resp *dns.Msg, q dns.Question, name string) bool {
	if records, ok := s.cfg.Index.Find(name); ok && len(records) > 0 {
		resp.Authoritative = true
		s.take(resp, q, records)
		return true
	}
	ip, ok := reverseAddr(name)
	if !ok {
		return false
	}
	for _, n := range s.cfg.Networks {
		if n.Contains(ip) {
			resp.Authoritative = true
			resp.Rcode = dns.RcodeNameError
			resp.Ns = append(resp.Ns, s.soa())
			return true
		}
	}
	return false
}

func (s *Server) elsewhere(resp, req *dns.Msg) {
	got, err := s.forward.ask(req)
	if err != nil {
		resp.Rcode = dns.RcodeServerFailure
		if opt := resp.IsEdns0(); opt != nil { // RFC 8914: say why
			opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeNetworkError, ExtraText: err.Error()})
		}
		return
	}
	resp.Rcode, resp.Answer, resp.Ns = got.Rcode, got.Answer, got.Ns
	resp.AuthenticatedData = got.AuthenticatedData
	for _, rr := range got.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			resp.Extra = append(resp.Extra, rr)
		}
	}
}

func (s *Server) soa() dns.RR {
	zone := s.cfg.Index.zone
	return &dns.SOA{Hdr: header(zone, dns.TypeSOA, ttlNegative), Ns: "ns.dns." + zone, Mbox: "hostmaster." + zone,
		Serial: uint32(time.Now().Unix()), Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttlNegative}
}

// reverseAddr reads 5.0.244.10.in-addr.arpa. and its IPv6 kind.
func reverseAddr(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		l := strings.Split(rest, ".")
		if len(l) != 4 {
			return netip.Addr{}, false
		}
		ip, err := netip.ParseAddr(l[3] + "." + l[2] + "." + l[1] + "." + l[0])
		return ip, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa.")
	if !ok {
		return netip.Addr{}, false
	}
	l := strings.Split(rest, ".")
	if len(l) != 32 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		n, err := strconv.ParseUint(l[31-i], 16, 4)
		if err != nil {
			return netip.Addr{}, false
		}
		b[i/2] |= byte(n) << (4 * (1 - i%2))
	}
	return netip.AddrFrom16(b), true
}
