// Package apiserver is the HTTP edge of the API server: who asks (auth), what is
// asked (request), may they, and then one of the verbs, whose answer is written
// in the form that the client wants (negotiate, table).
//
// The chain is short and allocates little, and what is written are the bytes
// that are kept beside the object: most requests cost what TLS costs.
package apiserver

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	authenticationv1 "k8s.io/api/authentication/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/admission"
	"github.com/proa-dev/proa/internal/apiserver/allocate"
	"github.com/proa-dev/proa/internal/apiserver/audit"
	"github.com/proa-dev/proa/internal/apiserver/auth"
	authmetrics "github.com/proa-dev/proa/internal/apiserver/auth/metrics"
	"github.com/proa-dev/proa/internal/apiserver/discovery"
	"github.com/proa-dev/proa/internal/apiserver/fairness"
	"github.com/proa-dev/proa/internal/apiserver/stream"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/store"
)

// Config of a Server. What may be nil says so.
type Config struct {
	Catalog *api.Catalog
	Cache   *cache.Cache
	Store   store.Store
	Shared  bool // other servers write to the store, too

	Authenticator auth.Authenticator // nil = everybody is anonymous
	Authorizer    auth.Authorizer    // nil = everybody may do everything
	Admission     admission.Chain
	Fields        verbs.Fields // nil = managedFields are not kept, and there is no apply

	// Review answers the virtual kinds (TokenReview, SubjectAccessReview …); nil = none.
	Review func(ctx context.Context, namespace string, review api.Object) (api.Object, error)
	// Makers of the objects of virtual kinds that can be read; nil = there are none.
	Makers map[schema.GroupResource]Maker
	// Tokens answers serviceaccounts/token, and OpenID tells who signs them; nil = neither.
	Tokens TokenIssuer
	OpenID OpenID
	// Actions are further answers to POSTs to subresources.
	Actions map[verbs.ActionKey]verbs.Action

	ServiceCIDRs []netip.Prefix // one, or one of each family; none = Services get no cluster IPs
	NodePorts    allocate.Ports // zero = 30000-32767
	OpenAPI      http.Handler   // /openapi/…; nil = none
	Kubelet      stream.Config  // how nodes are reached

	Version version.Info
	// Checks of /readyz, besides those of the server itself.
	Checks []Check
	// Extra paths, by their prefix ("/apis/metrics.k8s.io/", "/debug/"), after
	// authorisation. Fallback answers what is neither a kind nor a path, instead
	// of 404; both may be nil.
	Extra    map[string]http.Handler
	Fallback http.Handler
	// Aggregated answers what another API server is responsible for; false = nobody
	// is, nil = there are none.
	Aggregated func(w http.ResponseWriter, r *http.Request) bool
	// Groups that aggregated API servers serve, for discovery; nil = none.
	Groups func() []apidiscoveryv2.APIGroupDiscovery
	Audit  *audit.Log // writes down what requests do; nil = nobody does

	// Fairness decides which request is worked on when there are many; nil = nothing
	// but MaxReads and MaxWrites bounds what is worked on at once; 0 = 400 and 200.
	Fairness            *fairness.Gate
	MaxReads, MaxWrites int64
	// Metrics of authentication and authorisation, nil = those of this server alone.
	Metrics *authmetrics.Metrics
	Log     *slog.Logger
}

