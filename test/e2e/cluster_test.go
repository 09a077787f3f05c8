package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cluster is a local one, made for a test.
type cluster struct {
	t          *testing.T
	proa       string
	kubectlBin string
	runtimeDir string
	name       string
	kubeconfig string
	Status     status
}

type status struct {
	Server  string
	Ingress string
	DataDir string
	PID     int
	Nodes   []struct {
		Name, Address string
		PID           int
	}
}

// up makes a cluster that is deleted, without a trace, when the test ends.
func up(t *testing.T, name string, nodes int) *cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: a node sets up namespaces, cgroups and nftables")
	}
	bin, dir := os.Getenv("PROA_BIN"), os.Getenv("PROA_RUNTIME_DIR")
	if bin == "" || dir == "" {
		t.Skip(`needs bin/proa and the runtime's programs: "make test-e2e" builds them and sets PROA_BIN and PROA_RUNTIME_DIR`)
	}
	c := &cluster{t: t, proa: bin, runtimeDir: dir, name: name, kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	c.kubectlBin = os.Getenv("PROA_KUBECTL")
	if c.kubectlBin == "" {
		c.kubectlBin, _ = exec.LookPath("kubectl")
	}
	c.run("delete", "--name", name, "--runtime-dir", dir) // what a run before this one left
	t.Cleanup(c.delete)
	c.start(nodes)
	return c
}

func (c *cluster) start(nodes int) {
	c.t.Helper()
	out := c.must(c.run("up", "--name", c.name, "--nodes", fmt.Sprint(nodes), "--runtime-dir", c.runtimeDir, "-o", "json"))
	if err := json.Unmarshal([]byte(out), &c.Status); err != nil {
		c.t.Fatalf("proa up: %v\n%s", err, out)
	}
}

func (c *cluster) delete() {
	if c.t.Failed() {
		for _, f := range []string{"server.log", "nodes/2/agent.log"} {
			if data, err := os.ReadFile(filepath.Join(c.Status.DataDir, f)); err == nil {
				lines := strings.Split(string(data), "\n")
				c.t.Logf("%s ends:\n%s", f, strings.Join(lines[max(0, len(lines)-30):], "\n"))
			}
		}
		out, _ := c.kubectl("get", "all,events", "-A", "-o", "wide")
		c.t.Logf("%s", out)
	}
	c.must(c.run("delete", "--name", c.name, "--runtime-dir", c.runtimeDir))
	c.nothingLeft()
}

// nothingLeft of the cluster on this machine.
func (c *cluster) nothingLeft() {
	for what, command := range map[string]string{
		"mounts":     "grep -F '" + c.Status.DataDir + "' /proc/mounts",
		"tables":     "nft list tables | grep -E 'proa-" + c.name + "( |$|-)'",
		"namespaces": "ls /run/netns 2>/dev/null | grep -E '^proa-" + c.name + "'",
		"cgroups":    "ls -d /sys/fs/cgroup/proa-" + c.name + "* /sys/fs/cgroup/*/proa-" + c.name + "* 2>/dev/null",
		"files":      "ls -d " + c.Status.DataDir + " 2>/dev/null",
	} {
		if out, _ := exec.Command("sh", "-c", command).Output(); len(out) > 0 {
			c.t.Errorf("%s are left: %s", what, out)
		}
	}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if args, _ := os.ReadFile(f); bytes.Contains(args, []byte(c.Status.DataDir)) {
			c.t.Errorf("a process is left: %q", args)
		}
	}
}

// run proa, and return what it prints.
func (c *cluster) run(args ...string) (string, error) {
	return c.exec(exec.Command(c.proa, args...), "")
}

// kubectl, the stock one if there is one.
func (c *cluster) kubectl(args ...string) (string, error) { return c.kubectlIn("", args...) }

func (c *cluster) kubectlIn(stdin string, args ...string) (string, error) {
	if c.kubectlBin != "" {
		return c.exec(exec.Command(c.kubectlBin, args...), stdin)
	}
	return c.exec(exec.Command(c.proa, append([]string{"kubectl"}, args...)...), stdin)
}

func (c *cluster) exec(cmd *exec.Cmd, stdin string) (string, error) {
	var out, errOut bytes.Buffer
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String() + errOut.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, errOut.String())
	}
	return out.String(), nil
}

func (c *cluster) must(out string, err error) string {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// k is kubectl that must succeed.
func (c *cluster) k(args ...string) string {
	c.t.Helper()
	return c.must(c.kubectl(args...))
}

// eventually waits until check is content; it says why it is not.
func (c *cluster) eventually(within time.Duration, check func() error) {
	c.t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("after %s still: %v", within, err)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// get an URL: its code and body.
func get(method, url string) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, strings.TrimSpace(string(body)), err
}

// plumber puts the example into the cluster and waits until it answers.
func (c *cluster) plumber() {
	c.t.Helper()
	image := os.Getenv("PROA_PLUMBER_IMAGE")
	if image == "" {
		image = twin(c.t)
	}
	c.must(c.run("image", "import", image))
	c.k("apply", "-f", "../../examples/plumber/manifests")
	c.k("rollout", "status", "deployment/plumber-on-k8s-deployment", "--timeout=180s")
	c.eventually(10*time.Second, func() error {
		code, body, err := get("GET", c.Status.Ingress+"/parity?int=15")
		if err == nil && (code != 200 || body != "odd") {
			err = fmt.Errorf("%d %q", code, body)
		}
		return err
	})
}

// twin is the archive with the static twin of the R image.
func twin(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program, archive := filepath.Join(dir, "twin"), filepath.Join(dir, "twin.tar")
	for _, args := range [][]string{
		{"build", "-trimpath", "-ldflags", "-s -w", "-o", program, "../../examples/plumber/twin"},
		{"run", "../../examples/pack", "--name", "mdneuzerling/plumber-on-k8s", "--program", program, "--port", "8000", "--out", archive},
	} {
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", args[0], err, out)
		}
	}
	return archive
}

// pods of the example: name → restarts.
func (c *cluster) pods() map[string]string {
	c.t.Helper()
	all := map[string]string{}
	out := c.k("get", "pods", "-l", "app=plumber-on-k8s", "-o", `jsonpath={range .items[*]}{.metadata.deletionTimestamp}|{.metadata.name} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].containerID}{"\n"}{end}`)
	for line := range strings.Lines(out) {
		going, line, _ := strings.Cut(strings.TrimSpace(line), "|")
		if going != "" { // it may be gone before anything can be done with it
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		all[name] = rest
	}
	return all
}
