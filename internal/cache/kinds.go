package cache

import (
	"context"
	"slices"
	"strings"

	"github.com/proa-dev/proa/internal/api"
)

// kinds finds the set of a kind or of a key; immutable.
type kinds struct {
	all      []*Set
	byKind   map[*api.Kind]*Set
	byPrefix map[string]*Set
}

func newKinds(all []*Set) *kinds {
	n := &kinds{all: all, byKind: map[*api.Kind]*Set{}, byPrefix: map[string]*Set{}}
	for _, s := range all {
		n.byKind[s.kind] = s
		n.byPrefix[s.prefix] = s
	}
	return n
}

// find the set that a store key belongs to, and what the key is in it. Prefixes
// have one segment ("/pods/") or two ("/services/specs/").
func (n *kinds) find(key string) (*Set, string) {
	one := strings.IndexByte(key[1:], '/') + 2
	if one < 2 {
		return nil, ""
	}
	if l := strings.IndexByte(key[one:], '/'); l >= 0 {
		if s := n.byPrefix[key[:one+l+1]]; s != nil {
			return s, key[one+l+1:]
		}
	}
	return n.byPrefix[key[:one]], key[one:]
}

// Of is the set of a kind: one of the catalog that New was given, or one that
// Put added. Others have none, nil.
func (c *Cache) Of(k *api.Kind) *Set {
	n := c.sets.Load()
	if s := n.byKind[k]; s != nil {
		return s
	}
	return n.byPrefix[k.Prefix()]
}

// joining is a set that asks the feed to be taken in.
type joining struct {
	set   *Set
	taken chan struct{}
}

// Put adds a kind at run time and returns when its objects are loaded. A kind of
// the same prefix is replaced: its watches end with ErrStopped.
func (c *Cache) Put(ctx context.Context, k *api.Kind) (*Set, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := newSet(c, k)
	read, rev, err := c.read(ctx, s.prefix, 0, s.find)
	if err != nil {
		return nil, err
	}
	s.replace(read[s], rev)
	j := joining{s, make(chan struct{})}
	select {
	case c.join <- j:
		<-j.taken
		return s, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.done:
		return nil, ErrStopped
	}
}

// Remove takes a kind out. Its watches end with ErrStopped.
func (c *Cache) Remove(k *api.Kind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exchange(k.Prefix(), nil)
}

// exchange a set for another or for none. mu is held.
func (c *Cache) exchange(prefix string, by *Set) {
	old := c.sets.Load()
	all := slices.DeleteFunc(slices.Clone(old.all), func(s *Set) bool { return s.prefix == prefix })
	if by != nil {
		all = append(all, by)
	}
	c.sets.Store(newKinds(all))
	if s := old.byPrefix[prefix]; s != nil {
		s.stop()
	}
}

// take runs in the feed, between two batches: the set takes part from now on.
// If it was read at a revision after the feed's, it ignores events up to that;
// if before, it is read once more (what did not change is not decoded again).
func (c *Cache) take(ctx context.Context, j joining) {
	defer close(j.taken)
	if c.Revision() > j.set.floor {
		read, rev, err := c.read(ctx, j.set.prefix, 0, j.set.find)
		if err != nil {
			c.log.Error("a kind could not be read; its objects are missing until the cache reads everything again", "kind", j.set.kind.Kind, "err", err)
		} else {
			j.set.replace(read[j.set], rev)
		}
	}
	c.exchange(j.set.prefix, j.set)
}
