package usage

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// maxAge of figures: nobody is asked again before.
	maxAge = 10 * time.Second
	// tooOld is a reading that no rate is worked out from.
	tooOld = time.Minute
	// within this time a node answers, or is left out.
	within = 3 * time.Second
)

// node is what is known of what one uses.
type node struct {
	mu      sync.Mutex
	base    *shot // what rates are from, nil = there is none yet
	last    *shot
	failed  bool          // it did not answer when it was asked last …
	slow    bool          // … but let everybody wait
	pending chan struct{} // closed when the question under way is answered
	wanted  time.Time     // when somebody asked last
}

// view is a node at one time.
type view struct{ base, last *shot }

// take in a shot.
func (n *node) take(s *shot) {
	switch {
	case n.last == nil || s.taken.Sub(n.last.taken) > tooOld:
		n.base = nil
	case n.base == nil || s.taken.Sub(n.last.taken) >= maxAge:
		n.base = n.last
	}
	n.last = s
}

// view of the node, empty unless its figures are good at a time.
func (n *node) view(now time.Time) view {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failed || n.last == nil || now.Sub(n.last.taken) > maxAge+within {
		return view{}
	}
	return view{n.base, n.last}
}

// state for who plans: whether it has to be asked again, whether that would be
// the first reading, and whether it is not worth waiting for.
func (n *node) state(now time.Time) (stale, cold, slow bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wanted = now
	if n.last == nil || now.Sub(n.last.taken) > tooOld {
		return true, true, n.slow
	}
	return n.failed || now.Sub(n.last.taken) >= maxAge, n.base == nil, n.slow
}

// ask the node unless there is a shot that was taken at since or later. Who comes
// while another asks waits for the same answer. It ends when ctx does.
func (n *node) ask(ctx context.Context, since time.Time, scrape func(context.Context) (*shot, error)) error {
	for {
		n.mu.Lock()
		if n.last != nil && !n.last.taken.Before(since) && !n.failed {
			n.mu.Unlock()
			return nil
		}
		wait := n.pending
		if wait == nil {
			break
		}
		n.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
		n.mu.Lock()
		failed := n.failed
		n.mu.Unlock()
		if failed {
			return nil // whoever asked has said so
		}
	}
	done := make(chan struct{})
	n.pending = done
	n.mu.Unlock()

	s, err := scrape(ctx)

	n.mu.Lock()
	defer n.mu.Unlock()
	n.failed, n.slow = err != nil, errors.Is(err, context.DeadlineExceeded)
	if err == nil {
		n.take(s)
	}
	n.pending = nil
	close(done)
	return err
}
