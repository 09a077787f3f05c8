package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"golang.org/x/sync/errgroup"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/cluster/containerd"
	"github.com/proa-dev/proa/internal/cluster/host"
	"github.com/proa-dev/proa/internal/cluster/registry"
	"github.com/proa-dev/proa/internal/kubelet"
	"github.com/proa-dev/proa/internal/network/dns"
	"github.com/proa-dev/proa/internal/network/ingress"
	"github.com/proa-dev/proa/internal/network/pod"
	"github.com/proa-dev/proa/internal/network/proxy"
)

// Containerd of the node whose data folder and folder for sockets are these.
func Containerd(dataDir, runDir string) *containerd.Config {
	dir := filepath.Join(dataDir, "agent")
	return &containerd.Config{
		DataDir: filepath.Join(dir, "containerd"),
		RunDir:  runDir,
		CNIConf: filepath.Join(dir, "cni", "net.d"),
		Pause:   registry.Pause,
	}
}

// checkHost says what is missing for a node here.
func (c *Config) checkHost(ctx context.Context) error {
	a := c.Agent
	return host.Check(ctx, []host.Port{
		{Number: a.KubeletPort, What: "the kubelet", Flag: "--kubelet-port"},
		{Number: a.HTTPPort, What: "HTTP to Ingresses", Flag: "--http-port"},
		{Number: a.HTTPSPort, What: "HTTPS to Ingresses", Flag: "--https-port"},
	})
}

// runtime of the node: the one that was named, or our own containerd.
func (c *Config) runtime(ctx context.Context, g *errgroup.Group, m *membership) (endpoint string, err error) {
	a := c.Agent
	if a.RuntimeEndpoint != "" {
		return a.RuntimeEndpoint, nil
	}
	rt := Containerd(c.DataDir, a.RunDir)
	rt.Log = c.logFor("containerd")
	crt, key := m.client.Files()
	rt.Mirror = containerd.Mirror{URL: m.server, Authority: m.authority, Cert: crt, Key: key}
	if rt.Binaries, err = containerd.FindBinaries(a.RuntimeDir); err != nil {
		return "", err
	}
	p, err := rt.Ensure(ctx)
	if err != nil {
		return "", err
	}
	g.Go(func() error { return rt.Run(ctx, p) })
	return rt.Endpoint(), nil
}

// node runs the parts of a node in g. conn is the API as the node sees it;
// network is the same for the parts that serve all pods.
func (c *Config) node(ctx context.Context, g *errgroup.Group, m *membership, conn client.Conn, inf *client.Informers) error {
	endpoint, err := c.runtime(ctx, g, m)
	if err != nil {
		return err
	}
	g.Go(func() error { return m.client.Run(ctx, c.Log) })
	g.Go(func() error { return m.serving.Run(ctx, c.Log) })
	if c.Agent.RuntimeEndpoint == "" {
		if err := c.pullImported(ctx, g, m, endpoint); err != nil {
			return err
		}
	}
	if err := c.network(ctx, g, m, inf); err != nil {
		return err
	}
	cfg, err := c.kubeletConfig(m, conn, endpoint)
	if err != nil {
		return err
	}
	g.Go(func() error { return kubelet.Run(ctx, cfg) })
	return nil
}

func (c *Config) pullImported(ctx context.Context, g *errgroup.Group, m *membership, endpoint string) error {
	conn, err := containerd.Dial(endpoint)
	if err != nil {
		return err
	}
	p := &registry.Puller{Server: m.server, Node: c.Agent.NodeName, HTTP: m.http, Images: cri.NewImageServiceClient(conn), Log: c.logFor("images")}
	g.Go(func() error {
		defer conn.Close()
		return p.Run(ctx)
	})
	return nil
}

func (c *Config) kubeletConfig(m *membership, conn client.Conn, endpoint string) (kubelet.Config, error) {
	a := c.Agent
	taints, err := parseTaints(a.Taints)
	if err != nil {
		return kubelet.Config{}, err
	}
	profile := ""
	if a.RuntimeEndpoint == "" {
		profile = Containerd(c.DataDir, a.RunDir).PauseProfile()
	}
	return kubelet.Config{
		SandboxSeccomp: profile, Sandboxes: podDriver(c.Name, a.NodeName, c.DataDir, nil, nil).Collect,
		Conn: conn, Log: c.logFor("kubelet"),
		Name: a.NodeName, IPs: []string{a.NodeIP.String()}, Labels: a.Labels, Taints: taints,
		RootDir: c.agentDir("kubelet"), LogsDir: c.agentDir("logs"), Manifests: c.agentDir("manifests"),
		Runtime: endpoint, CgroupRoot: a.CgroupRoot,
		ClusterDNS: []string{m.ClusterDNS.String()}, ClusterDomain: m.ClusterDomain, ResolvConf: a.ResolvConf,
		Port:        a.KubeletPort,
		ClientCAs:   func() *x509.CertPool { return m.roots },
		Certificate: func() (*tls.Certificate, error) { return m.serving.Certificate(), nil },
	}, nil
}

