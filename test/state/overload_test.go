package state

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

const (
	systemWithin = time.Second // a node's lease and status, whatever others ask for
	memoryLimit  = 1 << 30     // bytes resident: a start with these objects takes a tenth
	loadObjects  = 4_000
	loadAccounts = 10
)

// TestOverload has many more clients than the server has seats ask for as much as
// they get: lists, single objects, writes, watches, each with a connection of its
// own. Meanwhile nodes renew their leases and write their status. PROA_OVERLOAD is
// "CLIENTS DURATION". The store is in memory, where there is a place for that: how
// soon a disk has written is not what is tested. On a machine that others keep busy
// it is not the clock that counts but the processor time of the server, divided among
// the processors: how long it would take if they were the server's alone.
func TestOverload(t *testing.T) {
	clients, lasts := overload(t)
	others := busy(t)
	dir := inMemory(t)
	many(t, filepath.Join(dir, "etcd"), loadObjects)
	s := newServer(t, dir)
	s.up()
	load := plan{Server: s.conf.Host, CA: s.conf.CAFile, CAData: s.conf.CAData, Clients: clients, Lasts: lasts, Tokens: accounts(t, s)}
	nodes := newNodes(t, s)
	t.Logf("before: %s", memory(t, s))
	got := load.beside(t, s, nodes, others, nil, func() {})
	if got["served"] == 0 {
		t.Error("nobody was served")
	}
	if longest := slept(t, nodes); longest > systemWithin {
		t.Errorf("a node waited %s", longest)
	}
	if _, err := s.api.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
}

// beside runs the load while nodes, and one more if it is not nil, ask for what they
// need; look is called each second. The answers are counted.
func (p plan) beside(t *testing.T, s *server, nodes []*node, others bool, more func(context.Context), look func()) map[string]int {
	t.Helper()
	answers := make(chan map[string]int, 1)
	go func() { answers <- p.run(t) }()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() { n.run(ctx) })
	}
	if more != nil {
		wg.Go(func() { more(ctx) })
	}
	var resident []int64
	got := map[string]int(nil)
	for tick := time.NewTicker(time.Second); got == nil; {
		select {
		case got = <-answers:
			tick.Stop()
		case <-tick.C:
			resident = append(resident, residentBytes(t, s))
			look()
		case <-s.ended:
			t.Fatalf("the server ended: %v\n%s", s.err, s.tail())
		}
	}
	stop()
	wg.Wait()
	t.Logf("%d clients for %s: %v", p.Clients, p.Lasts, got)
	t.Logf("resident, MiB: %v; then %s", mebibytes(resident), memory(t, s))
	if most := slices.Max(append(resident, 0)); most > memoryLimit {
		t.Errorf("the server held %d MiB", most>>20)
	}
	for answer, n := range got {
		if answer != "served" && answer != "429" && !(others && strings.HasPrefix(answer, noConnection)) {
			t.Errorf("%d times: %s", n, answer)
		}
	}
	return got
}

// overload is how many clients ask for how long.
func overload(t *testing.T) (clients int, lasts time.Duration) {
	t.Helper()
	v := os.Getenv("PROA_OVERLOAD")
	if v == "" {
		return 300, 5 * time.Second
	}
	n, d, _ := strings.Cut(v, " ")
	clients, err1 := strconv.Atoi(n)
	lasts, err2 := time.ParseDuration(d)
	if err1 != nil || err2 != nil {
		t.Fatalf("PROA_OVERLOAD=%q: want for instance \"2000 60s\"", v)
	}
	return clients, lasts
}

// inMemory is a folder that is on no disk, if there can be one; PROA_OVERLOAD_DISK=1
// wants one that is, and has the log say how long the disk itself takes.
func inMemory(t *testing.T) string {
	t.Helper()
	if os.Getenv("PROA_OVERLOAD_DISK") != "" {
		dir := t.TempDir()
		probe(t, dir)
		return dir
	}
	dir, err := os.MkdirTemp("/dev/shm", "proa-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// probe writes a block to a disk ten times a second until the test ends, as a log of
// transactions does: whoever waits for the disk waits at least as long.
func probe(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	var took []time.Duration
	go func() {
		defer close(done)
		block := make([]byte, 4<<10)
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
			}
			began := time.Now()
			if _, err := f.Write(block); err != nil || syscall.Fdatasync(int(f.Fd())) != nil {
				return
			}
			took = append(took, time.Since(began))
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		f.Close()
		if len(took) > 0 {
			percentiles(t, "writes of 4 KiB to the disk, beside the server", took)
		}
	})
}

