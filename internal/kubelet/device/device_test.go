package device

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	wire "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/kubelet/plugin"
)

// toys is a device plugin.
type toys struct {
	wire.UnimplementedDevicePluginServer
	lists  chan []*wire.Device
	mu     sync.Mutex
	calls  []string
	server *grpc.Server
}

func (p *toys) called(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, s)
}

func (p *toys) ListAndWatch(_ *wire.Empty, s grpc.ServerStreamingServer[wire.ListAndWatchResponse]) error {
	for {
		select {
		case l := <-p.lists:
			if err := s.Send(&wire.ListAndWatchResponse{Devices: l}); err != nil {
				return err
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

func (p *toys) GetPreferredAllocation(_ context.Context, r *wire.PreferredAllocationRequest) (*wire.PreferredAllocationResponse, error) {
	all := slices.Clone(r.ContainerRequests[0].AvailableDeviceIDs) // it likes the last
	slices.Reverse(all)
	return &wire.PreferredAllocationResponse{ContainerResponses: []*wire.ContainerPreferredAllocationResponse{{DeviceIDs: all[:r.ContainerRequests[0].AllocationSize]}}}, nil
}

func (p *toys) Allocate(_ context.Context, r *wire.AllocateRequest) (*wire.AllocateResponse, error) {
	ids := strings.Join(r.ContainerRequests[0].DevicesIds, ",")
	p.called("allocate " + ids)
	return &wire.AllocateResponse{ContainerResponses: []*wire.ContainerAllocateResponse{{
		Envs: map[string]string{"TOYS": ids}, Devices: []*wire.DeviceSpec{{HostPath: "/dev/t", ContainerPath: "/dev/toy", Permissions: "rw"}},
		Mounts: []*wire.Mount{{HostPath: "/lib/t", ContainerPath: "/lib/toy", ReadOnly: true}}, Annotations: map[string]string{"toy": "yes"},
		CdiDevices: []*wire.CDIDevice{{Name: "toy.test/toy=0"}}}}}, nil
}

func (p *toys) PreStartContainer(_ context.Context, r *wire.PreStartContainerRequest) (*wire.PreStartContainerResponse, error) {
	p.called("start " + strings.Join(r.DevicesIds, ","))
	return &wire.PreStartContainerResponse{}, nil
}

type bench struct {
	t       *testing.T
	root    string
	m       *Manager
	changed chan struct{}
	stop    func()
}

func (b *bench) start() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	m, err := New(ctx, Config{Root: plugin.Root(b.root), Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Changed: func() { b.changed <- struct{}{} }, Grace: 50 * time.Millisecond})
	if err != nil {
		b.t.Fatal(err)
	}
	done := make(chan error)
	socket := filepath.Join(b.root, folder, "kubelet.sock")
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) { // of the one before
		b.t.Fatal(err)
	}
	go func() { done <- m.Serve(ctx) }()
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		} else if time.Now().After(until) {
			b.t.Fatal(err)
		}
	}
	b.m = m
	b.stop = func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			b.t.Errorf("serving ended with %v", err)
		}
	}
}

// serve a plugin at a socket, until the test ends at the latest.
func (b *bench) serve(p *toys, socket string) {
	b.t.Helper()
	l, err := plugin.Listen(socket)
	if err != nil {
		b.t.Fatal(err)
	}
	p.server = grpc.NewServer()
	wire.RegisterDevicePluginServer(p.server, p)
	go p.server.Serve(l)
	b.t.Cleanup(p.server.Stop)
}

