package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/proa-dev/proa/internal/cluster"
	"github.com/proa-dev/proa/internal/cluster/local"
)

func (a *app) server() *cobra.Command {
	c := &cluster.Config{Server: &cluster.Server{Auth: &cluster.AuthOptions{}, Audit: &cluster.AuditOptions{}}, Agent: &cluster.Agent{}}
	var f serverFlags
	var n agentFlags
	var disableAgent bool
	cmd := &cobra.Command{
		Use: "server", Short: "Run a server in the foreground: the control plane, and a node unless --disable-agent",
		Long: `Run a server in the foreground: the control plane, and a node unless --disable-agent.
Once it is ready, DATA-DIR/admin.kubeconfig is there. Flags are called as Kubernetes' own programs call them.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.fill(c.Server); err != nil {
				return err
			}
			if err := checkAuth(cmd.Flags(), c.Server); err != nil {
				return err
			}
			if disableAgent {
				c.Agent = nil
			} else if err := n.fill(c.Agent); err != nil {
				return err
			}
			return a.run(cmd, c)
		},
	}
	commonFlags(cmd.Flags(), c)
	f.add(cmd.Flags(), c.Server)
	n.add(cmd.Flags(), c.Agent)
	cmd.Flags().BoolVar(&disableAgent, "disable-agent", false, "run the control plane alone: needs neither root nor a container runtime")
	return cmd
}

func (a *app) agent() *cobra.Command {
	c := &cluster.Config{Agent: &cluster.Agent{}}
	var n agentFlags
	cmd := &cobra.Command{
		Use: "agent", Short: "Run a node in the foreground that joins a server",
		Example: "  proa agent --server https://10.0.0.1:6443 --token TOKEN",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := n.fill(c.Agent); err != nil {
				return err
			}
			return a.run(cmd, c)
		},
	}
	commonFlags(cmd.Flags(), c)
	n.add(cmd.Flags(), c.Agent)
	cmd.Flags().StringVar(&c.Agent.Server, "server", "", "https://HOST:PORT of a server of the cluster")
	cmd.Flags().StringVar(&c.Agent.Token, "token", os.Getenv("PROA_TOKEN"), `with which to join the first time ("proa token create" on a server; also $PROA_TOKEN)`)
	return cmd
}

func (a *app) run(cmd *cobra.Command, c *cluster.Config) error {
	c.Log = a.logger()
	started := time.Now()
	c.Ready = func(kubeconfig string) {
		c.Log.Info("ready", "kubeconfig", kubeconfig, "after", time.Since(started).Round(time.Millisecond))
	}
	return cluster.Run(cmd.Context(), *c)
}

func commonFlags(f *pflag.FlagSet, c *cluster.Config) {
	f.StringVar(&c.DataDir, "data-dir", local.Root+"/server", "folder everything is kept in")
	f.StringVar(&c.Name, "cluster-name", cluster.DefaultName, "of the cluster; it names tables and links in the kernel")
}

type serverFlags struct {
	advertise, dns        string
	services, pods, ports string
	mask                  int
	scheduler             schedulerFlags
	fair                  *bool
}

func (f *serverFlags) add(fs *pflag.FlagSet, s *cluster.Server) {
	fs.StringVar(&s.BindAddress, "bind-address", "0.0.0.0", "address the API is served on")
	fs.IntVar(&s.SecurePort, "secure-port", cluster.DefaultSecurePort, "port the API is served on; 0 = any")
	fs.StringVar(&f.advertise, "advertise-address", "", "address at which nodes and pods reach the API")
	fs.StringSliceVar(&s.TLSNames, "tls-san", nil, "further names and addresses for the API's certificate")
	fs.StringVar(&f.services, "service-cluster-ip-range", cluster.DefaultServiceCIDR, "addresses of Services")
	fs.StringVar(&f.pods, "cluster-cidr", cluster.DefaultClusterCIDR, "addresses of pods")
	fs.IntVar(&f.mask, "node-cidr-mask-size", 24, "size of one node's part of --cluster-cidr")
	fs.StringVar(&f.ports, "service-node-port-range", "30000-32767", "ports of NodePort Services")
	fs.StringVar(&s.ClusterDomain, "cluster-domain", cluster.DefaultClusterDomain, "domain of the cluster's DNS")
	fs.StringVar(&f.dns, "cluster-dns", "", "address of the cluster's DNS; nothing = the tenth of the Services' range")
	fs.IntVar(&s.DNSPort, "dns-port", cluster.DefaultDNSPort, "port on the nodes' addresses behind the DNS Service")
	fs.Int64Var(&s.Limits.Reads, "max-requests-inflight", 400, "reading requests worked on at once; with --max-mutating-requests-inflight it is what the priority levels divide")
	fs.Int64Var(&s.Limits.Writes, "max-mutating-requests-inflight", 200, "writing requests worked on at once")
	f.fair = fs.Bool("enable-priority-and-fairness", true, "let the FlowSchemas and PriorityLevelConfigurations say which request is worked on next")
	f.scheduler.add(fs, s)
	etcdFlags(fs, &s.Etcd)
	authFlags(fs, s.Auth)
	auditFlags(fs, s.Audit)
}

func (f *serverFlags) fill(s *cluster.Server) error {
	var err error
	if s.AdvertiseAddress, err = address("--advertise-address", f.advertise); err != nil {
		return err
	}
	if s.ClusterDNS, err = address("--cluster-dns", f.dns); err != nil {
		return err
	}
	if s.ServiceCIDRs, err = prefixes("--service-cluster-ip-range", f.services); err != nil {
		return err
	}
	if s.ClusterCIDRs, err = prefixes("--cluster-cidr", f.pods); err != nil {
		return err
	}
	if err = f.scheduler.fill(s); err != nil {
		return err
	}
	if s.Limits.Unfair = !*f.fair; s.Limits.Reads < 1 || s.Limits.Writes < 1 {
		return usageError{errors.New("--max-requests-inflight and --max-mutating-requests-inflight: each has to be 1 or more")}
	}
	s.NodeCIDRMask = f.mask
	from, to, _ := strings.Cut(f.ports, "-")
	s.NodePorts.From, err = strconv.Atoi(from)
	if err == nil {
		s.NodePorts.To, err = strconv.Atoi(to)
	}
	if err != nil || s.NodePorts.From < 1 || s.NodePorts.To < s.NodePorts.From || s.NodePorts.To > 65535 {
		return usageError{fmt.Errorf("--service-node-port-range %q: write FROM-TO, such as 30000-32767", f.ports)}
	}
	return nil
}

type agentFlags struct {
	ip, labels string
}

func (f *agentFlags) add(fs *pflag.FlagSet, n *cluster.Agent) {
	fs.StringVar(&n.NodeName, "node-name", "", "of this node; nothing = the machine's host name")
	fs.StringVar(&f.ip, "node-ip", "", "address of this node; nothing = that of the default route")
	fs.StringVar(&f.labels, "node-labels", "", "of this node: KEY=VALUE, separated by commas")
	fs.StringSliceVar(&n.Taints, "register-with-taints", nil, "of this node when it is new: KEY=VALUE:EFFECT")
	fs.StringVar(&n.RuntimeEndpoint, "container-runtime-endpoint", "", "unix:///PATH of a CRI runtime that runs; nothing = a containerd of our own")
	fs.StringVar(&n.RuntimeDir, "runtime-dir", "", "folder with containerd, its shim, runc and the CNI plugins; nothing = that of proa")
	fs.StringVar(&n.RunDir, "run-dir", "", "folder for sockets, a short path; nothing = below /run/proa")
	fs.IntVar(&n.KubeletPort, "kubelet-port", cluster.DefaultKubeletPort, "port the node is asked for logs on")
	fs.IntVar(&n.HTTPPort, "http-port", 80, "port on which Ingresses answer HTTP; -1 = none")
	fs.IntVar(&n.HTTPSPort, "https-port", 443, "port on which Ingresses answer HTTPS; -1 = none")
	fs.StringVar(&n.CgroupRoot, "cgroup-root", "/", "control group that pods live in")
	fs.StringVar(&n.ResolvConf, "resolv-conf", "", "the node's own DNS settings; nothing = found")
	fs.BoolVar(&n.Localhost, "localhost-nodeports", true, "NodePorts and host ports answer on 127.0.0.1 too (sets route_localnet)")
}

func (f *agentFlags) fill(n *cluster.Agent) error {
	var err error
	if n.NodeIP, err = address("--node-ip", f.ip); err != nil || f.labels == "" {
		return err
	}
	n.Labels = map[string]string{}
	for _, pair := range strings.Split(f.labels, ",") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return usageError{fmt.Errorf("--node-labels %q: write KEY=VALUE", pair)}
		}
		n.Labels[key] = value
	}
	return nil
}

func address(flag, text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return ip, usageError{fmt.Errorf("%s %q is no IP address: write one such as 10.0.0.1", flag, text)}
	}
	return ip, nil
}

func prefixes(flag, text string) (all []netip.Prefix, err error) {
	for _, one := range strings.Split(text, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(one))
		if err != nil {
			return nil, usageError{fmt.Errorf("%s %q is no address range: write one such as 10.96.0.0/16", flag, one)}
		}
		all = append(all, p.Masked())
	}
	return all, nil
}
