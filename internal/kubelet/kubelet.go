// Package kubelet runs the pods that are bound to this node. For each there is a
// worker that looks at what is wanted and what the runtime has, asks package pod
// what to do, and does it. Nothing polls: pods come by a watch, containers by the
// runtime's events, and every wait has a timer of its own.
package kubelet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/kubelet/cgroup"
	"github.com/proa-dev/proa/internal/kubelet/container"
	"github.com/proa-dev/proa/internal/kubelet/csi"
	"github.com/proa-dev/proa/internal/kubelet/device"
	"github.com/proa-dev/proa/internal/kubelet/dra"
	"github.com/proa-dev/proa/internal/kubelet/image"
	"github.com/proa-dev/proa/internal/kubelet/node"
	"github.com/proa-dev/proa/internal/kubelet/probe"
	"github.com/proa-dev/proa/internal/kubelet/runtime"
	"github.com/proa-dev/proa/internal/kubelet/source"
	"github.com/proa-dev/proa/internal/kubelet/volume"
)

// Config of a node's kubelet.
type Config struct {
	Conn client.Conn // as the node's user, system:node:NAME
	Log  *slog.Logger

	Name       string   // of the node
	IPs        []string // of the node, the first is the primary one
	Labels     map[string]string
	Taints     []v1.Taint
	ProviderID string
	PodCIDRs   []string // announced by the node itself; nil = a controller's job

	RootDir   string // "" = /var/lib/kubelet
	LogsDir   string // of pods; "" = /var/log/pods
	Manifests string // folder of static pods, "" = none

	Runtime string // CRI endpoint: unix:///run/containerd/containerd.sock
	// SandboxSeccomp is the path of a seccomp profile for the sandboxes' own process,
	// "" = the runtime's default.
	SandboxSeccomp string
	// Sandboxes is told from time to time which sandboxes there are, so that what
	// others keep for those that are gone can be taken back. nil = nobody keeps any.
	Sandboxes func(ids []string) error

	CgroupRoot   string // "" = /
	CgroupDriver string // "" = cgroupfs; or systemd

	ClusterDNS    []string
	ClusterDomain string // "" = cluster.local
	ResolvConf    string // "" = /etc/resolv.conf

	MaxPods  int   // 0 = 110
	PodPids  int64 // processes in a pod, 0 = no limit
	Reserved v1.ResourceList

	Address  string // the server listens on, "" = all
	Port     int    // 0 = 10250
	Listener net.Listener
	// ClientCAs that client certificates are checked against, nil = none.
	ClientCAs func() *x509.CertPool
	// Certificate of the server, asked for at every handshake.
	Certificate func() (*tls.Certificate, error)

	UnsafeSysctls []string // allowed beyond the safe ones; may end in *
}

func (c *Config) defaults() error {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&c.RootDir, "/var/lib/kubelet")
	set(&c.LogsDir, "/var/log/pods")
	set(&c.ClusterDomain, "cluster.local")
	set(&c.ResolvConf, "/etc/resolv.conf")
	set(&c.CgroupDriver, "cgroupfs")
	if c.MaxPods == 0 {
		c.MaxPods = 110
	}
	if c.Port == 0 {
		c.Port = 10250
	}
	if c.Name == "" || len(c.IPs) == 0 || c.Conn == nil || c.Runtime == "" {
		return fmt.Errorf("kubelet: a node needs Name, IPs, Conn and Runtime")
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	for _, dir := range []string{c.RootDir, c.LogsDir, filepath.Join(c.RootDir, "pods"), filepath.Join(c.RootDir, "seccomp")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("kubelet: %w", err)
		}
	}
	return shareMounts(c.RootDir)
}

