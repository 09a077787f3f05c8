// Package memory is a store.Store that forgets everything when it ends. Tests
// use it where etcd's disk writes would only cost time.
package memory

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/btree"

	"github.com/proa-dev/proa/internal/store"
)

// Store keeps every version since the last compaction: a commit adds one, which
// shares with the one before all that it did not change.
type Store struct {
	mu        sync.Mutex
	versions  []version // of revisions first, first+1, …; never empty
	first     int64
	compacted int64         // the revision given to Compact
	changed   chan struct{} // closed and replaced by every commit
	closed    chan struct{}
	expiries  map[string]*time.Timer
}

type version struct {
	entries *btree.Map[string, store.Entry]
	batch   store.Batch // what made this version
}

// New is an empty store.
func New() *Store {
	return &Store{
		versions: []version{{entries: btree.NewMap[string, store.Entry](0)}},
		first:    1, // as in etcd, nothing is at revision 1
		changed:  make(chan struct{}),
		closed:   make(chan struct{}),
		expiries: map[string]*time.Timer{},
	}
}

func (s *Store) revision() int64 { return s.first + int64(len(s.versions)) - 1 }

func (s *Store) latest() *btree.Map[string, store.Entry] {
	return s.versions[len(s.versions)-1].entries
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, writes ...store.Write) (int64, error) {
	if err := store.CheckWrites(writes); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	now := s.latest()
	for _, w := range writes {
		cur, ok := now.Get(w.Key)
		switch {
		case w.Unsafe || cur.Revision == w.Prior:
		case ok:
			return 0, &store.Conflict{Key: w.Key, Current: &cur}
		default:
			return 0, &store.Conflict{Key: w.Key}
		}
	}
	return s.write(writes), nil
}

// write makes the next version. The lock is held.
func (s *Store) write(writes []store.Write) int64 {
	rev := s.revision() + 1
	next, batch := s.latest().Copy(), store.Batch{Revision: rev}
	for _, w := range writes {
		old, had := next.Get(w.Key)
		if w.Value == nil && !had {
			continue
		}
		if t := s.expiries[w.Key]; t != nil {
			t.Stop()
			delete(s.expiries, w.Key)
		}
		if w.Value == nil {
			next.Delete(w.Key)
			batch.Events = append(batch.Events, store.Event{Entry: store.Entry{Key: w.Key, Revision: rev}, Deleted: true})
			continue
		}
		e := store.Entry{Key: w.Key, Value: append([]byte{}, w.Value...), Created: rev, Revision: rev}
		if had {
			e.Created = old.Created
		}
		next.Set(w.Key, e)
		batch.Events = append(batch.Events, store.Event{Entry: e})
		if w.TTL > 0 {
			s.expiries[w.Key] = time.AfterFunc(w.TTL, func() { s.expire(w.Key, rev) })
		}
	}
	if len(batch.Events) == 0 {
		return rev - 1
	}
	s.versions = append(s.versions, version{next, batch})
	close(s.changed)
	s.changed = make(chan struct{})
	return rev
}

func (s *Store) expire(key string, rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.latest().Get(key); ok && e.Revision == rev && s.usable(context.Background()) == nil {
		s.write([]store.Write{{Key: key}})
	}
}

// Revision implements store.Store.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revision(), s.usable(ctx)
}

// Range implements store.Store.
func (s *Store) Range(ctx context.Context, prefix string, opt store.RangeOptions, visit func(store.Entry) bool) (int64, error) {
	s.mu.Lock()
	rev := opt.Revision
	if rev == 0 {
		rev = s.revision()
	}
	err := s.usable(ctx)
	switch {
	case err != nil:
	case rev > s.revision():
		err = store.ErrFuture
	case rev < s.first:
		err = store.ErrCompacted
	}
	if err != nil {
		s.mu.Unlock()
		return 0, err
	}
	entries := s.versions[rev-s.first].entries
	s.mu.Unlock()

	entries.Ascend(max(prefix, opt.From), func(key string, e store.Entry) bool {
		err = ctx.Err()
		return err == nil && strings.HasPrefix(key, prefix) && visit(e)
	})
	return rev, err
}

// Compact implements store.Store.
func (s *Store) Compact(ctx context.Context, revision int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if revision > s.revision() {
		return store.ErrFuture
	}
	if revision > s.first {
		s.versions = append([]version(nil), s.versions[revision-s.first:]...)
		s.first, s.compacted = revision, revision
	}
	return s.usable(ctx)
}

// Size implements store.Store: nothing is on disk.
func (s *Store) Size(context.Context) (int64, error) { return 0, nil }

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.expiries {
		t.Stop()
	}
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	return nil
}

func (s *Store) usable(ctx context.Context) error {
	select {
	case <-s.closed:
		return fmt.Errorf("%w: it was closed", store.ErrUnavailable)
	default:
		return ctx.Err()
	}
}
