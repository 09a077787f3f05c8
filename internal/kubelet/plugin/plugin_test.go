package plugin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fsnotify/fsnotify"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

func TestRoot(t *testing.T) {
	root := Root("/data/kubelet")
	for path, want := range map[string]string{
		"/var/lib/kubelet":               "/data/kubelet",
		"/var/lib/kubelet/":              "/data/kubelet",
		"/var/lib/kubelet/plugins/a":     "/data/kubelet/plugins/a",
		"/var/lib/kubelet/../kubelet/x/": "/data/kubelet/x",
		"/var/lib/kubelets":              "/var/lib/kubelets",
		"/data/kubelet/plugins":          "/data/kubelet/plugins",
		"/":                              "/",
	} {
		if got := root.Real(path); got != want {
			t.Errorf("Real(%q) = %q, want %q", path, got, want)
		}
	}
	if got := root.Known("/data/kubelet/pods/u", "/var/lib/kubelet/plugins/d/csi.sock"); got != "/var/lib/kubelet/pods/u" {
		t.Error(got)
	}
	if got := root.Known("/data/kubelet/pods/u", "/data/kubelet/plugins/d/csi.sock"); got != "/data/kubelet/pods/u" {
		t.Error(got)
	}
	if got := Root(Public).Known(Public+"/pods/u", Public+"/plugins/d/csi.sock"); got != Public+"/pods/u" {
		t.Error(got)
	}
}

// announcer is a plugin that says what it is.
type announcer struct {
	registration.UnimplementedRegistrationServer
	info   *registration.PluginInfo
	told   chan *registration.RegistrationStatus
	server *grpc.Server
}

func announce(t *testing.T, path string, info *registration.PluginInfo) *announcer {
	t.Helper()
	a := &announcer{info: info, told: make(chan *registration.RegistrationStatus, 10), server: grpc.NewServer()}
	registration.RegisterRegistrationServer(a.server, a)
	t.Chdir(filepath.Dir(path)) // however long the path
	l, err := net.Listen("unix", filepath.Base(path))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	go a.server.Serve(l)
	t.Cleanup(a.server.Stop)
	return a
}

func (a *announcer) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return a.info, nil
}

func (a *announcer) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	a.told <- s
	return &registration.RegistrationStatusResponse{}, nil
}

type handler struct {
	mu    sync.Mutex
	fails int
	calls chan string
}

func (h *handler) Validate(i Info) error {
	if i.Name == "bad" {
		return errors.New("a bad name")
	}
	return nil
}

func (h *handler) Register(_ context.Context, i Info) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fails > 0 {
		h.fails--
		return errors.New("not yet")
	}
	h.calls <- "register " + i.Name + " " + i.Endpoint
	return nil
}

func (h *handler) Deregister(i Info) { h.calls <- "deregister " + i.Name }

func (h *handler) expect(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-h.calls:
		if got != want {
			t.Fatalf("the handler was told %q, want %q", got, want)
		}
	case <-t.Context().Done():
		t.Fatalf("the handler was not told %q", want)
	}
}

func watch(t *testing.T, root string, h *handler) (stop func()) {
	w := &Watcher{Root: Root(root), Handlers: map[string]Handler{"CSIPlugin": h}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the watcher ended with %v", err)
		}
	}
}

// What came and went while nobody told of it is found by looking again.
func TestChangesAreLost(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, Folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	n, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	h := &handler{calls: make(chan string, 10)}
	w := &Watcher{Root: Root(root), Handlers: map[string]Handler{"CSIPlugin": h}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), sockets: map[string]*socket{}}
	ctx, cancel := context.WithCancel(t.Context())
	defer w.group.Wait()
	defer cancel()
	csi := func(name string) *registration.PluginInfo {
		return &registration.PluginInfo{Type: "CSIPlugin", Name: name, Endpoint: "/" + name, SupportedVersions: []string{"1.0.0"}}
	}
	one := announce(t, filepath.Join(dir, "one.sock"), csi("one"))
	w.again(ctx, n, dir)
	h.expect(t, "register one /one")
	<-one.told
	if err := os.Remove(filepath.Join(dir, "one.sock")); err != nil {
		t.Fatal(err)
	}
	announce(t, filepath.Join(dir, "two.sock"), csi("two"))
	w.again(ctx, n, dir)
	got := []string{<-h.calls, <-h.calls}
	slices.Sort(got)
	if want := []string{"deregister one", "register two /two"}; !slices.Equal(got, want) {
		t.Errorf("the handler was told %q, want %q", got, want)
	}
}

func TestWatcher(t *testing.T) {
	root := filepath.Join(t.TempDir(), strings.Repeat("long", 20))
	dir := filepath.Join(root, Folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	csi := func(name string) *registration.PluginInfo {
		return &registration.PluginInfo{Type: "CSIPlugin", Name: name, Endpoint: "/var/lib/kubelet/plugins/" + name, SupportedVersions: []string{"1.0.0"}}
	}
	early := announce(t, filepath.Join(dir, "early.sock"), csi("early"))
	h := &handler{calls: make(chan string, 10)}
	stop := watch(t, root, h)
	h.expect(t, "register early "+root+"/plugins/early")
	if s := <-early.told; !s.PluginRegistered {
		t.Errorf("the plugin was told %v", s)
	}
	h.mu.Lock()
	h.fails = 1
	h.mu.Unlock()
	late := announce(t, filepath.Join(dir, "late.sock"), csi("late"))
	if s := <-late.told; s.PluginRegistered || !strings.Contains(s.Error, "not yet") {
		t.Errorf("the plugin was told %v", s)
	}
	h.expect(t, "register late "+root+"/plugins/late")
	if s := <-late.told; !s.PluginRegistered {
		t.Errorf("the plugin was told %v", s)
	}
	bad := announce(t, filepath.Join(dir, "bad.sock"), csi("bad"))
	if s := <-bad.told; s.PluginRegistered || !strings.Contains(s.Error, "a bad name") {
		t.Errorf("the plugin was told %v", s)
	}
	other := announce(t, filepath.Join(dir, "other.sock"), &registration.PluginInfo{Type: "Other", Name: "x"})
	if s := <-other.told; s.PluginRegistered || !strings.Contains(s.Error, "no handler registered for plugin type: Other") {
		t.Errorf("the plugin was told %v", s)
	}
	late.server.Stop()
	os.Remove(filepath.Join(dir, "late.sock"))
	h.expect(t, "deregister late")
	announce(t, filepath.Join(dir, "late.sock"), csi("later"))
	h.expect(t, "register later "+root+"/plugins/later")
	stop()
	select {
	case c := <-h.calls:
		t.Errorf("ending, the watcher told the handler %q", c)
	default:
	}
}
