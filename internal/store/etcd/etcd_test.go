package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/proa-dev/proa/internal/store"
	"github.com/proa-dev/proa/internal/store/storetest"
)

// quick makes leases short enough for tests: they last at least 1.5 elections.
const quick = 10 * time.Millisecond

var quiet = slog.New(slog.DiscardHandler)

func open(t testing.TB, cfg Config) *Embedded {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// loopback is an address of this process alone, so that no other takes a port
// between finding it free and listening on it.
func loopback() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.77.%d.%d", pid>>8&0xff, pid&0xff|1)
}

func freePort(t testing.TB) int {
	l, err := net.Listen("tcp", loopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func TestEmbedded(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, Config{Tick: quick}) })
}

func TestExternal(t *testing.T) {
	t.Parallel()
	url := fmt.Sprintf("http://%s:%d", loopback(), freePort(t))
	open(t, Config{Tick: quick, Listen: &Listen{URLs: []string{url}}})
	n := 0
	storetest.Run(t, func(t *testing.T) store.Store {
		n++
		s, err := Dial(t.Context(), External{Endpoints: []string{url}, Prefix: fmt.Sprintf("/test%d", n), History: -1})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
