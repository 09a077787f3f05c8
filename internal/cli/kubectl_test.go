package cli

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// kubectlAsProa makes this binary kubectl with proa's handling of signals.
const kubectlAsProa = "PROA_TEST_KUBECTL"

// TestKubectlEndsBySignals: an endless command of kubectl ends by an interrupt and
// by a request to end, although proa's own commands catch both.
func TestKubectlEndsBySignals(t *testing.T) {
	if os.Getenv(kubectlAsProa) != "" {
		signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM)
		os.Exit(Main(t.Context(), "test", []string{"kubectl", "proxy", "--port=0", "--kubeconfig", os.Getenv(kubectlAsProa)}, os.Stdin, os.Stdout, os.Stderr))
	}
	config := filepath.Join(t.TempDir(), "config")
	text := "{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a}}], clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]}"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKubectlEndsBySignals$")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s", kubectlAsProa, config))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); !strings.Contains(line, "Starting to serve") {
			t.Fatalf("%q, %v", line, err)
		}
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if by := cmd.ProcessState.Sys().(syscall.WaitStatus); !by.Signaled() || by.Signal() != s {
			t.Errorf("after %v it ended with %v", s, cmd.ProcessState)
		}
	}
}