func (b *bench) register(p *toys, lists ...*wire.Device) {
	b.t.Helper()
	if p.server == nil {
		b.serve(p, filepath.Join(b.root, folder, "toy.sock"))
	}
	conn, err := plugin.Dial(filepath.Join(b.root, folder, "kubelet.sock"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	_, err = wire.NewRegistrationClient(conn).Register(b.t.Context(), &wire.RegisterRequest{Version: "v1beta1", Endpoint: "toy.sock", ResourceName: "toy.test/toy",
		Options: &wire.DevicePluginOptions{PreStartRequired: true, GetPreferredAllocationAvailable: true}}, grpc.WaitForReady(true))
	if err != nil {
		b.t.Fatal(err)
	}
	p.lists <- lists
}

// await a capacity and allocatable of devices.
func (b *bench) await(all, good int64) {
	b.t.Helper()
	for {
		c, a := b.m.Capacity()
		x, y := c["toy.test/toy"], a["toy.test/toy"]
		if x.Value() == all && y.Value() == good {
			return
		}
		select {
		case <-b.changed:
		case <-time.After(20 * time.Second):
			b.t.Fatalf("the node has %d devices, %d of them healthy", x.Value(), y.Value())
		}
	}
}

func device(id, health string) *wire.Device { return &wire.Device{ID: id, Health: health} }

func toyPod(name string, inits, regular int) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	limits := func(n int) v1.ResourceRequirements {
		return v1.ResourceRequirements{Limits: v1.ResourceList{"toy.test/toy": *resource.NewQuantity(int64(n), resource.DecimalSI)}}
	}
	if inits > 0 {
		p.Spec.InitContainers = []v1.Container{{Name: "i", Resources: limits(inits)}}
	}
	p.Spec.Containers = []v1.Container{{Name: "c", Resources: limits(regular)}}
	return p
}

func TestDevices(t *testing.T) {
	b := &bench{t: t, root: t.TempDir(), changed: make(chan struct{}, 100)}
	b.start()
	p := &toys{lists: make(chan []*wire.Device)}
	b.register(p, device("a", wire.Healthy), device("b", wire.Healthy), device("c", wire.Healthy), device("d", wire.Unhealthy))
	b.await(4, 3)
	one := toyPod("one", 1, 2)
	if !b.m.Wants(one) {
		t.Fatal("the pod wants no devices")
	}
	if err := b.m.Allocate(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(p.calls, " "); got != "allocate c allocate c,b" {
		t.Errorf("the plugin was called: %s", got)
	}
	if err := b.m.Allocate(t.Context(), toyPod("two", 0, 2)); err == nil || err.Error() != "requested number of devices unavailable for toy.test/toy. Requested: 2, Available: 1" {
		t.Errorf("two: %v", err)
	}
	b.stop()
	p.server.Stop()
	b.start()
	b.await(0, 0)
	p = &toys{lists: make(chan []*wire.Device)}
	b.register(p, device("a", wire.Healthy), device("b", wire.Healthy), device("c", wire.Healthy))
	b.await(3, 3)
	if err := b.m.Allocate(t.Context(), one); err != nil || len(p.calls) != 0 {
		t.Errorf("what was granted before was allocated again: %v %v", p.calls, err)
	}
	cfg := &cri.ContainerConfig{Annotations: map[string]string{}, Envs: []*cri.KeyValue{{Key: "A"}}}
	if err := b.m.Apply(t.Context(), cfg, one, &one.Spec.Containers[0]); err != nil {
		t.Fatal(err)
	}
	if len(cfg.Envs) != 2 || string(cfg.Envs[1].Value) != "c,b" || len(cfg.Devices) != 1 || cfg.Devices[0].HostPath != "/dev/t" || len(cfg.Mounts) != 1 || cfg.Annotations["toy"] != "yes" || cfg.CDIDevices[0].Name != "toy.test/toy=0" {
		t.Errorf("%v", cfg)
	}
	if got := strings.Join(p.calls, " "); got != "start c,b" {
		t.Errorf("the plugin was called: %s", got)
	}
	b.m.Free("one")
	if err := b.m.Allocate(t.Context(), toyPod("two", 0, 3)); err != nil {
		t.Errorf("two: %v", err)
	}
	p.server.Stop()
	b.await(3, 0)
	b.await(0, 0)
	b.stop()
}

// One plugin takes over from another, whose socket goes only then.
func TestPluginIsUpgraded(t *testing.T) {
	b := &bench{t: t, root: t.TempDir(), changed: make(chan struct{}, 100)}
	b.start()
	list := func(p *toys, devices ...*wire.Device) {
		t.Helper()
		select {
		case p.lists <- devices:
		case <-time.After(20 * time.Second):
			t.Fatal("nobody asks the plugin for its devices")
		}
	}
	var infos []plugin.Info
	var plugins []*toys
	for _, name := range []string{"old.sock", "new.sock"} {
		p, socket := &toys{lists: make(chan []*wire.Device)}, filepath.Join(b.root, name)
		b.serve(p, socket)
		infos, plugins = append(infos, plugin.Info{Type: "DevicePlugin", Name: "toy.test/toy", Endpoint: socket, Said: socket, Versions: []string{wire.Version}}), append(plugins, p)
	}
	if err := b.m.Register(t.Context(), infos[0]); err != nil {
		t.Fatal(err)
	}
	list(plugins[0], device("a", wire.Healthy))
	b.await(1, 1)
	if err := b.m.Register(t.Context(), infos[1]); err != nil {
		t.Fatal(err)
	}
	list(plugins[1], device("a", wire.Healthy), device("b", wire.Healthy))
	b.await(2, 2)
	b.m.Deregister(infos[0])
	list(plugins[1], device("a", wire.Healthy), device("b", wire.Unhealthy))
	b.await(2, 1)
	b.m.Deregister(infos[1])
	b.await(0, 0)
	b.stop()
}

func TestNoPluginsNoDevices(t *testing.T) {
	m, err := New(t.Context(), Config{Root: plugin.Root(t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	if c, a := m.Capacity(); c != nil || a != nil || m.Wants(toyPod("p", 0, 1)) {
		t.Error("there are devices")
	}
	m.Free("p")
}

func TestSidecarsKeepTheirs(t *testing.T) {
	b := &bench{t: t, root: t.TempDir(), changed: make(chan struct{}, 100)}
	b.start()
	p := &toys{lists: make(chan []*wire.Device)}
	b.register(p, device("a", wire.Healthy), device("b", wire.Healthy))
	b.await(2, 2)
	pod := toyPod("p", 1, 1)
	pod.Spec.InitContainers[0].RestartPolicy = ptr.To(v1.ContainerRestartPolicyAlways)
	if err := b.m.Allocate(t.Context(), pod); err != nil || strings.Join(p.calls, " ") != "allocate b allocate a" {
		t.Errorf("%v %v", p.calls, err)
	}
	b.stop()
}

func TestCheckName(t *testing.T) {
	for name, good := range map[string]bool{"nvidia.com/gpu": true, "gpu": false, "kubernetes.io/gpu": false, "x.kubernetes.io/gpu": false, "a/": false, "requests.a/b": false} {
		if err := checkName(name); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
}
