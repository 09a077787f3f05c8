package cache

import (
	"bytes"
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

// Stale says whether an object is stored otherwise than it would be stored now,
// which is as value, so that writing it again would change something although it
// says the same: encrypted with an old key, in an old version, with fields that its
// schema has no longer. It asks the store, but only where that may be so.
func (c *Cache) Stale(ctx context.Context, k *api.Kind, namespace, name string, value []byte) bool {
	if !c.MayBeStale(k) {
		return false
	}
	stale, key := false, k.Key(namespace, name)
	_, err := c.cfg.Store.Range(ctx, key, store.RangeOptions{Page: 1}, func(e store.Entry) bool {
		switch {
		case e.Key != key:
		case c.cfg.Stale != nil:
			stale = c.cfg.Stale(k, e, value)
		default:
			stale = !bytes.Equal(e.Value, value)
		}
		return false
	})
	return err == nil && stale
}

// MayBeStale says whether objects of a kind can be stored otherwise than they would
// be now: values are encrypted, or the kind has, or had, several versions.
func (c *Cache) MayBeStale(k *api.Kind) bool {
	return c.cfg.Stale != nil || len(k.Shapes)+len(k.Stored) > 0 || k.Encoding == api.JSON
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
