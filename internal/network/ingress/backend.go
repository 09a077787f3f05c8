package ingress

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// An endpoint that cannot be connected to is passed over for a while that
// doubles each time, if there are others.
const (
	avoidFirst = 500 * time.Millisecond
	avoidMost  = 10 * time.Second
)

// A request that cannot be repeated is lost when it meets a server that is just
// closing the idle connection it is sent on, as every server does that shuts
// down. So such requests get a connection of their own, up to ownConnections a
// second; beyond that dialing costs more than it saves (each one stays in the
// kernel's connection table for two minutes), and they go on connections that
// idled no longer than freshness.
const (
	ownConnections = 250
	freshness      = time.Second
)

// dialTimeout is how long one endpoint may take to accept a connection.
const dialTimeout = 5 * time.Second

// shared is what all backends have in common.
type shared struct {
	own      budget
	now      func() time.Time
	resolver *net.Resolver // for names of Services, nil = the host's
}

// backend is a Backend at work.
type backend struct {
	*shared
	key      BackendKey
	protocol Protocol
	external bool

	set   sync.Mutex // one update at a time
	all   atomic.Pointer[[]*endpoint]
	fault atomic.Pointer[string]
	turn  atomic.Uint32
}

// endpoint is one address, with its connections.
type endpoint struct {
	addr string
	open atomic.Int64 // requests under way
	// failures in a row to connect, and until when it is avoided (Unix nanoseconds).
	failures   atomic.Int32
	avoidUntil atomic.Int64
	// kept carries what may be repeated; own and fresh what may not, if they are
	// not nil.
	kept, fresh, own *http.Transport
	budget           *budget
}

// budget of connections of their own.
type budget struct {
	mu     sync.Mutex
	second int64 // Unix time that spent counts for
	spent  int
}

func (b *budget) spend(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := now.Unix(); s != b.second {
		b.second, b.spent = s, 0
	}
	b.spent++
	return b.spent <= ownConnections
}

// transport for a request.
func (e *endpoint) transport(safe bool, now time.Time) *http.Transport {
	switch {
	case safe || e.own == nil:
		return e.kept
	case e.budget.spend(now):
		return e.own
	}
	return e.fresh
}

func newBackend(key BackendKey, want Backend, all *shared) *backend {
	b := &backend{shared: all, key: key, protocol: want.Protocol, external: want.External}
	b.all.Store(new([]*endpoint))
	b.fault.Store(new(string))
	return b
}

// update puts new endpoints in force. Those that leave keep the requests they
// have; their idle connections are closed.
func (b *backend) update(want Backend) {
	b.set.Lock()
	defer b.set.Unlock()
	b.fault.Store(&want.Fault)
	old := *b.all.Load()
	var next []*endpoint
	for _, addr := range want.Endpoints {
		if i := slices.IndexFunc(old, func(e *endpoint) bool { return e.addr == addr }); i >= 0 {
			next = append(next, old[i])
		} else {
			next = append(next, b.newEndpoint(addr))
		}
	}
	b.all.Store(&next)
	for _, e := range old {
		if !slices.Contains(next, e) {
			e.drain()
		}
	}
}

func (b *backend) newEndpoint(addr string) *endpoint {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	if b.external {
		dialer.Resolver, dialer.ControlContext = b.resolver, notThisMachine
	}
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		if b.external {
			addr = absolute(addr)
		}
		c, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &counted{Conn: c}, nil
	}
	transport := func(idle time.Duration) *http.Transport {
		t := &http.Transport{
			DialContext:           dial,
			MaxIdleConnsPerHost:   512,
			IdleConnTimeout:       idle,
			DisableCompression:    true, // bodies pass as they are
			WriteBufferSize:       8 << 10,
			ReadBufferSize:        8 << 10,
			ExpectContinueTimeout: time.Second,
			Protocols:             new(http.Protocols),
		}
		switch b.protocol {
		case H2C:
			t.Protocols.SetUnencryptedHTTP2(true)
			t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 30 * time.Second}
		case HTTPS:
			t.Protocols.SetHTTP1(true)
			t.Protocols.SetHTTP2(true)
			// Pods have no certificates that anybody could check.
			t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		default:
			t.Protocols.SetHTTP1(true)
		}
		return t
	}
	e := &endpoint{addr: addr, budget: &b.own, kept: transport(90 * time.Second)}
	if b.protocol == HTTP { // HTTP/2 says which requests it will not answer, and TLS costs more to begin
		e.fresh, e.own = transport(freshness), transport(0)
		e.own.DisableKeepAlives = true
	}
	return e
}

// notThisMachine keeps whoever may write a Service from programs that listen for
// this machine alone, and from a cloud's metadata: endpoints cannot have such
// addresses either (API).
func notThisMachine(_ context.Context, _, addr string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	if ip := at.Addr().Unmap(); ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast() {
		return fmt.Errorf("the externalName leads to %s, which means something else on every machine", ip)
	}
	return nil
}

// absolute makes a name one that no search domain is tried for.
func absolute(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if _, ip := netip.ParseAddr(host); err != nil || ip == nil || strings.HasSuffix(host, ".") {
		return addr
	}
	return net.JoinHostPort(host+".", port)
}

// drain lets the endpoint go: connections close as they fall idle.
func (e *endpoint) drain() {
	for _, t := range []*http.Transport{e.kept, e.fresh, e.own} {
		if t != nil {
			t.CloseIdleConnections()
		}
	}
}

// pick chooses the endpoint with the fewest open requests, of those not tried
// and not avoided; if all are avoided, of those not tried. Equals take turns.
func (b *backend) pick(tried []*endpoint) *endpoint {
	all := *b.all.Load()
	if len(all) == 0 {
		return nil
	}
	now, from := b.now().UnixNano(), int(b.turn.Add(1))
	var best, avoided *endpoint
	for i := range all {
		e := all[(from+i)%len(all)]
		if slices.Contains(tried, e) {
			continue
		}
		if e.avoidUntil.Load() > now {
			if avoided == nil || e.avoidUntil.Load() < avoided.avoidUntil.Load() {
				avoided = e
			}
			continue
		}
		if best == nil || e.open.Load() < best.open.Load() {
			best = e
		}
	}
	if best == nil {
		return avoided
	}
	return best
}

// refused notes that no connection could be made.
func (e *endpoint) refused(now time.Time) {
	wait := avoidFirst << min(e.failures.Add(1)-1, 10)
	e.avoidUntil.Store(now.Add(min(wait, avoidMost)).UnixNano())
}

func (e *endpoint) answered() {
	if e.failures.Load() != 0 {
		e.failures.Store(0)
		e.avoidUntil.Store(0)
	}
}

func (b *backend) close() { b.update(Backend{}) }

// backends are all at work, by key. They outlive tables.
type backends struct {
	shared
	all map[BackendKey]*backend
}

// update makes those of the table, and drains the others.
func (bs *backends) update(t *Table) map[BackendKey]*backend {
	next := make(map[BackendKey]*backend, len(t.Backends))
	for key, want := range t.Backends {
		b := bs.all[key]
		if b == nil || b.protocol != want.Protocol || b.external != want.External {
			b = newBackend(key, want, &bs.shared)
		}
		b.update(want)
		next[key] = b
	}
	for key, b := range bs.all {
		if next[key] != b {
			b.close()
		}
	}
	bs.all = next
	return next
}

type contextKey struct{}

// exchange is one request on its way through.
type exchange struct {
	backend  *backend
	rule     *Rule
	body     *body
	endpoint string // the last tried
	attempts int
}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(contextKey{}).(*exchange)
	return x
}
