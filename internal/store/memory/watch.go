package memory

import (
	"context"

	"github.com/proa-dev/proa/internal/store"
)

type stream struct {
	batches chan store.Batch
	err     error
}

func (w *stream) Batches() <-chan store.Batch { return w.batches }
func (w *stream) Err() error                  { return w.err }

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, after int64) (store.Stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if after < s.compacted {
		return nil, store.ErrCompacted
	}
	w := &stream{batches: make(chan store.Batch)}
	go func() {
		defer close(w.batches)
		w.err = s.follow(ctx, after, w.batches)
	}()
	return w, nil
}

func (s *Store) follow(ctx context.Context, after int64, out chan<- store.Batch) error {
	for {
		batches, changed, err := s.since(ctx, after)
		if err != nil {
			return err
		}
		for _, b := range batches {
			select {
			case out <- b:
				after = b.Revision
			case <-ctx.Done():
				return ctx.Err()
			case <-s.closed:
				return store.ErrUnavailable
			}
		}
		if len(batches) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.closed:
			return store.ErrUnavailable
		}
	}
}

func (s *Store) since(ctx context.Context, after int64) (batches []store.Batch, changed chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return nil, nil, err
	}
	if after < s.compacted {
		return nil, nil, store.ErrCompacted
	}
	for rev := max(after, s.first) + 1; rev <= s.revision(); rev++ {
		batches = append(batches, s.versions[rev-s.first].batch)
	}
	return batches, s.changed, nil
}
