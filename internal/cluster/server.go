package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"golang.org/x/sync/errgroup"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/version"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/api/quota"
	"github.com/proa-dev/proa/internal/apiserver"
	"github.com/proa-dev/proa/internal/apiserver/admission"
	"github.com/proa-dev/proa/internal/apiserver/allocate"
	"github.com/proa-dev/proa/internal/apiserver/audit"
	"github.com/proa-dev/proa/internal/apiserver/auth/setup"
	"github.com/proa-dev/proa/internal/apiserver/extension"
	"github.com/proa-dev/proa/internal/apiserver/extension/aggregate"
	"github.com/proa-dev/proa/internal/apiserver/extension/hook"
	"github.com/proa-dev/proa/internal/apiserver/fairness"
	"github.com/proa-dev/proa/internal/apiserver/managedfields"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
	"github.com/proa-dev/proa/internal/apiserver/stream"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/cluster/registry"
)

// kubernetesVersion that clients are told.
var kubernetesVersion = version.Info{Major: "1", Minor: "36", GitVersion: "v1.36.3", Platform: "linux/" + goarch, GoVersion: goversion}

// server is the control plane, built but not running.
type server struct {
	*Config
	certs    *certificates
	store    *storage
	catalog  *api.Catalog
	cache    *cache.Cache
	api      *apiserver.Server
	auth     *setup.Setup
	audit    *audit.Log     // nil = nothing is audited
	charged  quota.Pending  // writes that quotas were charged for
	gate     *fairness.Gate // nil = requests are only counted
	custom   *extension.Resources
	others   *aggregate.Aggregator
	images   *registry.Store
	listener net.Listener
	ready    chan struct{} // closed when the bootstrap objects are there
}

// port that the API is served on.
func (s *server) port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// url of the API, for nodes and pods.
func (s *server) url() string {
	return "https://" + net.JoinHostPort(s.Server.AdvertiseAddress.String(), strconv.Itoa(s.port()))
}

func (c *Config) openServer(ctx context.Context) (s *server, err error) {
	s = &server{Config: c, ready: make(chan struct{})}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	address := net.JoinHostPort(c.Server.BindAddress, strconv.Itoa(c.Server.SecurePort))
	if s.listener, err = net.Listen("tcp", address); err != nil {
		return s, fmt.Errorf("the API cannot be served on %s: %w (stop what uses it, or choose another with --secure-port)", address, err)
	}
	if s.certs, err = c.openCertificates(); err != nil {
		return s, err
	}
	if s.store, err = c.openStorage(ctx); err != nil {
		return s, err
	}
	if s.images, err = registry.Open(c.DataDir + "/images"); err != nil {
		return s, err
	}
	if err = s.images.AddPause(); err != nil {
		return s, err
	}
	s.catalog = kinds.Catalog()
	s.cache = s.store.cache(c, s.catalog)
	s.api, err = s.newAPI()
	return s, err
}

func (s *server) newAPI() (*apiserver.Server, error) {
	of := func(k *api.Kind) cache.Reader { return s.cache.Of(k) }
	if err := s.openAuth(of); err != nil {
		return nil, err
	}
	who := s.auth
	hooks := hook.New(s.catalog, of)
	hooks.Servers = who.Metrics.Webhooks
	documents := openapi.New(s.catalog, kubernetesVersion.GitVersion)
	s.custom = extension.New(extension.Config{Catalog: s.catalog, Cache: s.cache, OpenAPI: documents, Hooks: hooks, Log: s.logFor("custom resources")})
	fields := managedfields.New(s.catalog, &openapi.Types{}, s.custom.TypeConverter)
	admit, err := admission.Builtin(admission.Config{
		Catalog: s.catalog, Of: of, RBAC: who.RBAC, Authorizer: who.Authorizer,
		Hooks: hooks, Charge: s.charge, Pending: &s.charged, Merge: fields.Merge, Log: s.logFor("admission"),
	})
	if err != nil {
		return nil, err
	}
	s.others = aggregate.New(aggregate.Config{
		Catalog: s.catalog, Of: of, Hooks: hooks, Log: s.logFor("aggregation"),
		Certificate: s.certs.proxyClient.Dial, Yields: s.measured(), Servers: who.Metrics.Aggregated,
	})
	documents.SetOthers(s.others.Documents)
	s.gate = s.Server.Limits.gate()
	return apiserver.New(apiserver.Config{
		Fairness: s.gate, MaxReads: s.Server.Limits.Reads, MaxWrites: s.Server.Limits.Writes,
		Aggregated: s.others.Serve, Groups: s.others.Groups, Makers: s.makers(),
		Catalog: s.catalog, Cache: s.cache, Store: s.store, Shared: len(s.Server.Etcd.Servers) > 0,
		Authenticator: who.Authenticator, Authorizer: who.Authorizer, Admission: admit, Metrics: who.Metrics,
		Fields: fields,
		Review: who.Reviews.Answer, Tokens: who.ServiceAccounts, OpenID: s.openID(), Audit: s.audit,
		ServiceCIDRs: s.Server.ServiceCIDRs, NodePorts: allocate.Ports{From: int32(s.Server.NodePorts.From), To: int32(s.Server.NodePorts.To)},
		OpenAPI: documents,
		Kubelet: stream.Config{TLS: s.certs.toKubelets()},
		Version: kubernetesVersion,
		Checks:  append(s.store.checks(), apiserver.Check{Name: "poststarthook/bootstrap", Ready: true, Do: s.bootstrapped}),
		Extra:   s.extra(),
		Log:     s.logFor("api"),
	})
}

