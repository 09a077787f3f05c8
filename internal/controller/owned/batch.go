package owned

import (
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// SlowStart calls f for 0 … n-1 in batches of 1, 2, 4 …, so that what fails for
// one (a quota, say) is not tried for all. It returns how many succeeded and the
// first error; after an error no further batch begins.
func SlowStart(n int, f func(i int) error) (int, error) {
	var good atomic.Int64
	for done, size := 0, 1; done < n; done, size = done+size, size*2 {
		size = min(size, n-done)
		var g errgroup.Group
		g.SetLimit(16)
		for i := range size {
			g.Go(func() error {
				err := f(done + i)
				if err == nil {
					good.Add(1)
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return int(good.Load()), err
		}
	}
	return int(good.Load()), nil
}

// Each calls f for 0 … n-1, several at once, all of them, and returns the first error.
func Each(n int, f func(i int) error) error {
	var g errgroup.Group
	g.SetLimit(16)
	for i := range n {
		g.Go(func() error { return f(i) })
	}
	return g.Wait()
}
