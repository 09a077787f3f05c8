package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/proa-dev/proa/internal/cluster/containerd"
	"github.com/proa-dev/proa/internal/cluster/pki"
	"github.com/proa-dev/proa/internal/cluster/registry"
	"github.com/proa-dev/proa/test/bench/plane"
)

// Upstream makes a cluster of upstream's programs on this machine: its control
// plane, and a kubelet on a containerd that is configured as Proa's is. It has
// neither kube-proxy nor cluster DNS.
type Upstream struct {
	Control plane.Upstream
	Bin     string // folder with containerd, runc and the CNI plugins
	Image   string // docker archive of the image that pods run
	Name    string // what that image is called
}

const (
	nodeName   = "bench-upstream"
	runDir     = "/run/proa-bench" // short: a socket's path has 107 bytes
	cgroupName = "proa-bench"
	podRange   = "10.251.0.0/24"
)

// Up starts the cluster. Its node is ready when a pod is, which the caller waits
// for.
func (u *Upstream) Up(ctx context.Context) (*Node, error) {
	n := &Node{}
	if err := u.up(ctx, n); err != nil {
		return nil, errors.Join(err, n.Stop(ctx))
	}
	return n, nil
}

func (u *Upstream) up(ctx context.Context, n *Node) error {
	dir, err := os.MkdirTemp(u.Control.Below, "node-")
	if err != nil {
		return err
	}
	n.stop = append(n.stop, func(context.Context) error {
		return errors.Join(containerd.Unmount(dir), os.RemoveAll(dir))
	})
	control, err := u.Control.Start(ctx)
	if err != nil {
		return err
	}
	n.stop = append(n.stop, func(context.Context) error { control.Stop(); return nil })
	restore, err := keepHost()
	if err != nil {
		return err
	}
	n.stop = append(n.stop, restore)
	group, err := makeCgroups() // before containerd: they are removed after its pods
	n.stop = append(n.stop, func(context.Context) error { return removeCgroups() })
	if err != nil {
		return err
	}
	mirror, err := u.serve(n, dir, control.Authority)
	if err != nil {
		return err
	}
	socket, err := u.runtime(ctx, n, dir, mirror)
	if err != nil {
		return err
	}
	kubelet, err := u.kubelet(n, dir, group, socket, control)
	if err != nil {
		return err
	}
	n.Kubeconfig, n.PIDs = control.Kubeconfig, append(control.PIDs(), kubelet.PID)
	return nil
}

// runtime starts containerd as Proa does.
func (u *Upstream) runtime(ctx context.Context, n *Node, dir string, mirror containerd.Mirror) (socket string, err error) {
	rt := &containerd.Config{
		DataDir: filepath.Join(dir, "containerd"), RunDir: runDir, Binaries: u.Bin, CNIConf: filepath.Join(dir, "cni"),
		Pause: registry.Pause, Mirror: mirror, Log: slog.New(slog.DiscardHandler),
	}
	network := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"bench","plugins":[{"type":"ptp","ipMasq":false,"mtu":1500,`+
		`"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":%q}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`, filepath.Join(dir, "ipam"), podRange)
	if err := pki.WriteFile(filepath.Join(rt.CNIConf, "10-bench.conflist"), []byte(network), 0o644); err != nil {
		return "", err
	}
	n.stop = append(n.stop, rt.Down)
	_, err = rt.Ensure(ctx)
	return rt.Endpoint(), err
}

func (u *Upstream) kubelet(n *Node, dir, group, endpoint string, control *plane.Running) (*plane.Process, error) {
	user, err := control.User("kubelet", pki.Profile{CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}})
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: %s
containerRuntimeEndpoint: %s
port: %d
healthzPort: 0
makeIPTablesUtilChains: false
volumePluginDir: %s
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}}
authorization: {mode: Webhook}
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
podLogsDir: %s
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%%, imagefs.available: 1%%}
`, group, endpoint, port, filepath.Join(dir, "plugins"), filepath.Join(dir, "logs"))
	file := filepath.Join(dir, "kubelet.yaml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, err
	}
	p, err := plane.Start(dir, filepath.Join(u.Control.Programs, "kubelet"), "--config="+file, "--kubeconfig="+user,
		"--root-dir="+filepath.Join(dir, "kubelet"), "--cert-dir="+filepath.Join(dir, "pki"), "--hostname-override="+nodeName)
	if err == nil {
		n.stop = append(n.stop, func(context.Context) error { p.Stop(); return nil })
	}
	return p, err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err := errors.Join(err, l.Close()); err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}
