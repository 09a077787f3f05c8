package apiserver

import (
	"fmt"
	"sync"
	"testing"
)

// BenchmarkSelected lists one pod in a thousand of 50,000 by a label.
func BenchmarkSelected(b *testing.B) {
	h := newHarness(b)
	handler := h.server.Handler()
	const n, values = 50_000, 1000
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := w; i < n; i += 16 {
				direct(b, handler, 201, "POST", podsPath, "application/json",
					fmt.Sprintf(`{"metadata":{"name":"p-%06d","labels":{"app":"a%d","tier":"t%d"}},"spec":{"containers":[{"name":"c","image":"x"}]}}`, i, i%values, i%10))
			}
		})
	}
	wg.Wait()
	for _, q := range []string{"app%3Da7", "app+in+(a7,a8)", "app", "!tier", "tier%3Dt3,app%3Da3"} {
		b.Run(q, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				direct(b, handler, 200, "GET", podsPath+"?limit=500&labelSelector="+q, "", "")
			}
		})
	}
}
