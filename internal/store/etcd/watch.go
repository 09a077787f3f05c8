package etcd

import (
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"

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
	if s.closed {
		return nil, fmt.Errorf("%w: it was closed", store.ErrUnavailable)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w := &stream{batches: make(chan store.Batch, 256)}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	s.wg.Go(func() {
		defer close(w.batches)
		defer cancel()
		defer stop()
		err := s.server.watch(ctx, after, &splitter{s, after}, w.batches)
		switch {
		case s.ctx.Err() != nil:
			w.err = fmt.Errorf("%w: it was closed", store.ErrUnavailable)
		default:
			w.err = failure(ctx, err)
		}
	})
	return w, nil
}

// splitter sorts etcd's events into one batch for each revision.
type splitter struct {
	store *Store
	last  int64
}

// split events. The last batch may be one without events, when etcd is known to
// have got as far as rev.
func (sp *splitter) split(events []mvccpb.Event, rev int64) []store.Batch {
	var all []store.Batch
	for i := range events {
		kv := events[i].Kv
		if kv.ModRevision < sp.last || kv.ModRevision == sp.last && len(all) == 0 {
			continue // told already
		}
		if kv.ModRevision != sp.last {
			sp.last = kv.ModRevision
			all = append(all, store.Batch{Revision: sp.last})
		}
		if sp.store.own(kv.Key) {
			b := &all[len(all)-1]
			b.Events = append(b.Events, store.Event{Entry: sp.store.entry(kv), Deleted: events[i].Type == mvccpb.DELETE})
		}
	}
	if rev > sp.last {
		sp.last = rev
		all = append(all, store.Batch{Revision: rev})
	}
	return all
}
