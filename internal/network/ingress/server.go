package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"sync/atomic"
	"time"
)

// A client has this long to send the head of a request, and may leave a
// connection idle for so long: whoever stalls holds no file for ever.
const (
	headTimeout = time.Minute
	idleTimeout = 3 * time.Minute
)

// Config of a server.
type Config struct {
	HTTP  net.Listener // nil = none
	HTTPS net.Listener // nil = none
	// Drain is how long requests may go on after Serve's context has ended. 0 = 10 s.
	Drain time.Duration
	// Resolver finds the names of ExternalName Services, which may be Services of the
	// cluster. nil = as the host does.
	Resolver *net.Resolver
	// Observe is told of every request when it is over, nil = nobody.
	Observe func(Access)
	Log     *slog.Logger
}

// Access is one request that is over.
type Access struct {
	Rule     *Rule // nil = none matched
	Method   string
	Host     string
	Path     string
	Status   int
	Bytes    int64 // of the answer's body
	Took     time.Duration
	Endpoint string
	Attempts int
}

// Server serves a Table.
type Server struct {
	cfg   Config
	now   func() time.Time
	proxy *httputil.ReverseProxy
	keys  keyring

	ready    chan struct{} // closed by the first Set
	mu       sync.Mutex    // one Set at a time
	backends backends
	force    atomic.Pointer[inForce]
}

type inForce struct {
	table    *Table
	backends map[BackendKey]*backend
}

// New makes a server. Serve lets clients wait until Set was called first, so that
// a start looks like a pause to them and not like missing Ingresses.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Drain == 0 {
		cfg.Drain = 10 * time.Second
	}
	s := &Server{cfg: cfg, now: time.Now, ready: make(chan struct{})}
	s.backends = backends{shared: shared{now: s.now, resolver: cfg.Resolver}, all: map[BackendKey]*backend{}}
	s.force.Store(&inForce{table: &Table{}})
	s.proxy = &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      s,
		ModifyResponse: answered,
		BufferPool:     &buffers{},
		ErrorHandler:   s.fail,
		ErrorLog:       log.New(quiet{cfg.Log}, "", 0),
	}
	return s
}

// Listen opens a TCP port and says what to do if it cannot be had.
func Listen(addr, flag string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("ingress: %s cannot be listened on: %w (choose another port with %s, or stop what uses it)", addr, err, flag)
	}
	return l, nil
}

// Set puts a table in force. Requests under way are not touched; endpoints that
// are in it no more get no new ones.
func (s *Server) Set(_ context.Context, t *Table) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := &inForce{table: t, backends: s.backends.update(t)}
	s.force.Store(next)
	s.keys.keep(t)
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
	return nil
}

// Serve answers until ctx ends, and then finishes what is under way.
func (s *Server) Serve(ctx context.Context) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	// Long polls and uploads take what they take; only a request's head, and the
	// time between requests, have a limit.
	server := &http.Server{Handler: s, Protocols: protocols, ErrorLog: log.New(quiet{s.cfg.Log}, "", 0),
		ReadHeaderTimeout: headTimeout, IdleTimeout: idleTimeout,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.keys.get(s.force.Load().table, h.ServerName)
		}}}
	select {
	case <-s.ready: // until now connections wait in the listeners' queues
	case <-ctx.Done():
		for _, l := range []net.Listener{s.cfg.HTTP, s.cfg.HTTPS} {
			if l != nil {
				_ = l.Close()
			}
		}
		return ctx.Err()
	}
	ended := make(chan error, 2)
	if s.cfg.HTTP != nil {
		go func() { ended <- server.Serve(s.cfg.HTTP) }()
	}
	if s.cfg.HTTPS != nil {
		go func() { ended <- server.ServeTLS(s.cfg.HTTPS, "", "") }()
	}
	select {
	case err := <-ended:
		_ = server.Close()
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Drain)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		_ = server.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.backends.update(&Table{})
	return ctx.Err()
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if s.cfg.Observe == nil {
		s.serve(w, req, &exchange{})
		return
	}
	x, start := &exchange{}, s.now()
	rec := &recorder{ResponseWriter: w}
	defer func() {
		s.cfg.Observe(Access{Rule: x.rule, Method: req.Method, Host: req.Host, Path: req.URL.Path, Status: rec.status,
			Bytes: rec.bytes, Took: s.now().Sub(start), Endpoint: x.endpoint, Attempts: x.attempts})
	}()
	s.serve(rec, req, x)
}