func parseTaints(texts []string) (taints []corev1.Taint, err error) {
	for _, text := range texts {
		head, effect, ok := strings.Cut(text, ":")
		key, value, _ := strings.Cut(head, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("--register-with-taints %q: write KEY=VALUE:EFFECT, such as dedicated=db:NoSchedule", text)
		}
		taints = append(taints, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)})
	}
	return taints, nil
}

// network of the node's pods and Services.
func (c *Config) network(ctx context.Context, g *errgroup.Group, m *membership, inf *client.Informers) error {
	a := c.Agent
	pods := pod.NewRunner(podDriver(c.Name, a.NodeName, c.DataDir, m.ClusterCIDRs, m.ServiceCIDRs), inf)
	services, err := proxy.New(proxy.Config{
		Cluster: c.Name, Node: proxy.Node{Name: a.NodeName}, PodCIDRs: m.ClusterCIDRs, ServiceCIDRs: m.ServiceCIDRs,
		Localhost: a.Localhost, Log: c.logFor("proxy"),
	})
	if err != nil {
		return err
	}
	runner := proxy.NewRunner(services, inf)
	g.Go(func() error { return pods.Run(ctx) })
	g.Go(func() error { return runner.Run(ctx) })
	if err := c.dns(ctx, g, m, inf); err != nil {
		return err
	}
	return c.ingress(ctx, g, m, inf)
}

// dns answers the pods of this node.
func (c *Config) dns(ctx context.Context, g *errgroup.Group, m *membership, inf *client.Informers) error {
	index := dns.NewIndex(m.ClusterDomain)
	server, err := dns.Listen(dns.Config{
		Index: index, Networks: append(slices.Clone(m.ServiceCIDRs), m.ClusterCIDRs...),
		ResolvConf: c.Agent.ResolvConf, Own: []netip.Addr{m.ClusterDNS}, Log: c.logFor("dns"),
	}, netip.AddrPortFrom(c.Agent.NodeIP, uint16(m.DNSPort)).String())
	if err != nil {
		return err
	}
	runner := dns.NewRunner(index, inf)
	g.Go(func() error { return server.Serve(ctx) })
	g.Go(func() error { return runner.Run(ctx) })
	return nil
}

// ingress answers HTTP for Ingresses on this node, if it has a port for it.
func (c *Config) ingress(ctx context.Context, g *errgroup.Group, m *membership, inf *client.Informers) error {
	a := c.Agent
	if a.HTTPPort < 0 && a.HTTPSPort < 0 {
		return nil
	}
	cfg := ingress.Config{Log: c.logFor("ingress"), Resolver: dns.Resolver(netip.AddrPortFrom(a.NodeIP, uint16(m.DNSPort)))}
	var err error
	if a.HTTPPort >= 0 {
		if cfg.HTTP, err = ingress.Listen(fmt.Sprintf(":%d", a.HTTPPort), "--http-port"); err != nil {
			return err
		}
	}
	if a.HTTPSPort >= 0 {
		if cfg.HTTPS, err = ingress.Listen(fmt.Sprintf(":%d", a.HTTPSPort), "--https-port"); err != nil {
			return err
		}
	}
	server := ingress.New(cfg)
	rc := ingress.RunnerConfig{Server: server, Log: cfg.Log}
	if c.Server != nil { // one node's address is told to clients; the others answer, too
		rc.Addresses = []string{a.NodeIP.String()}
	}
	runner := ingress.NewRunner(rc, inf)
	g.Go(func() error { return server.Serve(ctx) })
	g.Go(func() error { return runner.Run(ctx) })
	return nil
}

func podDriver(cluster, node, dataDir string, pods, services []netip.Prefix) *pod.Driver {
	return pod.New(pod.Config{
		Cluster: cluster, Node: node, ClusterCIDRs: pods, ServiceCIDRs: services,
		ConfDir: filepath.Join(dataDir, "agent", "cni", "net.d"), DataDir: filepath.Join(dataDir, "agent", "cni", "ipam"),
	})
}

// RemoveNetwork takes away what a node has set up in the kernel of this
// network namespace.
func RemoveNetwork(ctx context.Context, cluster, dataDir, services, pods string) error {
	s, err := netip.ParsePrefix(services)
	if err != nil {
		return err
	}
	p, err := netip.ParsePrefix(pods)
	if err != nil {
		return err
	}
	if err := podDriver(cluster, "", dataDir, []netip.Prefix{p}, []netip.Prefix{s}).Down(ctx); err != nil {
		return err
	}
	x, err := proxy.New(proxy.Config{Cluster: cluster})
	if err != nil {
		return err
	}
	return x.Down(ctx)
}
