package plugin

import "context"

// Lock that whoever waits for it can cease to wait for.
type Lock chan struct{}

// NewLock that nobody has.
func NewLock() Lock { return make(Lock, 1) }

// Take the lock, or fail when ctx ends.
func (l Lock) Take(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Free the lock, by who has it.
func (l Lock) Free() { <-l }
