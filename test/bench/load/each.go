package load

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Stats of many requests of one kind.
type Stats struct {
	Rate     float64 // requests a second, all workers together
	P50, P99 time.Duration
}

// each calls f for 0 to total-1 from conc workers and times the calls. A call
// that fails fails them all: a server that answers with errors is fast.
func (t *Target) each(ctx context.Context, name string, total, conc int, f func(i int) error) (Stats, error) {
	var next, failed atomic.Int64
	var first error
	var once sync.Once
	took := make([]time.Duration, total)
	start := time.Now()
	var workers sync.WaitGroup
	for range conc {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= total {
					return
				}
				began := time.Now()
				if err := f(i); err != nil {
					failed.Add(1)
					once.Do(func() { first = err })
				}
				took[i] = time.Since(began)
			}
		})
	}
	workers.Wait()
	elapsed := time.Since(start)
	if err := ctx.Err(); err != nil {
		return Stats{}, err
	}
	if n := failed.Load(); n > 0 {
		return Stats{}, fmt.Errorf("%s: %d of %d requests failed; the first: %w", name, n, total, first)
	}
	slices.Sort(took)
	s := Stats{Rate: float64(total) / elapsed.Seconds(), P50: took[total/2], P99: took[total*99/100]}
	t.Log("%-28s %8.0f /s   p50 %8.2f ms   p99 %8.2f ms", name, s.Rate, ms(s.P50), ms(s.P99))
	return s, nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
