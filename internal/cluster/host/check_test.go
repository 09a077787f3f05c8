package host

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMissingControllers(t *testing.T) {
	v1, v2 := t.TempDir(), t.TempDir()
	for _, c := range []string{"cpu", "pids"} {
		os.Mkdir(filepath.Join(v1, c), 0o755)
	}
	os.WriteFile(filepath.Join(v2, "cgroup.controllers"), []byte("cpuset cpu io pids\n"), 0o644)
	for _, root := range []string{v1, v2, "/nonexistent"} {
		p := missingControllers(root)
		if len(p) != 1 || root != "/nonexistent" && !strings.Contains(p[0].What, "memory") || p[0].Do == "" {
			t.Errorf("%s: %v", root, p)
		}
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	p := checkPort(Port{port, "the ingress", "--http-port"})
	if p == nil || !strings.Contains(p.Do, "--http-port") || !strings.Contains(p.What, "the ingress") {
		t.Errorf("%v", p)
	}
	if checkPort(Port{Number: 0}) != nil {
		t.Error("any port is in use")
	}
}
