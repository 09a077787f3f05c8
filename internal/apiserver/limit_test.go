package apiserver

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/proa-dev/proa/internal/api/flowcontrol"
	"github.com/proa-dev/proa/internal/apiserver/fairness"
)

// A request that is stuck holds the only seat of its level: the next of that level
// is told 429, those of others are answered.
func TestFairness(t *testing.T) {
	levels := flowcontrol.Levels()
	for _, l := range levels {
		if l.Name == "global-default" {
			l.UID = "level-uid"
			l.Spec.Limited.LimitResponse = flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject}
			l.Spec.Limited.BorrowingLimitPercent = new(int32)
			one := int32(1)
			l.Spec.Limited.NominalConcurrencyShares = &one
		}
	}
	gate := fairness.NewGate(100, time.Minute)
	gate.Configure(flowcontrol.Schemas(), levels)
	stuck, entered := make(chan struct{}), make(chan struct{})
	var once sync.Once
	h := newHarness(t, func(c *Config) {
		c.Fairness = gate
		c.Extra = map[string]http.Handler{"/stuck/": http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			once.Do(func() { close(entered) })
			<-stuck
		})}
	})
	var done sync.WaitGroup
	done.Go(func() { h.do("GET", "/stuck/", "") })
	<-entered
	r := h.do("GET", "/version", "")
	if r.code != http.StatusTooManyRequests || r.header.Get("Retry-After") != "1" || r.header.Get("X-Kubernetes-PF-PriorityLevel-UID") != "level-uid" {
		t.Errorf("a request of the same level: %s", r)
	}
	if r := h.do("GET", "/readyz", ""); r.code == http.StatusTooManyRequests {
		t.Errorf("a probe, which is exempt: %s", r)
	}
	close(stuck)
	done.Wait()
	if r := h.do("GET", "/version", ""); r.code != http.StatusOK {
		t.Errorf("after the stuck one ended: %s", r)
	}
	if m := string(h.do("GET", "/metrics", "").body); !strings.Contains(m, `apiserver_flowcontrol_rejected_requests_total{flow_schema="global-default",priority_level="global-default",reason="concurrency-limit"} 1`) {
		t.Error("the metrics do not tell of it")
	}
}