func (s *Server) serve(w http.ResponseWriter, req *http.Request, x *exchange) {
	force := s.force.Load()
	rule, ok := force.table.Find(req.Host, req.URL.Path)
	if !ok {
		notFound(req).write(w, req)
		return
	}
	if rule.Options.ForceHTTPS && req.TLS == nil {
		u := *req.URL
		u.Scheme, u.Host = "https", hostKeys(req.Host)[0]
		if s.cfg.HTTPS != nil {
			if _, port, err := net.SplitHostPort(s.cfg.HTTPS.Addr().String()); err == nil && port != "443" {
				u.Host = net.JoinHostPort(u.Host, port)
			}
		}
		http.Redirect(w, req, u.String(), http.StatusPermanentRedirect)
		return
	}
	x.rule, x.backend = rule, force.backends[rule.To]
	var err error
	if x.body, err = newBody(w, req); err != nil {
		s.report(w, req, x, err)
		return
	}
	defer x.body.end()
	s.proxy.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), contextKey{}, x)))
}

// rewrite makes the request an endpoint gets. Its address is filled in when it
// is chosen.
func rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme = "http"
	if exchangeOf(r.In.Context()).backend.protocol == HTTPS {
		r.Out.URL.Scheme = "https"
	}
	r.Out.URL.Host = "endpoint"
	r.Out.URL.RawQuery = r.In.URL.RawQuery // as it is, also where Go would not parse it
	r.Out.Host = r.In.Host
	r.SetXForwarded()
	if ip, _, err := net.SplitHostPort(r.In.RemoteAddr); err == nil {
		r.Out.Header.Set("X-Real-Ip", ip)
	}
	if exchangeOf(r.In.Context()).body.buffered != nil {
		r.Out.Header.Del("Expect") // the client was told to go on already
	}
	port := "80"
	if r.In.TLS != nil {
		port = "443"
	}
	if a, ok := r.In.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if _, p, err := net.SplitHostPort(a.String()); err == nil {
			port = p
		}
	}
	r.Out.Header.Set("X-Forwarded-Port", port)
	if _, asked := r.In.Header["User-Agent"]; !asked {
		r.Out.Header.Set("User-Agent", "") // rather than Go's
	}
}

// answered lets a client that is still sending close its connection: nobody knows
// whether what comes next belongs to this request.
func answered(resp *http.Response) error {
	if x := exchangeOf(resp.Request.Context()); !x.body.complete() && resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Header.Set("Connection", "close")
	}
	return nil
}

func (s *Server) fail(w http.ResponseWriter, req *http.Request, err error) {
	x := exchangeOf(req.Context())
	if !x.body.complete() {
		w.Header().Set("Connection", "close")
	}
	s.report(w, req, x, err)
}

func (s *Server) report(w http.ResponseWriter, req *http.Request, x *exchange, err error) {
	f, there := failed(x, err)
	if !there {
		w.WriteHeader(499) // nobody reads it, but Observe counts it
		return
	}
	s.cfg.Log.Warn("a request failed", "status", f.Status, "service", f.Service, "endpoint", f.Endpoint, "attempts", f.Attempts, "error", err)
	f.write(w, req)
}

// recorder notes what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(code int) {
	if r.status < 200 {
		r.status = code
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController flush and hijack.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[32 << 10]byte); ok {
		return p[:]
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) {
	if len(p) == 32<<10 {
		b.pool.Put((*[32 << 10]byte)(p))
	}
}

// quiet sends the library's words about broken connections where they are asked for.
type quiet struct{ log *slog.Logger }

func (q quiet) Write(p []byte) (int, error) {
	q.log.Debug("http", "message", string(p))
	return len(p), nil
}

var _ http.RoundTripper = (*Server)(nil)

// Closed tells whether err is the usual end of Serve.
func Closed(err error) bool {
	return errors.Is(err, http.ErrServerClosed) || errors.Is(err, context.Canceled)
}
