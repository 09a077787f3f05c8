package cluster

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/remote"
	"github.com/proa-dev/proa/internal/cluster/pki"
	"github.com/proa-dev/proa/internal/network/dns"
	"github.com/proa-dev/proa/internal/scheduler"
)

const (
	goarch    = runtime.GOARCH
	goversion = "go1.26"
)

// start what works on the objects, once the API can answer: bootstrap, then
// controllers and scheduler, then the node of this process.
func (s *server) start(ctx context.Context, g *errgroup.Group) error {
	if err := s.bootstrap(ctx, s.as("system:apiserver", request.Masters), trustConfig(s.auth), s.port()); err != nil {
		return err
	}
	close(s.ready)
	if err := s.writeKubeconfig(); err != nil {
		return err
	}
	s.certs.admin.OnRenew(func() {
		if err := s.writeKubeconfig(); err != nil {
			s.Log.Error("the kubeconfig with the new certificate could not be written", "err", err)
		}
	})
	g.Go(func() error { return s.certs.run(ctx, s.Log) })
	s.Log.Info("the API answers", "server", s.url(), "kubeconfig", AdminKubeconfig(s.DataDir))
	if s.Config.Ready != nil {
		s.Config.Ready(AdminKubeconfig(s.DataDir))
	}
	s.control(ctx, g)
	g.Go(func() error { return giveBack(ctx) })
	if s.Agent == nil {
		return nil
	}
	if err := s.checkHost(ctx); err != nil {
		return err
	}
	m, err := s.localMember(s.certs, s.url(), s.params())
	if err != nil {
		return err
	}
	return s.runNode(ctx, g, m,
		s.as("system:node:"+s.Agent.NodeName, request.Nodes),
		s.as(auth.NetworkGroup+":"+s.Agent.NodeName, auth.NetworkGroup))
}

// control starts the controllers and the scheduler. They share informers, so
// that there is one map of pointers however many read it.
func (s *server) control(ctx context.Context, g *errgroup.Group) {
	inf := client.NewInformers(s.as("system:kube-controller-manager")).WithAccounts(s.account)
	s.configureGate(inf)
	for _, c := range s.controllers(inf) {
		g.Go(func() error { return c.Run(ctx) })
	}
	names := dns.NewPublisher([]netip.Addr{s.Server.ClusterDNS}, int32(s.Server.DNSPort), inf, s.logFor("dns"))
	g.Go(func() error { return names.Run(ctx) })
	if !s.Server.DisableScheduler {
		sched := scheduler.New(scheduler.Config{Informers: inf.As("kube-scheduler"), Configuration: s.Server.Scheduler, Logger: s.logFor("scheduler")})
		g.Go(func() error { return sched.Run(ctx) })
	}
	g.Go(func() error { return inf.Run(ctx) })
}

func (s *server) writeKubeconfig() error {
	k, err := pki.Kubeconfig(s.Name, s.url(), s.certs.ca.PEM, s.certs.admin)
	if err != nil {
		return err
	}
	return pki.WriteKubeconfig(AdminKubeconfig(s.DataDir), k)
}

// runAgent is a node whose server is elsewhere.
func (c *Config) runAgent(parent context.Context, m *membership) error {
	g, ctx := errgroup.WithContext(parent)
	catalog := kinds.Catalog()
	connect := func(as *http.Client, manager string) (client.Conn, error) {
		return remote.New(remote.Config{
			REST:    &rest.Config{Host: m.server, Transport: as.Transport},
			Catalog: catalog, Manager: manager, Logger: c.Log,
		})
	}
	conn, err := connect(m.http, "kubelet")
	if err != nil {
		return err
	}
	network, err := connect(m.calls(m.network), "proa-network")
	if err != nil {
		return err
	}
	g.Go(func() error { return m.network.Run(ctx, c.Log) })
	if err := c.checkHost(ctx); err != nil {
		return err
	}
	g.Go(func() error { return giveBack(ctx) })
	if err := c.runNode(ctx, g, m, conn, network); err != nil {
		return stopped(g, err)
	}
	return wait(g, parent)
}

// runNode starts the parts of a node in g: the kubelet reads and writes as the
// node, what serves the network as network.
func (c *Config) runNode(ctx context.Context, g *errgroup.Group, m *membership, conn, network client.Conn) error {
	inf := client.NewInformers(network)
	if err := c.node(ctx, g, m, conn, inf); err != nil {
		return err
	}
	g.Go(func() error { return inf.Run(ctx) })
	return nil
}

// logFor a part.
func (c *Config) logFor(part string) *slog.Logger { return c.Log.With("part", part) }
