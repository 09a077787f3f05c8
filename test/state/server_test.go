package state

import (
	_ "github.com/proa-dev/proa/internal/cli/translations" // before kubectl's packages; see there

	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/proa-dev/proa/internal/cli"
)

// asProa makes this binary proa.
const asProa = "PROA_TEST_IS_PROA"

func TestMain(m *testing.M) {
	if os.Getenv(asProa) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(cli.Main(ctx, "test", os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	if os.Getenv(asLoad) != "" {
		os.Exit(loadMain())
	}
	klog.SetLogger(logr.Discard()) // that servers are killed is no news here
	os.Exit(m.Run())
}

// proa runs a command line and returns what it prints.
func proa(t testing.TB, args ...string) string {
	t.Helper()
	out, err := proaErr(args...)
	if err != nil {
		t.Fatalf("proa %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func proaErr(args ...string) (string, error) {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProa+"=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// loopback is an address of this process alone, so that no other takes a port
// between finding it free and listening on it.
func loopback() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.78.%d.%d", pid>>8&0xff, pid&0xff|1)
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", loopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// process that a test started. Its output is in a file.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed when it has
	err   error         // how
}

func start(t testing.TB, log string, env []string, program string, args ...string) *process {
	t.Helper()
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := &process{t: t, log: log, cmd: exec.Command(program, args...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(p.kill)
	return p
}

// kill -9.
func (p *process) kill() { p.signal(syscall.SIGKILL) }

// stop as one stops a service.
func (p *process) stop() { p.signal(syscall.SIGTERM) }

func (p *process) signal(s syscall.Signal) {
	_ = p.cmd.Process.Signal(s)
	select {
	case <-p.ended:
	case <-time.After(60 * time.Second):
		p.t.Errorf("%s does not end\n%s", p.cmd.Path, p.tail())
		_ = p.cmd.Process.Kill()
	}
}

func (p *process) tail() string {
	data, _ := os.ReadFile(p.log)
	return string(data[max(0, len(data)-4000):])
}

// server is a control plane of Proa.
type server struct {
	*process
	dir   string
	port  int
	flags []string
	once  sync.Once
	api   *kubernetes.Clientset
	conf  *rest.Config
}

// newServer that is not started yet, in a folder ("" = a new one).
func newServer(t testing.TB, dir string, flags ...string) *server {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	return &server{dir: dir, port: freePort(t), flags: flags, process: &process{t: t}}
}

// begin the process.
func (s *server) begin(more ...string) {
	s.t.Helper()
	args := append([]string{"server", "--disable-agent", "--data-dir", s.dir, "--bind-address", loopback(), "--secure-port", fmt.Sprint(s.port)}, s.flags...)
	s.process = start(s.t, filepath.Join(s.dir, "server.log"), []string{asProa + "=1"}, os.Args[0], append(args, more...)...)
}

// up begins the process and waits until it is ready; it says how long that took.
func (s *server) up(more ...string) time.Duration {
	s.t.Helper()
	began := time.Now()
	s.begin(more...)
	s.ready()
	return time.Since(began)
}

func (s *server) ready() {
	s.t.Helper()
	for end := time.Now().Add(60 * time.Second); !s.isReady(); {
		select {
		case <-s.ended:
			s.t.Fatalf("the server ended: %v\n%s", s.err, s.tail())
		case <-time.After(3 * time.Millisecond):
		}
		if time.Now().After(end) {
			s.t.Fatalf("the server does not get ready\n%s", s.tail())
		}
	}
}

func (s *server) kubeconfig() string { return filepath.Join(s.dir, "admin.kubeconfig") }

func (s *server) isReady() bool {
	conn, err := net.Dial("tcp", net.JoinHostPort(loopback(), strconv.Itoa(s.port)))
	if err != nil {
		return false
	}
	conn.Close()
	if s.conf == nil {
		conf, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig())
		if err != nil {
			return false
		}
		conf.QPS = -1
		s.conf = conf
	}
	s.once.Do(func() { s.api = s.client() })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return s.api.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() == nil
}

// client with connections of its own.
func (s *server) client() *kubernetes.Clientset {
	s.t.Helper()
	conf := rest.CopyConfig(s.conf)
	conf.Dial = (&net.Dialer{Timeout: 5 * time.Second}).DialContext // not shared
	c, err := kubernetes.NewForConfig(conf)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// eventually waits for a condition.
func eventually(t testing.TB, within time.Duration, what string, ok func() error) {
	t.Helper()
	for end := time.Now().Add(within); ; {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s: %v", what, within, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}