// charge stores what is used of a quota.
func (s *server) charge(ctx context.Context, q *corev1.ResourceQuota) error {
	k, ok := s.catalog.Type(q)
	if !ok {
		return nil
	}
	_, err := s.self().Update(ctx, k, "status", q, "kube-apiserver", false)
	return err
}

func (s *server) bootstrapped(context.Context) error {
	select {
	case <-s.ready:
		return nil
	default:
		return errors.New("the objects every cluster has are not there yet")
	}
}

func (s *server) extra() map[string]http.Handler {
	e := &edge{ca: s.certs.ca, params: s.params(), images: &registry.Manager{Store: s.images}, store: s.store}
	all := map[string]http.Handler{"/proa/v1/": e, "/v2/": s.images.Mirror(), "/debug/pprof/": profiles()}
	if s.gate != nil {
		all[fairness.Prefix] = s.gate
	}
	return all
}

func (s *server) params() Params {
	return Params{
		Name: s.Name, Authority: string(s.certs.ca.PEM), ServiceCIDRs: s.Server.ServiceCIDRs, ClusterCIDRs: s.Server.ClusterCIDRs,
		NodePorts: s.Server.NodePorts, ClusterDomain: s.Server.ClusterDomain, ClusterDNS: s.Server.ClusterDNS, DNSPort: s.Server.DNSPort,
	}
}

// record what is done in the audit log, if there is one, until done is called: when
// nothing is done any more, so that the last of it is recorded, too.
func (s *server) record() (done func()) {
	if s.audit == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.audit.Run(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}
}

// run everything until ctx ends.
func (s *server) run(parent context.Context) error {
	g, ctx := errgroup.WithContext(parent)
	g.Go(func() error { return s.cache.Run(ctx) })
	if o := s.Server.Etcd.Snapshots; o.Schedule != "" {
		o.Dir = cmp.Or(o.Dir, s.DataDir+"/snapshots")
		g.Go(func() error { return s.store.scheduled(ctx, o, s.logFor("snapshots")) })
	}
	defer s.record()()
	g.Go(func() error { return s.api.Serve(ctx, s.listener, s.certs.tls(s.auth.ClientCAs)) })
	g.Go(func() error { return s.auth.Run(ctx) })
	select {
	case <-s.cache.Ready():
	case <-ctx.Done():
		return wait(g, parent)
	}
	if err := s.custom.Start(ctx, s.self()); err != nil {
		return stopped(g, err)
	}
	g.Go(func() error { return s.custom.Run(ctx) })
	g.Go(func() error { return s.others.Run(ctx, s.self()) })
	if err := s.start(ctx, g); err != nil {
		return stopped(g, err)
	}
	return wait(g, parent)
}

// close what is open when nothing runs any more.
func (s *server) close() {
	if s.listener != nil {
		_ = s.listener.Close()
	}
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			s.Log.Error("the store did not close well", "err", err)
		}
	}
}
