package cache

import (
	"context"
	"sync"
)

type waiters struct {
	mu   sync.Mutex
	list []waiter
}

type waiter struct {
	revision int64
	reached  chan struct{}
}

// Wait until the cache has seen a revision. It returns ctx's error, or
// ErrStopped when the cache stopped.
func (c *Cache) Wait(ctx context.Context, revision int64) error {
	if c.rev.Load() >= revision {
		return nil
	}
	reached := c.waiters.add(revision)
	defer c.waiters.remove(reached)
	if c.rev.Load() >= revision { // published before the waiter was there
		return nil
	}
	select {
	case <-reached:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return ErrStopped
	}
}

func (w *waiters) add(revision int64) chan struct{} {
	reached := make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, waiter{revision, reached})
	return reached
}

func (w *waiters) remove(reached chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.list {
		if w.list[i].reached == reached {
			last := len(w.list) - 1
			w.list[i] = w.list[last]
			w.list[last] = waiter{}
			w.list = w.list[:last]
			return
		}
	}
}

func (w *waiters) wake(revision int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	keep := w.list[:0]
	for _, one := range w.list {
		if one.revision <= revision {
			close(one.reached)
		} else {
			keep = append(keep, one)
		}
	}
	clear(w.list[len(keep):])
	w.list = keep
}
