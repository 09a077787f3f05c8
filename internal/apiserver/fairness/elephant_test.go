package fairness

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proa-dev/proa/internal/api/flowcontrol"
)

// TestAnElephantDoesNotStarveAMouse: while one account has hundreds of requests wait,
// long ones and short ones, wide ones and narrow ones, another that asks for one small
// thing after the other waits no longer than until the next few are done.
func TestAnElephantDoesNotStarveAMouse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const long = 3 * time.Second
		g := NewGate(36, 15*time.Second)
		g.Configure(flowcontrol.Schemas(), flowcontrol.Levels())
		ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
		defer stop()
		elephant, mouse := account("default", "elephant"), account("default", "mouse")
		for i := range 500 {
			go func() {
				took, width := long, 1
				if i%4 > 0 { // a list
					took, width = time.Duration(1+i%7)*100*time.Millisecond, 1+i%5
				}
				for ctx.Err() == nil {
					p, reason := g.Enter(ctx, elephant, pods, width)
					if reason != "" {
						time.Sleep(time.Second)
						continue
					}
					time.Sleep(took)
					p.Done()
				}
			}()
		}
		var longest time.Duration
		refused := map[string]int{}
		n := 0
		for ; ctx.Err() == nil; n++ {
			began := time.Now()
			p, reason := g.Enter(ctx, mouse, pods, 1)
			if longest = max(longest, time.Since(began)); reason != "" {
				refused[reason]++
				continue
			}
			time.Sleep(10 * time.Millisecond)
			p.Done()
			time.Sleep(20 * time.Millisecond)
		}
		delete(refused, Cancelled) // the end
		if len(refused) > 0 || longest > long {
			t.Errorf("of %d requests some were refused: %v; one waited %s", n, refused, longest)
		}
		t.Logf("%d requests, the longest waited %s", n, longest)
		time.Sleep(time.Minute) // those that run end
	})
}
