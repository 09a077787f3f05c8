package load

import (
	"context"
	"log/slog"
	"testing"

	"github.com/proa-dev/proa/internal/cluster"
	"github.com/proa-dev/proa/test/bench/figure"
)

// server runs a control plane until the test ends.
func server(t *testing.T) *Target {
	t.Helper()
	ready, ended := make(chan string, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	c := cluster.Config{
		DataDir: t.TempDir(), Server: &cluster.Server{BindAddress: "127.0.0.1"},
		Log: slog.New(slog.DiscardHandler), Ready: func(kubeconfig string) { ready <- kubeconfig },
	}
	go func() { ended <- cluster.Run(ctx, c) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case kubeconfig := <-ready:
		target, err := Open(kubeconfig, t.Logf)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(target.Close)
		return target
	case err := <-ended:
		ended <- err
		t.Fatalf("the server does not start: %v", err)
		return nil
	}
}

// TestAPI has every request of the load answered as it should be.
func TestAPI(t *testing.T) {
	var names []string
	add := func(name string, _ figure.Unit, value float64) {
		if names = append(names, name); value <= 0 {
			t.Errorf("%s: %v", name, value)
		}
	}
	l := API{Pods: 100, Writers: 8, Watchers: 5, Memory: func() float64 { return 1 }}
	if err := l.Run(t.Context(), server(t), add); err != nil {
		t.Fatal(err)
	}
	if len(names) != 15 {
		t.Errorf("measured %d figures: %q", len(names), names)
	}
}

// TestSched has pods of every shape bound.
func TestSched(t *testing.T) {
	for _, shape := range Shapes() {
		t.Run(string(shape), func(t *testing.T) {
			measured := 0
			add := func(string, figure.Unit, float64) { measured++ }
			if err := (&Sched{Nodes: 6, Pods: 30, Shape: shape}).Run(t.Context(), server(t), add); err != nil {
				t.Fatal(err)
			}
			if measured != 1 {
				t.Errorf("measured %d figures", measured)
			}
		})
	}
}
