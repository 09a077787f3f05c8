package fairness

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proa-dev/proa/internal/api/flowcontrol"
	"github.com/proa-dev/proa/internal/apiserver/auth/metricstest"
)

// TestMetrics: what runs, waits, was let through and was refused is told by level and
// schema, under upstream's names.
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(10, 4*time.Second)
		g.Configure(flowcontrol.Schemas(), flowcontrol.Levels())
		expect := func(lines ...string) {
			t.Helper()
			for _, line := range lines {
				metricstest.Expect(t, g.Metrics(), "apiserver_flowcontrol_"+line)
			}
		}
		enter := func() (*Pass, string) { return g.Enter(context.Background(), someone, pods, 1) }
		const of = `{flow_schema="global-default",priority_level="global-default"`
		var running []*Pass
		for g.levels["global-default"].waiting == 0 {
			done := make(chan *Pass, 1)
			go func() {
				p, reason := enter()
				if reason == "" {
					done <- p
				}
			}()
			synctest.Wait()
			select {
			case p := <-done:
				running = append(running, p)
			default:
			}
			if len(running) > 10 {
				t.Fatal("everybody is let through")
			}
		}
		n := string(rune('0' + len(running)))
		expect("current_executing_requests"+of+"} "+n, "current_executing_seats"+of+"} "+n, "dispatched_requests_total"+of+"} "+n,
			"current_inqueue_requests"+of+"} 1", "current_inqueue_seats"+of+"} 1",
			`request_wait_duration_seconds_bucket{execute="true",flow_schema="global-default",priority_level="global-default",le="0"} `+n,
			`nominal_limit_seats{priority_level="global-default"} 1`)
		time.Sleep(5 * time.Second) // the bubble's clock
		synctest.Wait()
		expect(`rejected_requests_total`+of+`,reason="time-out"} 1`, "current_inqueue_requests"+of+"} 0",
			`request_wait_duration_seconds_bucket{execute="false",flow_schema="global-default",priority_level="global-default",le="2"} 0`,
			`request_wait_duration_seconds_bucket{execute="false",flow_schema="global-default",priority_level="global-default",le="5"} 1`)
		for _, p := range running {
			p.Done()
		}
		expect("current_executing_seats"+of+"} 0", `request_execution_seconds_count{flow_schema="global-default",priority_level="global-default",type="regular"} `+n)
	})
}