// percentiles are logged; it returns the last.
func percentiles(t *testing.T, what string, all []time.Duration) time.Duration {
	t.Helper()
	slices.Sort(all)
	at := func(part float64) time.Duration { return all[int(part*float64(len(all)-1))].Round(time.Millisecond) }
	t.Logf("%d %s: median %s, 99th percentile %s, longest %s", len(all), what, at(0.5), at(0.99), at(1))
	return at(1)
}

// accounts that may do everything, and are nothing special to the server.
func accounts(t *testing.T, s *server) (tokens []string) {
	t.Helper()
	ctx := t.Context()
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "load"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"}}
	for i := range loadAccounts {
		name := fmt.Sprint("load", i)
		if _, err := s.api.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		token, err := s.api.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, token.Status.Token)
		binding.Subjects = append(binding.Subjects, rbacv1.Subject{Kind: "ServiceAccount", Namespace: namespace, Name: name})
	}
	if _, err := s.api.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return tokens
}

// node is what a kubelet does so that its node counts as alive.
type node struct {
	name   string
	api    *kubernetes.Clientset
	used   func() time.Duration // processor time of the server so far
	took   []time.Duration
	work   []time.Duration // what that would be on a quiet machine
	failed []error
}

func newNodes(t *testing.T, s *server) []*node {
	t.Helper()
	nodes := make([]*node, 5)
	for i := range nodes {
		nodes[i] = newNode(t, s, fmt.Sprint("n", i))
	}
	return nodes
}

func newNode(t *testing.T, s *server, name string) *node {
	t.Helper()
	if _, err := s.api.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	conf := rest.CopyConfig(s.conf)
	conf.Impersonate = rest.ImpersonationConfig{UserName: "system:node:" + name, Groups: []string{"system:nodes", "system:authenticated"}}
	conf.Timeout = 10 * time.Second
	conf.Dial = (&net.Dialer{}).DialContext // a connection of its own
	api, err := kubernetes.NewForConfig(conf)
	if err != nil {
		t.Fatal(err)
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: ptr.To[int32](40)}}
	eventually(t, time.Minute, "the node has a lease", func() error {
		_, err := api.CoordinationV1().Leases("kube-node-lease").Create(t.Context(), lease, metav1.CreateOptions{})
		return err
	})
	return &node{name: name, api: api, used: func() time.Duration { return processorTime(t, s) }}
}

// run renews and reports twice a second.
func (n *node) run(ctx context.Context) {
	leases := n.api.CoordinationV1().Leases("kube-node-lease")
	timed := func(what string, do func() error) {
		began, used := time.Now(), n.used()
		err := do()
		if ctx.Err() != nil {
			return
		}
		n.took = append(n.took, time.Since(began))
		n.work = append(n.work, min(time.Since(began), (n.used()-used)/time.Duration(runtime.NumCPU())))
		if err != nil {
			n.failed = append(n.failed, fmt.Errorf("%s: %w", what, err))
		}
	}
	for tick := time.NewTicker(500 * time.Millisecond); ; {
		timed("lease", func() error {
			patch := fmt.Sprintf(`{"spec":{"renewTime":%q}}`, time.Now().UTC().Format(metav1.RFC3339Micro))
			_, err := leases.Patch(ctx, n.name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			return err
		})
		timed("status", func() error {
			patch := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":%q}]}}`, time.Now().UTC().Format(time.RFC3339))
			_, err := n.api.CoreV1().Nodes().PatchStatus(ctx, n.name, []byte(patch))
			return err
		})
		timed("get", func() error {
			_, err := n.api.CoreV1().Nodes().Get(ctx, n.name, metav1.GetOptions{})
			return err
		})
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
	}
}

func residentBytes(t *testing.T, s *server) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
	fields := strings.Fields(string(data))
	if err != nil || len(fields) < 2 {
		t.Errorf("the memory of the server: %v", err)
		return 0
	}
	return number(fields[1]) * int64(os.Getpagesize())
}

func mebibytes(all []int64) (m []int64) {
	for i, n := range all {
		if len(all) <= 20 || i%(len(all)/20) == 0 {
			m = append(m, n>>20)
		}
	}
	return m
}

// run the load in a process of its own, at a lower priority: clients are other
// machines.
func (p plan) run(t *testing.T) map[string]int {
	input, err := json.Marshal(p)
	if err != nil {
		t.Error(err)
		return map[string]int{}
	}
	nice := "10"
	if p.Heavy { // they mostly wait
		nice = "0"
	}
	cmd := exec.Command("nice", "-n", nice, os.Args[0])
	cmd.Env = append(os.Environ(), asLoad+"=1")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.Output()
	got := map[string]int{}
	if err == nil {
		err = json.Unmarshal(out, &got)
	}
	if err != nil {
		t.Errorf("the load: %v\n%s", err, out)
	}
	return got
}