// kubelet is what the workers share.
type kubelet struct {
	Config
	ctx      context.Context
	log      *slog.Logger
	rt       *runtime.Client
	observer *runtime.Observer
	// sandboxes being made at the same time: each is half a dozen processes, and
	// more of them than the cores can carry only make all of them late.
	sandboxes chan struct{}
	events    *event.Recorder
	images    *image.Manager
	volumes   *volume.Manager
	csi       *csi.Manager
	dra       *dra.Manager
	devices   *device.Manager
	probes    *probe.Manager
	cgroups   *cgroup.Tree
	sources   *source.Sources
	node      container.Node
	pods      client.Client[*v1.Pod]
	bound     *client.Informer[*v1.Pod] // the pods that are bound to this node
	features  *runtime.Features

	mu      sync.Mutex
	workers map[types.UID]*worker
	ledger  ledger
	self    *v1.Node // as the API server last showed it
	// selfChanged is closed when self is another, nil = nobody waits for that.
	selfChanged chan struct{}

	due chan struct{} // the node's status is to be written

	buried buried

	pressure pressure
	group    sync.WaitGroup
}

// Run the kubelet until ctx ends. Containers keep running then, and are taken
// back by the next Run.
func Run(ctx context.Context, c Config) error {
	if err := c.defaults(); err != nil {
		return err
	}
	rt, err := runtime.Dial(ctx, c.Runtime)
	if err != nil {
		return err
	}
	defer rt.Close()
	k := &kubelet{Config: c, log: c.Log, rt: rt, due: make(chan struct{}, 1), workers: map[types.UID]*worker{}, ledger: ledger{map[types.UID]promise{}}, pods: client.For[*v1.Pod](c.Conn)}
	g, ctx := errgroup.WithContext(ctx)
	k.ctx = ctx
	if err := k.build(ctx); err != nil {
		return err
	}
	informers := client.NewInformers(c.Conn)
	services := client.Shared[*v1.Service](informers, client.Scope{})
	k.bound = client.Shared[*v1.Pod](informers, client.Scope{Index: "spec.nodeName", Value: c.Name})
	k.sources = source.New(ctx, c.Conn, services, k.sourceChanged)
	k.volumes.Sources = k.sources
	if err := k.drivers(ctx); err != nil {
		return err
	}
	if err := k.adopt(ctx); err != nil {
		return err
	}
	k.bound.OnChange(k.podChanged)
	g.Go(func() error { k.events.Run(ctx); return nil })
	g.Go(func() error { return informers.Run(ctx) })
	g.Go(func() error { return k.watchRuntime(ctx) })
	g.Go(func() error {
		if err := informers.WaitSynced(ctx); err != nil {
			return err
		}
		if c.Manifests != "" {
			for uid := range k.manifests() {
				k.known(uid)
			}
		}
		k.orphans()
		return nil
	})
	g.Go(func() error { return k.housekeeping(ctx) })
	g.Go(func() error { return k.runNode(ctx) })
	g.Go(func() error { return k.plugins(ctx) })
	g.Go(func() error { return k.devices.Serve(ctx) })
	g.Go(func() error { return k.serve(ctx) })
	if c.Manifests != "" {
		g.Go(func() error { return k.staticPods(ctx) })
	}
	err = g.Wait()
	k.group.Wait()
	return err
}

func (k *kubelet) build(ctx context.Context) (err error) {
	if k.cgroups, err = cgroup.New(k.CgroupRoot, k.CgroupDriver); err != nil {
		return err
	}
	if k.features, err = k.rt.Features(ctx); err != nil {
		return err
	}
	capacity, allocatable := k.resources()
	k.node = container.Node{
		ClusterDNS: k.ClusterDNS, ClusterDomain: k.ClusterDomain, ResolvConf: k.ResolvConf, LogsDir: k.LogsDir,
		SeccompDir: filepath.Join(k.RootDir, "seccomp"), Sandboxes: k.SandboxSeccomp, Memory: capacity.Memory().Value(), Allocatable: allocatable,
		CgroupV2: k.cgroups.V2(), Swap: node.Swap(), RRO: k.features.RRO,
	}
	k.observer = runtime.NewObserver(k.rt)
	k.sandboxes = make(chan struct{}, max(2, 2*goruntime.NumCPU()))
	k.events = event.New(k.Conn, "kubelet", k.Name, k.log)
	k.images = image.New(k.rt, k.events, k.log)
	k.probes = probe.New(k.rt, k.events, k.log, k.IPs[0])
	k.volumes = &volume.Manager{
		Root:        k.RootDir,
		Allocatable: func() v1.ResourceList { return k.node.Allocatable },
		Field: func(p *v1.Pod, path string) (string, error) {
			return container.Field(p, path, k.IPs, nil)
		},
		Resource: func(p *v1.Pod, r *v1.ResourceFieldSelector) (string, error) {
			return container.Resource(p, nil, r, k.node.Allocatable)
		},
	}
	return nil
}

