package cache

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/proa-dev/proa/internal/store"
)

// load reads the whole store. What is there already and did not change stays
// as it is; the rest reaches the watchers as ordinary events.
func (c *Cache) load(ctx context.Context) error {
	kinds := c.sets.Load()
	read, rev, err := c.read(ctx, "/", kinds.find)
	if err != nil {
		return err
	}
	for _, s := range kinds.all {
		s.replace(read[s], rev)
	}
	c.publish(rev)
	return nil
}

// chunkSize is how many entries one goroutine decodes at a time.
const chunkSize = 128

// chunk is a run of entries of one set, and then the items made of them.
type chunk struct {
	set     *Set
	keys    []string
	entries []store.Entry
	items   []*Item
}

// read decodes everything under a prefix, on all processors. It holds no more
// than a few chunks of encoded entries.
func (c *Cache) read(ctx context.Context, prefix string, find func(string) (*Set, string)) (map[*Set][]*Item, int64, error) {
	g, ctx := errgroup.WithContext(ctx)
	work := make(chan *chunk, 2*runtime.GOMAXPROCS(0))
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			for ch := range work {
				ch.decode()
			}
			return nil
		})
	}
	var chunks []*chunk
	var rev int64
	g.Go(func() (err error) {
		defer close(work)
		cur := &chunk{}
		rev, err = c.cfg.Store.Range(ctx, prefix, store.RangeOptions{}, func(e store.Entry) bool {
			s, key := find(e.Key)
			if s == nil {
				return true
			}
			if cur.set != s || len(cur.entries) == chunkSize {
				if cur.set != nil {
					work <- cur
				}
				cur = &chunk{set: s}
				chunks = append(chunks, cur)
			}
			cur.keys, cur.entries = append(cur.keys, key), append(cur.entries, e)
			return true
		})
		if cur.set != nil {
			work <- cur
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, 0, err
	}
	read := map[*Set][]*Item{}
	for _, ch := range chunks {
		read[ch.set] = append(read[ch.set], ch.items...)
	}
	return read, rev, nil
}

func (ch *chunk) decode() {
	ch.items = make([]*Item, len(ch.entries))
	for i, e := range ch.entries {
		if known := ch.set.get(ch.keys[i]); known != nil && known.Revision == e.Revision {
			ch.items[i] = known
		} else {
			ch.items[i] = ch.set.decode(ch.keys[i], e)
		}
	}
	ch.entries = nil
}