// TokenIssuer makes service-account tokens.
type TokenIssuer interface {
	Request(ctx context.Context, namespace, name string, tr *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
}

// OpenID tells others how to check the tokens.
type OpenID interface {
	OpenIDConfiguration(jwksURI string) []byte
	JWKS() []byte
}

// Server is the API server.
type Server struct {
	cfg       Config
	log       *slog.Logger
	verbs     *verbs.Verbs
	discovery *discovery.Handler
	stream    *stream.Proxy
	metrics   *metrics
	reads     limit
	writes    limit
	closing   context.Context // ends when Serve begins to stop
	close     context.CancelFunc
}

// addresses are the objects that say which cluster IPs there are.
func (c *Config) addresses() (o allocate.Objects) {
	if k, ok := c.Catalog.Type(&networkingv1.ServiceCIDR{}); ok {
		o.Ranges = c.Cache.Of(k)
	}
	if k, ok := c.Catalog.Type(&networkingv1.IPAddress{}); ok {
		o.Addresses = c.Cache.Of(k)
	}
	return o
}

// New server. It answers once the cache is ready.
func New(c Config) (*Server, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Metrics = authmetrics.Or(c.Metrics)
	claims := map[schema.GroupResource]verbs.Claimer{}
	if k, ok := c.Catalog.Resource(schema.GroupVersionResource{Version: "v1", Resource: "services"}); ok {
		services, err := allocate.NewServices(c.ServiceCIDRs, c.NodePorts, c.Cache.Of(k.Kind), c.addresses(), c.Cache.Ready())
		if err != nil {
			return nil, err
		}
		claims[k.GroupResource()] = services
	}
	s := &Server{cfg: c, log: c.Log}
	s.metrics = newMetrics(&c, &s.reads, &s.writes)
	s.closing, s.close = context.WithCancel(context.Background())
	if s.reads.max, s.writes.max = orMax(c.MaxReads, 400), orMax(c.MaxWrites, 200); c.Fairness != nil {
		s.reads.max, s.writes.max = -1, -1
	}
	s.verbs = verbs.New(verbs.Config{
		Catalog: c.Catalog, Cache: c.Cache, Store: c.Store, Shared: c.Shared,
		Admission: c.Admission, Fields: c.Fields, Claims: claims, Actions: s.actions(), Log: c.Log,
	})
	s.discovery = discovery.New(c.Catalog, c.Log)
	s.discovery.Others = c.Groups
	s.stream = stream.New(c.Kubelet, s.verbs, c.Log)
	return s, nil
}

func orMax(n, usual int64) int64 {
	if n > 0 {
		return n
	}
	return usual
}

// actions are what the configuration answers POSTs with.
func (s *Server) actions() map[verbs.ActionKey]verbs.Action {
	all := map[verbs.ActionKey]verbs.Action{}
	if s.cfg.Tokens != nil {
		all[verbs.ActionKey{GroupResource: schema.GroupResource{Resource: "serviceaccounts"}, Subresource: "token"}] = s.token
	}
	if s.cfg.Review != nil {
		for _, k := range s.cfg.Catalog.All() {
			if k.Virtual {
				all[verbs.ActionKey{GroupResource: k.GroupResource()}] = s.review
			}
		}
	}
	for k, a := range s.cfg.Actions {
		all[k] = a
	}
	return all
}

func (s *Server) token(ctx context.Context, r *verbs.Request, _ api.Object, body runtime.Object) (runtime.Object, error) {
	return s.cfg.Tokens.Request(ctx, r.Namespace, r.Name, body.(*authenticationv1.TokenRequest))
}

func (s *Server) review(ctx context.Context, r *verbs.Request, _ api.Object, body runtime.Object) (runtime.Object, error) {
	return s.cfg.Review(ctx, r.Namespace, body.(api.Object))
}

// onClosing calls stop when the server begins to stop, unless what it returns is
// called before.
func (s *Server) onClosing(stop func()) func() {
	off := context.AfterFunc(s.closing, stop)
	return func() { off() }
}

// Verbs of the server, for callers in the same process.
func (s *Server) Verbs() *verbs.Verbs { return s.verbs }

// Serve answers requests on a listener until ctx ends; then it refuses new
// connections, ends the watches, and gives what is running ten seconds.
// config may ask for client certificates; HTTP/2 is offered.
func (s *Server) Serve(ctx context.Context, l net.Listener, config *tls.Config) error {
	config = config.Clone()
	if config.ClientAuth == tls.NoClientCert {
		config.ClientAuth = tls.RequestClientCert
	}
	server := &http.Server{
		Handler:           s.Handler(),
		TLSConfig:         config,
		ReadHeaderTimeout: 32 * time.Second,
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    1 << 20,
		ErrorLog:          slog.NewLogLogger(quiet{s.log.Handler()}, slog.LevelDebug),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 1000, MaxReadFrameSize: 1 << 20, MaxReceiveBufferPerStream: 4 << 20},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		s.close()
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if server.Shutdown(late) != nil {
			server.Close()
		}
	}()
	err := server.ServeTLS(l, "", "")
	if errors.Is(err, http.ErrServerClosed) {
		<-done
		return ctx.Err()
	}
	return err
}
