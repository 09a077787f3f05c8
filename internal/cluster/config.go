// Package cluster is the composition root: it builds a server or a node from
// one Config and runs it under one context. cmd/proa and the tests call the
// same Run. Below it: pki (certificates), registry (imported images),
// containerd (our own runtime), host (what the machine can do), daemon
// (processes that outlive us) and local (clusters in the background of one
// machine).
package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/proa-dev/proa/internal/scheduler"
)

// Config of what runs in this process: a server, a node, or both. Zero values
// mean the usual.
type Config struct {
	Name    string // of the cluster: names kernel objects and the kubeconfig's context; "" = proa
	DataDir string // everything is kept here
	Server  *Server
	Agent   *Agent
	Log     *slog.Logger

	// Ready is called once with the kubeconfig when the API answers.
	Ready func(kubeconfig string)
}

// Server is the control plane.
type Server struct {
	BindAddress      string     // "" = all addresses
	SecurePort       int        // of the API; 0 = any
	AdvertiseAddress netip.Addr // at which nodes and pods reach the API; zero = found
	TLSNames         []string   // names and addresses the certificate holds besides the usual

	ServiceCIDRs  []netip.Prefix
	ClusterCIDRs  []netip.Prefix // of all pods
	NodeCIDRMask  int            // of one node's pods (IPv4); 0 = 24
	NodePorts     PortRange
	ClusterDomain string
	ClusterDNS    netip.Addr // zero = the tenth address of the first service range
	DNSPort       int        // on the nodes' addresses, behind the DNS Service; 0 = 10053
	Etcd          Etcd

	Scheduler        *scheduler.Configuration // nil = upstream's defaults
	DisableScheduler bool                     // another gives pods to nodes

	Auth   *AuthOptions  // nil = the usual
	Audit  *AuditOptions // nil = nothing is audited
	Limits Limits
}

// Agent is a node.
type Agent struct {
	NodeName string
	Server   string // https://HOST:PORT to join; "" = the server in this process
	Token    string // with which to join the first time

	NodeIP          netip.Addr
	RuntimeEndpoint string // of a CRI runtime that runs; "" = our own containerd
	RuntimeDir      string // programs of our own containerd; "" = beside this program
	RunDir          string // sockets; "" = below /run/proa, named after the data folder
	KubeletPort     int
	HTTPPort        int // of the ingress, 0 = any, below 0 = none
	HTTPSPort       int
	CgroupRoot      string // "" = /
	Labels          map[string]string
	Taints          []string
	Localhost       bool // node ports answer on 127.0.0.1 too
	// ResolvConf that pods with dnsPolicy Default and the cluster's DNS use.
	ResolvConf string
}

// PortRange is inclusive.
type PortRange struct{ From, To int }

// Names and numbers that are used when nothing else was said.
const (
	DefaultName          = "proa"
	DefaultSecurePort    = 6443
	DefaultKubeletPort   = 10250
	DefaultClusterDomain = "cluster.local"
	DefaultDNSPort       = 10053
	DefaultServiceCIDR   = "10.96.0.0/16"
	DefaultClusterCIDR   = "10.244.0.0/16"
)

// complete fills in what was left out and says what cannot be.
func (c *Config) complete() error {
	c.Name = cmp.Or(c.Name, DefaultName)
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Server == nil && c.Agent == nil {
		return errors.New("neither a server nor an agent is wanted: nothing to run")
	}
	if c.DataDir == "" {
		return errors.New("no data folder: name one with --data-dir")
	}
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return err
	}
	c.DataDir = dir
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("the data folder: %w (choose one that can be written with --data-dir)", err)
	}
	if c.Server != nil {
		if err := c.Server.complete(c.Agent); err != nil {
			return err
		}
	}
	if c.Agent != nil {
		return c.Agent.complete(c)
	}
	return nil
}

func (s *Server) complete(a *Agent) error {
	if len(s.ServiceCIDRs) == 0 {
		s.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix(DefaultServiceCIDR)}
	}
	if len(s.ClusterCIDRs) == 0 {
		s.ClusterCIDRs = []netip.Prefix{netip.MustParsePrefix(DefaultClusterCIDR)}
	}
	for _, sc := range s.ServiceCIDRs {
		for _, cc := range s.ClusterCIDRs {
			if sc.Overlaps(cc) {
				return fmt.Errorf("--service-cluster-ip-range %s and --cluster-cidr %s overlap: choose two that do not", sc, cc)
			}
		}
	}
	s.NodeCIDRMask = cmp.Or(s.NodeCIDRMask, 24)
	if s.NodePorts == (PortRange{}) {
		s.NodePorts = PortRange{30000, 32767}
	}
	s.ClusterDomain = cmp.Or(s.ClusterDomain, DefaultClusterDomain)
	s.DNSPort = cmp.Or(s.DNSPort, DefaultDNSPort)
	if !s.ClusterDNS.IsValid() {
		s.ClusterDNS = nth(s.ServiceCIDRs[0], 10)
	}
	if !s.ServiceCIDRs[0].Contains(s.ClusterDNS) {
		return fmt.Errorf("--cluster-dns %s is not in the service range %s", s.ClusterDNS, s.ServiceCIDRs[0])
	}
	if s.AdvertiseAddress.IsValid() {
		return nil
	}
	if a != nil && a.NodeIP.IsValid() {
		s.AdvertiseAddress = a.NodeIP
		return nil
	}
	if ip, err := netip.ParseAddr(s.BindAddress); err == nil && !ip.IsUnspecified() {
		s.AdvertiseAddress = ip
		return nil
	}
	s.AdvertiseAddress = hostAddress()
	return nil
}

func (a *Agent) complete(c *Config) error {
	if a.NodeName == "" {
		host, err := os.Hostname()
		if err != nil {
			return err
		}
		a.NodeName = strings.ToLower(host)
	}
	if !a.NodeIP.IsValid() {
		a.NodeIP = hostAddress()
		if c.Server != nil {
			a.NodeIP = c.Server.AdvertiseAddress
		}
	}
	if a.RunDir == "" {
		a.RunDir = RunDir(c.DataDir)
	}
	if a.Server == "" && c.Server == nil {
		return errors.New("no server to join: name one with --server https://HOST:6443 and --token TOKEN")
	}
	a.CgroupRoot = cmp.Or(a.CgroupRoot, "/")
	return nil
}

// nth address of a range.
func nth(p netip.Prefix, n int) netip.Addr {
	ip := p.Masked().Addr()
	for range n {
		ip = ip.Next()
	}
	return ip
}

// hostAddress is the one by which others reach this machine: that of the link
// with the default route, or the first global one, or the loopback's.
func hostAddress() netip.Addr {
	// Connecting a UDP socket sends nothing: the kernel only chooses a source.
	if c, err := net.Dial("udp4", "192.0.2.1:9"); err == nil {
		defer c.Close()
		if a, ok := c.LocalAddr().(*net.UDPAddr); ok && !a.IP.IsLoopback() {
			return a.AddrPort().Addr().Unmap()
		}
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && p.Addr().IsGlobalUnicast() {
			return p.Addr()
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}
