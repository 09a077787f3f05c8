package cache

import (
	"context"
	"errors"
	"fmt"

	apiequality "k8s.io/apimachinery/pkg/api/equality"

	"github.com/proa-dev/proa/internal/store"
)

// Verify compares everything in the cache with what the store holds and says
// where they differ. They do when somebody changed an object that is shared, or
// handed Commit an object that is not what its bytes say. It reads the whole
// store: for tests, and for those who look for such a fault.
func (c *Cache) Verify(ctx context.Context) error {
	var all []error
	for _, s := range c.sets.Load().all {
		all = append(all, s.verify(ctx))
	}
	return errors.Join(all...)
}

func (s *Set) verify(ctx context.Context) error {
	var wrong []error
	stored := map[string]store.Entry{}
	rev, err := s.cache.cfg.Store.Range(ctx, s.prefix, store.RangeOptions{}, func(e store.Entry) bool {
		stored[e.Key[len(s.prefix):]] = e
		return true
	})
	if err != nil {
		return err
	}
	if err := s.cache.Wait(ctx, rev); err != nil {
		return err
	}
	snap, err := s.SnapshotAt(rev)
	if err != nil {
		return fmt.Errorf("%s at revision %d: %w", s.prefix, rev, err)
	}
	snap.Ascend("", "", "", func(i *Item) bool {
		e, ok := stored[i.key]
		delete(stored, i.key)
		switch {
		case !ok:
			wrong = append(wrong, fmt.Errorf("%s%s is in the cache, not in the store", s.prefix, i.key))
		case s.isBroken(i.key):
		case e.Revision != i.Revision:
			wrong = append(wrong, fmt.Errorf("%s%s is at revision %d, in the cache at %d", s.prefix, i.key, e.Revision, i.Revision))
		default:
			want := s.decode(i.key, e)
			if want.err == nil && !apiequality.Semantic.DeepEqual(want.Object, i.Object) {
				wrong = append(wrong, fmt.Errorf("%s%s at revision %d is in the store\n  %+v\nbut in the cache\n  %+v", s.prefix, i.key, i.Revision, want.Object, i.Object))
			}
		}
		return true
	})
	for key := range stored {
		if !s.isBroken(key) {
			wrong = append(wrong, fmt.Errorf("%s%s is in the store, not in the cache", s.prefix, key))
		}
	}
	return errors.Join(wrong...)
}

func (s *Set) isBroken(key string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.broken[key]
	return ok
}
