package state

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestEtcdComesAndGoes kills the etcd that a server uses while clients write and
// watch: no gap, nothing lost or twice, clear errors, and it mends by itself.
func TestEtcdComesAndGoes(t *testing.T) {
	etcd := startEtcd(t, filepath.Join(t.TempDir(), "etcd"))
	s := newServer(t, "", "--etcd-servers", etcd.url, "--etcd-prefix", "/proa")
	s.up()
	w := follow(t, s)
	began := time.Now()
	now := func() int64 { return time.Since(began).Nanoseconds() }
	before := map[string]string{}
	total := 0
	for round := range 5 {
		start := now()
		ctx, cancel := context.WithCancel(t.Context())
		logs := make([][]op, writers)
		var wg sync.WaitGroup
		for i := range writers {
			one := &writer{id: i, round: round, maps: s.api.CoreV1().ConfigMaps(namespace), now: now, rand: rand.New(rand.NewPCG(1, uint64(round*writers+i)))}
			wg.Go(func() { logs[i] = one.run(ctx) })
		}
		<-time.After(time.Duration(200+100*round) * time.Millisecond)
		etcd.kill()
		wg.Wait() // each ends with the first answer that is none
		cancel()
		if round == 0 {
			isAway(t, s)
		}
		etcd.begin(t)
		etcd.answers(t)
		s.ready()
		eventually(t, 30*time.Second, "writes go on", func() error {
			_, err := s.api.CoreV1().ConfigMaps(namespace).Update(t.Context(), configMap("none", 0, ""), metav1.UpdateOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		})
		ops := slices.Concat(logs...)
		for i := range ops {
			if ops[i].outcome == unknown {
				ops[i].ended = now() // it may have been done when etcd read its log
			}
		}
		total += len(ops)
		before = check(t, s, w, round, ops, before, start, now())
		if t.Failed() {
			t.Fatalf("round %d\n%s", round, s.tail())
		}
	}
	select {
	case <-s.ended:
		t.Fatal("the server has ended")
	default:
	}
	t.Logf("%d operations; the one watch began %d times", total, w.resumed)
	if w.resumed != 1 {
		t.Errorf("the watch was ended by the loss of etcd: it began %d times", w.resumed)
	}
}

// isAway holds the server to what it says while etcd is not there.
func isAway(t *testing.T, s *server) {
	t.Helper()
	said := func(what string, do func(ctx context.Context) error) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		err := do(ctx)
		if !apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), "the store cannot be reached") {
			t.Errorf("%s without etcd: %v", what, err)
		}
		t.Logf("%s without etcd: %v after %s", what, err, time.Since(began).Round(time.Millisecond))
	}
	maps := s.api.CoreV1().ConfigMaps(namespace)
	said("a create", func(ctx context.Context) error {
		_, err := maps.Create(ctx, configMap("away", 0, "x"), metav1.CreateOptions{})
		return err
	})
	said("a get", func(ctx context.Context) error {
		_, err := maps.Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return err
	})
	if _, err := maps.List(t.Context(), metav1.ListOptions{ResourceVersion: "0"}); err != nil {
		t.Errorf("a list of what is known: %v", err)
	}
	for _, path := range []string{"/readyz", "/livez"} {
		var code int
		r := s.api.Discovery().RESTClient().Get().AbsPath(path).Do(t.Context()).StatusCode(&code)
		body, _ := r.Raw()
		if code != http.StatusInternalServerError || !strings.Contains(string(body), "[-]etcd failed") || !strings.Contains(string(body), "[+]ping ok") {
			t.Errorf("%s says %d %s", path, code, body)
		}
	}
}

// TestEtcdTLS: an etcd that wants certificates.
func TestEtcdTLS(t *testing.T) {
	c := newAuthority(t)
	etcd := &etcdServer{url: fmt.Sprintf("https://%s:%d", loopback(), freePort(t))}
	crt, key := c.issue(t, "etcd")
	etcd.args = []string{
		"--data-dir", t.TempDir(), "--listen-client-urls", etcd.url, "--advertise-client-urls", etcd.url,
		"--listen-peer-urls", fmt.Sprintf("http://%s:%d", loopback(), freePort(t)), "--log-level", "error",
		"--cert-file", crt, "--key-file", key, "--trusted-ca-file", c.file, "--client-cert-auth",
	}
	etcd.begin(t)
	crt, key = c.issue(t, "proa")
	s := newServer(t, "", "--etcd-servers", etcd.url, "--etcd-cafile", c.file, "--etcd-certfile", crt, "--etcd-keyfile", key)
	s.up()
	if _, err := s.api.CoreV1().ConfigMaps(namespace).Create(t.Context(), configMap("a", 0, "x"), metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
	out, err := proaErr("server", "--disable-agent", "--data-dir", t.TempDir(), "--bind-address", loopback(), "--secure-port", "0", "--etcd-servers", etcd.url, "--etcd-cafile", c.file)
	if err == nil || !strings.Contains(out, "does not answer") {
		t.Errorf("without a certificate: %v\n%s", err, out)
	}
}
