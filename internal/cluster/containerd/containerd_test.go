package containerd

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-dev/proa/internal/cluster/daemon"
	"github.com/proa-dev/proa/internal/cluster/pki"
	"github.com/proa-dev/proa/internal/cluster/registry"
)

// binaries folder, or the test is skipped.
func binaries(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to run containers")
	}
	dir := os.Getenv("PROA_RUNTIME_DIR")
	if dir == "" {
		dir = "../../../bin"
	}
	dir, err := FindBinaries(dir)
	if err != nil {
		t.Skipf("needs the runtime's programs (PROA_RUNTIME_DIR): %v", err)
	}
	return dir
}

// mirror serves the pause image, to clients with a certificate alone.
func mirror(t *testing.T, dir string) Mirror {
	t.Helper()
	ca, err := pki.OpenAuthority(dir, "ca", "test-ca")
	if err != nil {
		t.Fatal(err)
	}
	serving, err := ca.Leaf(filepath.Join(dir, "server"), pki.Profile{CommonName: "server", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true})
	if err != nil {
		t.Fatal(err)
	}
	client, err := ca.Leaf(filepath.Join(dir, "client"), pki.Profile{CommonName: "node", Client: true})
	if err != nil {
		t.Fatal(err)
	}
	images, err := registry.Open(filepath.Join(dir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	if err := images.AddPause(); err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: serving.Serve, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: images.Mirror()}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	crt, key := client.Files()
	return Mirror{URL: "https://" + l.Addr().String(), Authority: filepath.Join(dir, "ca.crt"), Cert: crt, Key: key}
}

// A pod's sandbox, its image pulled from the mirror, lives on while containerd
// is stopped and started; Down leaves nothing.
func TestPodsOutliveContainerd(t *testing.T) {
	bin := binaries(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	run, err := os.MkdirTemp("/run", "proa-test-")
	if err != nil {
		t.Fatal(err)
	}
	c := &Config{
		DataDir: filepath.Join(dir, "containerd"), RunDir: run, Binaries: bin, CNIConf: filepath.Join(dir, "cni"),
		Pause: registry.Pause, Mirror: mirror(t, dir), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	t.Cleanup(func() {
		if err := c.Down(context.Background()); err != nil {
			t.Error(err)
		}
		if left := shims(t, c.Socket()); left != 0 {
			t.Errorf("%d shims are left", left)
		}
		if _, err := os.Stat(run); err == nil {
			t.Error("the run folder is left")
		}
		if mounts, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mounts), run) || strings.Contains(string(mounts), dir) {
			t.Error("mounts are left")
		}
	})
	first, err := c.Ensure(ctx)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := Dial(c.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rt := cri.NewRuntimeServiceClient(conn)
	pod, err := rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: "p", Namespace: "default", Uid: "u"},
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE},
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Ensure(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if again.PID != first.PID {
		t.Error("a running containerd was not taken over")
	}
	if err := daemon.StopFile(ctx, c.pidFile(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if n := shims(t, c.Socket()); n != 1 {
		t.Errorf("%d shims while containerd is down, not 1", n)
	}
	if _, err := c.Ensure(ctx); err != nil {
		t.Fatal(err)
	}
	status, err := rt.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: pod.PodSandboxId})
	if err != nil || status.Status.State != cri.PodSandboxState_SANDBOX_READY {
		t.Errorf("%v %v", status, err)
	}
}

func shims(t *testing.T, socket string) int {
	t.Helper()
	n := 0
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		data, _ := os.ReadFile(f)
		args := strings.Split(string(data), "\x00")
		if strings.HasSuffix(args[0], "containerd-shim-runc-v2") && containsPair(args, "-address", socket) {
			n++
		}
	}
	return n
}

func TestMissingBinariesAreNamed(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "containerd"), nil, 0o755)
	_, err := FindBinaries(dir)
	if err == nil || !strings.Contains(err.Error(), "runc") || strings.Contains(err.Error(), " containerd,") || !strings.Contains(err.Error(), "make tools") {
		t.Error(err)
	}
}
