package cache

import (
	"context"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/store"
)

func (c *Cache) seal(ctx context.Context, ch *Change, key string) ([]byte, error) {
	if c.cfg.Seal == nil {
		return ch.Value, nil
	}
	return c.cfg.Seal(ctx, ch.Kind, key, ch.Value)
}

// Decode an entry that the caller read from the store, as Config says.
func (c *Cache) Decode(k *api.Kind, e store.Entry) (api.Object, error) { return c.cfg.Decode(k, e) }

// Stale says whether an object is stored in a way in which it would not be stored
// now (encrypted with an old key, say), so that writing it again would change
// something although it says the same. It asks the store, but only when values
// are sealed at all.
func (c *Cache) Stale(ctx context.Context, k *api.Kind, namespace, name string) bool {
	if c.cfg.Stale == nil {
		return false
	}
	stale, key := false, k.Key(namespace, name)
	_, err := c.cfg.Store.Range(ctx, key, store.RangeOptions{Page: 1}, func(e store.Entry) bool {
		stale = e.Key == key && c.cfg.Stale(k, e)
		return false
	})
	return err == nil && stale
}

// mend reads the kinds again of which something could not be decoded. It runs in
// the feed.
func (c *Cache) mend(ctx context.Context) {
	for _, s := range c.sets.Load().all {
		if s.Unreadable("") == nil {
			continue
		}
		read, rev, err := c.read(ctx, s.prefix, 0, s.find)
		if err != nil {
			c.log.Error("a kind could not be read again; what could not be decoded is missing still", "kind", s.kind.Kind, "err", err)
			continue
		}
		s.replace(read[s], rev)
	}
}
