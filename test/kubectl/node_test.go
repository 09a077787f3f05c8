package kubectl

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestNodeSessions plays the sessions of testdata/node: those that need
// containers. There are two nodes; one is lost in those of testdata/lost.
func TestNodeSessions(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a node sets up namespaces, cgroups and nftables")
	}
	runtimeDir := os.Getenv("PROA_RUNTIME_DIR")
	if runtimeDir == "" {
		t.Skip(`needs the runtime's programs: "make test-e2e" builds them and sets PROA_RUNTIME_DIR`)
	}
	proa := build(t)
	image := shellImage(t)
	for _, k := range kubectls(t, proa) {
		t.Run(k.name(), func(t *testing.T) {
			name := "kubectl-" + strings.ReplaceAll(k.name(), ".", "")
			kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
			command := func(args ...string) *exec.Cmd {
				cmd := exec.Command(proa, append(args, "--name", name, "--runtime-dir", runtimeDir)...)
				cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
				return cmd
			}
			_ = command("delete").Run() // what a run before this one left, if there is any
			t.Cleanup(func() { output(t, command("delete")) })
			var status struct{ Nodes []struct{ PID int } }
			must(t, json.Unmarshal([]byte(output(t, command("up", "--nodes", "2", "-o", "json"))), &status))
			load := exec.Command(proa, "image", "import", image)
			load.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
			output(t, load)
			t.Setenv("NODE2_PID", strconv.Itoa(status.Nodes[1].PID))
			t.Setenv("NODE1", "proa-"+name)
			t.Setenv("NODE2", "proa-"+name+"-2")
			t.Run("both", func(t *testing.T) { play(t, "testdata/node", k, kubeconfig) })
			t.Run("one", func(t *testing.T) { play(t, "testdata/lost", k, kubeconfig) })
		})
	}
}

// shellImage packs the image "shell:1": busybox and its commands.
func shellImage(t *testing.T) string {
	t.Helper()
	busybox := os.Getenv("PROA_BUSYBOX")
	if busybox == "" {
		var err error
		if busybox, err = exec.LookPath("busybox"); err != nil {
			t.Skip("needs a static busybox in PATH (the Debian package busybox-static), or PROA_BUSYBOX=FILE")
		}
	}
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for _, d := range []string{"bin", "tmp", "www"} {
		must(t, os.MkdirAll(filepath.Join(root, d), 0o777))
	}
	must(t, os.WriteFile(filepath.Join(root, "www", "index.html"), []byte("hello\n"), 0o644))
	data, err := os.ReadFile(busybox)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "bin", "busybox"), data, 0o755))
	for _, c := range []string{"sh", "cat", "echo", "sleep", "tar", "ls", "id", "httpd", "wget", "seq", "env", "hostname", "head", "true", "ps", "kill", "stty"} {
		must(t, os.Symlink("busybox", filepath.Join(root, "bin", c)))
	}
	archive := filepath.Join(dir, "shell.tar")
	cmd := exec.Command("go", "run", "../../examples/pack", "--name", "shell:1", "--root", root, "--user", "0", "--env", "PATH=/bin", "--out", archive, "sh")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go run examples/pack: %v\n%s", err, out)
	}
	return archive
}
