package clients

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/proa-dev/proa/test/clients/proa"
)

func TestMain(m *testing.M) {
	klog.SetLogger(logr.Discard()) // that servers are killed is no news here
	os.Exit(proa.Main(m))
}

func must[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func clientFor(t testing.TB, conf *rest.Config) *kubernetes.Clientset {
	t.Helper()
	return must(kubernetes.NewForConfig(conf))(t)
}

// wire that can be cut: while it is, nothing gets through.
type wire struct {
	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

// config whose connections go through the wire.
func (w *wire) config(conf *rest.Config) *rest.Config {
	conf = rest.CopyConfig(conf)
	conf.Dial = w.dial
	return conf
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return nil, errors.New("the wire is cut")
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if w.conns == nil {
		w.conns = map[net.Conn]bool{}
	}
	w.conns[c] = true
	return c, nil
}

func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	if cut {
		for c := range w.conns {
			c.Close()
		}
		clear(w.conns)
	}
}
