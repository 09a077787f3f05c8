package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load sends requests at a steady rate and remembers what failed.
type load struct {
	sent   atomic.Int64
	mu     sync.Mutex
	failed []string
	stop   context.CancelFunc
	done   chan struct{}
}

func startLoad(url string, perSecond int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{stop: cancel, done: make(chan struct{})}
	h := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	go func() {
		defer close(l.done)
		var wg sync.WaitGroup
		defer wg.Wait()
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				wg.Go(func() { l.request(h, url) })
			case <-ctx.Done():
				return
			}
		}
	}()
	return l
}

func (l *load) request(h *http.Client, url string) {
	l.sent.Add(1)
	resp, err := h.Get(url)
	if err == nil {
		var body []byte
		body, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil && (resp.StatusCode != 200 || string(body) != "odd") {
			err = fmt.Errorf("%d %s", resp.StatusCode, body)
		}
	}
	if err != nil {
		l.mu.Lock()
		l.failed = append(l.failed, time.Now().Format("15:04:05.000 ")+err.Error())
		l.mu.Unlock()
	}
}

// failures so far.
func (l *load) failures() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.failed...)
}

// Whatever is done to the Deployment, no request fails.
func TestNoFailedRequests(t *testing.T) {
	c := up(t, "e2e-rollout", 1)
	c.plumber()
	const deployment = "deployment/plumber-on-k8s-deployment"
	settled := func() { c.k("rollout", "status", deployment, "--timeout=120s") }
	allReady := func() {
		c.k("wait", "--for=condition=Ready", "pod", "-l", "app=plumber-on-k8s", "--timeout=120s")
		settled()
	}
	l := startLoad(c.Status.Ingress+"/parity?int=15", 200)
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"rollout restart", func() { c.k("rollout", "restart", deployment); settled() }},
		{"delete a pod", func() {
			for name := range c.pods() {
				c.k("delete", "pod", name)
				break
			}
			settled()
		}},
		{"quit", func() {
			get("POST", c.Status.Ingress+"/quit")
			c.eventually(60*time.Second, func() error { return c.restarted(1) })
			allReady()
		}},
		{"fail", func() {
			get("POST", c.Status.Ingress+"/fail")
			c.eventually(60*time.Second, func() error { return c.restarted(2) })
			allReady()
		}},
		{"scale to 6", func() { c.k("scale", deployment, "--replicas=6"); settled() }},
		{"scale to 2", func() { c.k("scale", deployment, "--replicas=2"); settled() }},
	} {
		before := len(l.failures())
		step.do()
		if now := l.failures(); len(now) > before {
			t.Errorf("%s: %d requests failed, the first: %s", step.name, len(now)-before, now[before])
		}
	}
	l.stop()
	<-l.done
	if failed := l.failures(); len(failed) > 0 {
		t.Errorf("%d of %d requests failed: %v", len(failed), l.sent.Load(), failed[:min(5, len(failed))])
	}
	t.Logf("%d requests, %d failed", l.sent.Load(), len(l.failures()))
}
