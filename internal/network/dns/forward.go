package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

const (
	askTimeout = 2 * time.Second  // of one resolver
	avoidTime  = 10 * time.Second // a resolver that did not answer is asked last
	rereadTime = 5 * time.Second  // between looks at resolv.conf, when there is something to ask
	cacheSize  = 10000
	cacheMost  = 5 * time.Minute
	cacheNone  = 30 * time.Second // of negative answers
)

// forwarder asks other resolvers and remembers what they say. A question that
// is being asked is not asked again: if a resolver sends it back to us, it ends
// in a timeout, not in a storm.
type forwarder struct {
	file   string
	own    map[netip.AddrPort]bool
	log    *slog.Logger
	flight singleflight.Group
	udp    dns.Client
	tcp    dns.Client

	mu        sync.Mutex
	looked    time.Time
	changed   time.Time // of the file
	resolvers []string
	avoid     map[string]time.Time
	cache     map[question]remembered
}

type question struct {
	name     string
	typ      uint16
	do, noCD bool
}

type remembered struct {
	msg      *dns.Msg
	at, ends time.Time
}

func newForwarder(file string, own map[netip.AddrPort]bool, log *slog.Logger) *forwarder {
	return &forwarder{file: file, own: own, log: log, avoid: map[string]time.Time{}, cache: map[question]remembered{},
		udp: dns.Client{Net: "udp", Timeout: askTimeout, UDPSize: udpSize}, tcp: dns.Client{Net: "tcp", Timeout: askTimeout}}
}

// ask returns an answer whose records the caller may use but not change.
func (f *forwarder) ask(req *dns.Msg) (*dns.Msg, error) {
	q := question{name: strings.ToLower(req.Question[0].Name), typ: req.Question[0].Qtype, noCD: req.CheckingDisabled}
	if opt := req.IsEdns0(); opt != nil {
		q.do = opt.Do()
	}
	now := time.Now()
	if msg := f.recall(q, now); msg != nil {
		return msg, nil
	}
	v, err, _ := f.flight.Do(fmt.Sprint(q), func() (any, error) {
		msg, err := f.exchange(q)
		if err == nil {
			f.remember(q, msg, time.Now())
		}
		return msg, err
	})
	if err != nil {
		return nil, err
	}
	return v.(*dns.Msg), nil
}

func (f *forwarder) exchange(q question) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(q.name, q.typ)
	m.CheckingDisabled = q.noCD
	m.SetEdns0(udpSize, q.do)
	resolvers := f.usable(time.Now())
	if len(resolvers) == 0 {
		return nil, fmt.Errorf("%s names no resolver to ask for names outside the cluster", f.file)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*askTimeout)
	defer cancel()
	var last error
	for _, r := range resolvers {
		m.Id = dns.Id()
		resp, err := f.one(ctx, m, r)
		if err == nil && resp.Rcode == dns.RcodeFormatError { // from before EDNS0 (RFC 6891, 7)
			plain := m.Copy()
			plain.Extra = nil
			resp, err = f.one(ctx, plain, r)
		}
		if err == nil && resp.Rcode != dns.RcodeServerFailure && resp.Rcode != dns.RcodeRefused {
			return resp, nil
		}
		if err == nil {
			err = errors.New(dns.RcodeToString[resp.Rcode])
		}
		last = fmt.Errorf("resolver %s: %w", r, err)
		f.mu.Lock()
		f.avoid[r] = time.Now().Add(avoidTime)
		f.mu.Unlock()
	}
	return nil, last
}

// one resolver's answer, over TCP if it is too large for UDP.
func (f *forwarder) one(ctx context.Context, m *dns.Msg, resolver string) (*dns.Msg, error) {
	resp, _, err := f.udp.ExchangeContext(ctx, m, resolver)
	if err == nil && resp.Truncated {
		resp, _, err = f.tcp.ExchangeContext(ctx, m, resolver)
	}
	return resp, err
}

// usable resolvers, those that failed lately last.
func (f *forwarder) usable(now time.Time) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.looked) > rereadTime {
		f.looked = now
		f.read()
	}
	var good, bad []string
	for _, r := range f.resolvers {
		if now.Before(f.avoid[r]) {
			bad = append(bad, r)
		} else {
			good = append(good, r)
		}
	}
	return append(good, bad...)
}

func (f *forwarder) read() {
	st, err := os.Stat(f.file)
	if err != nil {
		f.resolvers, f.changed = nil, time.Time{}
		return
	}
	if st.ModTime().Equal(f.changed) {
		return
	}
	conf, err := dns.ClientConfigFromFile(f.file)
	if err != nil {
		f.log.Warn("resolvers cannot be read", "file", f.file, "error", err)
		return
	}
	f.changed, f.resolvers = st.ModTime(), nil
	for _, s := range conf.Servers {
		port, _ := strconv.ParseUint(conf.Port, 10, 16)
		ip, err := netip.ParseAddr(s)
		if err != nil || f.own[netip.AddrPortFrom(ip.Unmap(), uint16(port))] {
			continue
		}
		f.resolvers = append(f.resolvers, net.JoinHostPort(s, conf.Port))
	}
}

func (f *forwarder) remember(q question, msg *dns.Msg, now time.Time) {
	keep := cacheMost
	if len(msg.Answer) == 0 || msg.Rcode != dns.RcodeSuccess {
		keep = 0 // without an SOA nothing says how long
		for _, rr := range msg.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				keep = min(cacheNone, time.Duration(min(soa.Minttl, soa.Hdr.Ttl))*time.Second)
			}
		}
	}
	for _, rr := range msg.Answer {
		keep = min(keep, time.Duration(rr.Header().Ttl)*time.Second)
	}
	if keep <= 0 || msg.Rcode != dns.RcodeSuccess && msg.Rcode != dns.RcodeNameError {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for old, r := range f.cache {
		if len(f.cache) < cacheSize && now.Before(r.ends) {
			break // in a map's order: now and then something stale is met
		}
		delete(f.cache, old)
	}
	f.cache[q] = remembered{msg, now, now.Add(keep)}
}

// recall an answer, with what is left of its time.
func (f *forwarder) recall(q question, now time.Time) *dns.Msg {
	f.mu.Lock()
	r, ok := f.cache[q]
	f.mu.Unlock()
	if !ok || !now.Before(r.ends) {
		return nil
	}
	age := uint32(now.Sub(r.at) / time.Second)
	if age == 0 {
		return r.msg
	}
	msg := r.msg.Copy()
	for _, list := range [][]dns.RR{msg.Answer, msg.Ns, msg.Extra} {
		for _, rr := range list {
			if h := rr.Header(); h.Rrtype != dns.TypeOPT {
				h.Ttl -= min(h.Ttl, age)
			}
		}
	}
	return msg
}
