package kubectl

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestSessions plays the sessions of testdata with every kubectl there is.
func TestSessions(t *testing.T) {
	proa := build(t)
	for _, k := range kubectls(t, proa) {
		t.Run(k.name(), func(t *testing.T) {
			kubeconfig := os.Getenv("UPSTREAM_KUBECONFIG")
			if kubeconfig == "" {
				kubeconfig = startServer(t, proa)
			}
			play(t, "testdata", k, kubeconfig)
		})
	}
}

// kubectl is a program, and the version it is of: "1.36".
type kubectl struct {
	program, version string
	stock            bool
}

// name of a test that plays with it.
func (k kubectl) name() string {
	if k.stock {
		return k.version + "-stock"
	}
	return k.version
}

// kubectls are the one that is built in, that of 1.32 where it is installed, and
// PROA_KUBECTL: a stock one of the version of the one that is built in.
func kubectls(t *testing.T, proa string) []kubectl {
	t.Helper()
	dir := t.TempDir()
	own := filepath.Join(dir, "kubectl")
	must(t, os.WriteFile(own, []byte("#!/bin/sh\nexec "+proa+" kubectl \"$@\"\n"), 0o755))
	all := []kubectl{{program: own, version: "1.36"}}
	if p := os.Getenv("PROA_KUBECTL"); p != "" {
		all = append(all, kubectl{p, "1.36", true})
	}
	if p, err := exec.LookPath("kubectl"); err != nil {
		t.Log("no kubectl in PATH: only the one of Proa's version plays")
	} else if v := versionOf(p); v == "1.32" {
		all = append(all, kubectl{p, v, true})
	} else {
		t.Logf("%s is of version %q, not 1.32: it does not play", p, v)
	}
	return all
}

func versionOf(program string) string {
	out, _ := exec.Command(program, "version", "--client").Output()
	if m := regexp.MustCompile(`Client Version: v(\d+\.\d+)`).FindSubmatch(out); m != nil {
		return string(m[1])
	}
	return ""
}

// play the scripts of a folder, each in a namespace of its own that is called
// like the script.
func play(t *testing.T, dir string, k kubectl, kubeconfig string) {
	bin := t.TempDir()
	must(t, os.Symlink(k.program, filepath.Join(bin, "kubectl")))
	self, err := os.Executable()
	must(t, err)
	for name := range programs {
		must(t, os.Symlink(self, filepath.Join(bin, name)))
	}
	server := strings.TrimSpace(output(t, exec.Command(k.program, "--kubeconfig", kubeconfig, "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")))
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		ContinueOnError:     true,
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"session": session},
		Setup: func(env *testscript.Env) error {
			data, err := os.ReadFile(kubeconfig)
			if err != nil {
				return err
			}
			own := filepath.Join(env.WorkDir, ".kubeconfig")
			if err := os.WriteFile(own, data, 0o600); err != nil {
				return err
			}
			name := strings.TrimPrefix(filepath.Base(env.WorkDir), "script-")
			env.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("TMPDIR", env.WorkDir)
			env.Setenv("KUBECONFIG", own)
			env.Setenv("KUBECTL_VERSION", k.version)
			env.Setenv("SERVER", server)
			env.Setenv("NS", name)
			for _, name := range []string{"NODE1", "NODE2", "NODE2_PID"} {
				env.Setenv(name, os.Getenv(name))
			}
			if os.Getenv("UPSTREAM_KUBECONFIG") != "" { // it lives on
				env.Defer(func() {
					out, err := exec.Command(k.program, "--kubeconfig", kubeconfig, "delete", "namespace", name).CombinedOutput()
					if err != nil {
						t.Errorf("%v: %s", err, out)
					}
				})
			}
			return namespace(k.program, own, name)
		},
	})
}

// namespace makes one, waits until pods can be made in it, and lets the
// kubeconfig point to it.
func namespace(program, kubeconfig, name string) error {
	for _, args := range [][]string{
		{"create", "namespace", name},
		{"config", "set-context", "--current", "--namespace", name},
		{"wait", "--for=create", "--timeout=20s", "serviceaccount/default", "configmap/kube-root-ca.crt"},
	} {
		if out, err := exec.Command(program, append([]string{"--kubeconfig", kubeconfig}, args...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// build makes the program, unless PROA_BIN is one.
func build(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv("PROA_BIN"); bin != "" {
		return bin
	}
	bin := filepath.Join(t.TempDir(), "proa")
	cmd := exec.Command("go", "build", "-o", bin, "../../cmd/proa")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// startServer runs a control plane until the test ends: its admin.kubeconfig.
func startServer(t *testing.T, proa string) string {
	t.Helper()
	dir := t.TempDir()
	var log bytes.Buffer
	cmd := exec.Command(proa, "server", "--disable-agent", "--data-dir", dir, "--bind-address", "127.0.0.1", "--secure-port", "0", "--http-port=-1", "--https-port=-1")
	cmd.Stdout, cmd.Stderr = &log, &log
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the server crashed: %v\n%s", err, log.String())
			}
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			t.Error("the server does not stop")
		}
	})
	kubeconfig := filepath.Join(dir, "admin.kubeconfig")
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for {
		if _, err := os.Stat(kubeconfig); err == nil {
			return kubeconfig
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the server ended: %v\n%s", err, log.String())
		case <-ctx.Done():
			t.Fatalf("the server is not ready after a minute\n%s", log.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
	}
	return string(out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
