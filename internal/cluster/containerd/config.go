// Package containerd runs a containerd of Proa's own beside any other that the
// machine has: own root, state, socket and configuration. It outlives Proa, so
// that containers run on while Proa is stopped, crashed or upgraded, and is
// found again at the next start.
package containerd

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"golang.org/x/sys/unix"

	"github.com/proa-dev/proa/internal/cluster/pki"
)

// Config of one containerd.
type Config struct {
	DataDir  string // images and snapshots
	RunDir   string // sockets, pid file, state of running containers; short: a socket's path has 107 bytes
	Binaries string // folder with containerd, its shim, runc and the CNI plugins; see FindBinaries
	CNIConf  string // folder with the pod network's configuration
	Pause    string // image of the pods' sandboxes
	Mirror   Mirror
	Log      *slog.Logger
}

// Mirror is the registry that is asked before the one that an image's name
// points to. The zero value is none.
type Mirror struct {
	URL       string // https://HOST:PORT
	Authority string // file with its CA
	Cert, Key string // files with the client's certificate and key
}

// Socket on which the CRI is served.
func (c *Config) Socket() string { return filepath.Join(c.RunDir, "containerd.sock") }

// Endpoint as a kubelet's --container-runtime-endpoint has it.
func (c *Config) Endpoint() string { return "unix://" + c.Socket() }

func (c *Config) pidFile() string    { return filepath.Join(c.RunDir, "containerd.pid") }
func (c *Config) configFile() string { return filepath.Join(c.DataDir, "containerd.toml") }
func (c *Config) hostsDir() string   { return filepath.Join(c.DataDir, "registries") }

// LogFile that containerd writes.
func (c *Config) LogFile() string { return filepath.Join(c.DataDir, "containerd.log") }

// host is what of the machine the configuration depends on.
type host struct {
	Snapshotter   string
	RestrictOOM   bool // without CAP_SYS_RESOURCE no process may get a lower OOM score
	SystemdCgroup bool
}

func (c *Config) look() host {
	h := host{Snapshotter: "overlayfs", RestrictOOM: !hasCapability(unix.CAP_SYS_RESOURCE)}
	if err := tryOverlay(c.DataDir); err != nil {
		h.Snapshotter = "native"
		c.Log.Warn("overlayfs does not work here: images are copied instead, which takes time and space", "folder", c.DataDir, "err", err)
	}
	return h
}

// hasCapability says whether this process has a capability, by the mask in
// /proc/self/status.
func hasCapability(capability int) bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if mask, ok := strings.CutPrefix(line, "CapEff:"); ok {
			var caps uint64
			_, _ = fmt.Sscanf(mask, "%x", &caps)
			return caps>>capability&1 == 1
		}
	}
	return false
}

// tryOverlay mounts an overlay in the folder, to see whether it can be done:
// it cannot when the folder itself lies on one, as in most containers.
func tryOverlay(folder string) error {
	dir, err := os.MkdirTemp(folder, ".overlay-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	options := []string{}
	for _, part := range []string{"lowerdir", "upperdir", "workdir"} {
		path := filepath.Join(dir, part)
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		options = append(options, part+"="+path)
	}
	target := filepath.Join(dir, "merged")
	if err := os.Mkdir(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("overlay", target, "overlay", 0, strings.Join(options, ",")); err != nil {
		return err
	}
	return unix.Unmount(target, unix.MNT_DETACH)
}

// unused plugins cost memory and time at the start.
var unused = []string{
	"io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
	"io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.zfs", "io.containerd.differ.v1.erofs",
	"io.containerd.mount-handler.v1.erofs", "io.containerd.image-verifier.v1.bindir", "io.containerd.nri.v1.nri",
	"io.containerd.monitor.container.v1.restart", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
	"io.containerd.ttrpc.v1.otelttrpc", "io.containerd.server.v1.debug", "io.containerd.server.v1.metrics",
	"io.containerd.server.v1.grpc-tcp",
}

var configText = template.Must(template.New("").Funcs(template.FuncMap{"quote": func(s string) string { return fmt.Sprintf("%q", s) }}).Parse(
	`# Written by proa at every start. Statistics are not collected: the kubelet reads the control groups.
version = 4
root = {{quote .DataDir}}
state = {{quote .State}}
disabled_plugins = [{{range .Unused}}
 {{quote .}},{{end}}
]

[plugins.'io.containerd.server.v1.grpc']
 address = {{quote .Socket}}
[plugins.'io.containerd.server.v1.ttrpc']
 address = {{quote .TTRPC}}
[plugins.'io.containerd.shim.v1.manager']
 socket_dir = {{quote .Shims}}
[plugins.'io.containerd.internal.v1.opt']
 path = {{quote .Opt}}

[plugins.'io.containerd.cri.v1.images']
 snapshotter = {{quote .Snapshotter}}
 max_concurrent_downloads = 8
 discard_unpacked_layers = true
 [plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = {{quote .Pause}}
 [plugins.'io.containerd.cri.v1.images'.registry]
  config_path = {{quote .Hosts}}

[plugins.'io.containerd.cri.v1.runtime']
 restrict_oom_score_adj = {{.RestrictOOM}}
 netns_mounts_under_state_dir = true
 cdi_spec_dirs = []
 stats_collect_period = '24h'
 [plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = [{{quote .Binaries}}, '/opt/cni/bin']
  conf_dir = {{quote .CNIConf}}
  use_internal_loopback = true
 [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
   BinaryName = {{quote .Runc}}
   SystemdCgroup = {{.SystemdCgroup}}
`))

// render the configuration file.
func (c *Config) render(h host) ([]byte, error) {
	var out bytes.Buffer
	err := configText.Execute(&out, struct {
		*Config
		host
		State, TTRPC, Shims, Opt, Hosts, Runc string
		Unused                                []string
	}{
		Config: c, host: h,
		State: filepath.Join(c.RunDir, "state"),
		TTRPC: c.Socket() + ".ttrpc", Shims: filepath.Join(c.RunDir, "s"), Opt: filepath.Join(c.DataDir, "opt"),
		Hosts: c.hostsDir(), Runc: filepath.Join(c.Binaries, "runc"), Unused: unused,
	})
	return out.Bytes(), err
}

// writeMirror makes the mirror known to containerd, which reads this at every pull.
func (c *Config) writeMirror() error {
	if c.Mirror.URL == "" {
		return os.RemoveAll(c.hostsDir())
	}
	text := fmt.Sprintf("[host.%q]\n capabilities = [\"pull\", \"resolve\"]\n ca = %q\n client = [[%q, %q]]\n",
		c.Mirror.URL, c.Mirror.Authority, c.Mirror.Cert, c.Mirror.Key)
	return pki.WriteFile(filepath.Join(c.hostsDir(), "_default", "hosts.toml"), []byte(text), 0o644)
}