// adopt finds out which pods the runtime has, before the first of them is told of.
func (k *kubelet) adopt(ctx context.Context) error {
	have, err := k.rt.Pods(ctx)
	if err != nil {
		return fmt.Errorf("list what runs on the node: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for uid, ref := range have {
		w := k.newWorker(ref)
		w.dirty = true
		k.workers[uid] = w
	}
	return nil
}

// podChanged takes a change of the watch to the worker of the pod.
func (k *kubelet) podChanged(old, now *v1.Pod) {
	for _, p := range []*v1.Pod{old, now} {
		if p == nil {
			continue
		}
		if hash := p.Annotations[v1.MirrorPodAnnotationKey]; hash != "" {
			if now == nil { // only the image of what runs here; it is shown anew
				k.tell(types.UID(hash), func(w *worker) { w.mirrored = nil })
			}
			return
		}
	}
	if old != nil && (now == nil || now.UID != old.UID) {
		k.tell(old.UID, func(w *worker) { w.gone = true })
	}
	if now == nil {
		return
	}
	k.mu.Lock()
	w := k.workers[now.UID]
	if w == nil && k.buried.Has(now.UID) {
		k.mu.Unlock()
		return // a late word of a pod that is gone
	}
	if w == nil {
		w = k.newWorker(runtime.Ref{Namespace: now.Namespace, Name: now.Name, UID: now.UID})
		k.workers[now.UID] = w
	}
	w.begin()
	k.mu.Unlock()
	w.tell(func(w *worker) { w.update(now) })
}

// known keeps a static pod that runs already from being taken for an orphan.
func (k *kubelet) known(uid types.UID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.workers[uid]; w != nil {
		w.begin()
	}
}

// orphans are pods that the runtime or the disk has and the API does not.
func (k *kubelet) orphans() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, uid := range k.volumes.Orphans() {
		if k.workers[uid] == nil {
			k.workers[uid] = k.newWorker(runtime.Ref{UID: uid})
		}
	}
	entries, _ := os.ReadDir(k.LogsDir)
	for _, e := range entries {
		name := e.Name()
		if uid := types.UID(name[strings.LastIndexByte(name, '_')+1:]); strings.Count(name, "_") == 2 && k.workers[uid] == nil {
			_ = os.RemoveAll(filepath.Join(k.LogsDir, name))
		}
	}
	for _, w := range k.workers {
		if !w.running {
			w.begin()
			w.tell(func(w *worker) { w.gone, w.dirty = true, true })
		}
	}
}

// tell the worker of a pod, if there is one.
func (k *kubelet) tell(uid types.UID, f func(*worker)) {
	k.mu.Lock()
	w := k.workers[uid]
	k.mu.Unlock()
	if w != nil {
		w.tell(f)
	}
}

func (k *kubelet) tellAll(f func(*worker)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.workers {
		w.tell(f)
	}
}

func (k *kubelet) sourceChanged(uid types.UID) {
	k.tell(uid, func(w *worker) { w.refresh() })
}

const (
	reconnect = time.Second
	relist    = 5 * time.Minute // in case the runtime lost an event
)

// watchRuntime tells workers of what happens to their containers.
func (k *kubelet) watchRuntime(ctx context.Context) error {
	all := func() { k.tellAll(func(w *worker) { w.dirty = true }) }
	for {
		err := k.rt.Events(ctx, all, func(e *cri.ContainerEventResponse) {
			uid := e.GetPodSandboxStatus().GetMetadata().GetUid()
			if uid == "" {
				all()
				return
			}
			k.tell(types.UID(uid), func(w *worker) { w.dirty = true })
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		k.log.Warn("container runtime's events broke off", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(reconnect):
		}
	}
}

// buried remembers the last pods that are gone, so that late news of one does not
// raise it.
type buried struct {
	last [256]types.UID
	next int
}

func (b *buried) Add(uid types.UID) { b.last[b.next%len(b.last)] = uid; b.next++ }

func (b *buried) Has(uid types.UID) bool { return slices.Contains(b.last[:], uid) }
