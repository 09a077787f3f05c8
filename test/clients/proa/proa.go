// Package proa starts the built program for tests of clients: a control plane
// alone, in a folder of its own, that can be killed and started again. PROA_BIN
// names the program; without it, it is built once per test binary.
package proa

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const variable = "PROA_BIN"

// Main runs the tests of a package, after it made sure that PROA_BIN names a
// program. It returns what to exit with.
func Main(m *testing.M) int {
	if os.Getenv(variable) != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "proa-clients-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "proa")
	build := exec.Command("go", "build", "-o", program, "./cmd/proa")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "proa cannot be built: %v\n%s", err, out)
		return 1
	}
	if err := os.Setenv(variable, program); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Server is a control plane without a node.
type Server struct {
	t    testing.TB
	dir  string
	addr string
	port string
	cmd  *exec.Cmd
	gone chan struct{}
}

// Start a server, and stop it when the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	pid := os.Getpid()
	s := &Server{t: t, dir: t.TempDir(), addr: fmt.Sprintf("127.79.%d.%d", pid>>8&0xff, pid&0xff|1)}
	l, err := net.Listen("tcp", s.addr+":0")
	if err != nil {
		t.Fatal(err)
	}
	_, s.port, _ = net.SplitHostPort(l.Addr().String())
	l.Close()
	s.Up()
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("the server's last words:\n%s", s.tail())
		}
	})
	return s
}

// Up starts the process and waits until it is ready.
func (s *Server) Up() {
	s.t.Helper()
	f, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	s.cmd = exec.Command(os.Getenv(variable), "server", "--disable-agent", "--data-dir", s.dir, "--bind-address", s.addr, "--secure-port", s.port)
	s.cmd.Stdout, s.cmd.Stderr = f, f
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.gone = make(chan struct{})
	go func(cmd *exec.Cmd, gone chan struct{}) {
		_ = cmd.Wait()
		close(gone)
	}(s.cmd, s.gone)
	Eventually(s.t, "the server is ready", func(ctx context.Context) error {
		select {
		case <-s.gone:
			s.t.Fatalf("the server ended\n%s", s.tail())
		default:
		}
		conf, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig())
		if err != nil {
			return err
		}
		c, err := kubernetes.NewForConfig(conf)
		if err != nil {
			return err
		}
		return c.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// Kill -9.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.gone
}

// Kubeconfig of an administrator.
func (s *Server) Kubeconfig() string { return filepath.Join(s.dir, "admin.kubeconfig") }

// Config for clients, without limits of their own.
func (s *Server) Config() *rest.Config {
	s.t.Helper()
	conf, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig())
	if err != nil {
		s.t.Fatal(err)
	}
	conf.QPS = -1
	return conf
}

// Kubectl of the program's own, with input; it returns what it prints.
func (s *Server) Kubectl(stdin string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(os.Getenv(variable), append([]string{"kubectl", "--kubeconfig", s.Kubeconfig()}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s *Server) log() string { return filepath.Join(s.dir, "server.log") }

func (s *Server) tail() string {
	data, _ := os.ReadFile(s.log())
	return string(data[max(0, len(data)-4000):])
}

// Patience is how long a test waits for what should come at once.
const Patience = 60 * time.Second

// Eventually waits until a condition holds.
func Eventually(t testing.TB, what string, ok func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	last := errors.New("not tried")
	for {
		one, done := context.WithTimeout(ctx, 10*time.Second)
		err := ok(one)
		done()
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s: %v", what, Patience, last)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
