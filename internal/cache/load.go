package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/proa-dev/proa/internal/store"
)

// A cache that starts reads the store as it was some revisions ago, and lets what
// happened since come as events: so clients whose watches ended with the server
// before it can go on where they were, and need not read everything again.
const (
	replayMost  = 5000 // revisions; decoding them takes about 0.1 s
	replayStep  = 200 * time.Millisecond
	replaySteps = 10
)

// begin loads if that is needed, and returns what happens after.
func (c *Cache) begin(ctx context.Context, loaded bool) (store.Stream, error) {
	if loaded {
		return c.cfg.Store.Watch(ctx, c.Revision())
	}
	var backs []int64
	if c.Revision() == 0 && !c.noReplay {
		backs = []int64{replayMost, replayMost / 10, replayMost / 100}
	}
	now, err := c.cfg.Store.Revision(ctx)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	for _, back := range append(backs, 0) {
		at := max(now-back, 1)
		stream, err := c.loadAt(ctx, at)
		if err == nil {
			c.target = now
			return stream, nil
		}
		if !errors.Is(err, store.ErrCompacted) || back == 0 {
			return nil, fmt.Errorf("load: %w", err)
		}
	}
	return nil, fmt.Errorf("load: %w", store.ErrCompacted)
}

// loadAt reads the whole store as it was at a revision, and watches it from there.
// What is in the cache already and did not change stays as it is; the rest reaches
// the watchers as ordinary events.
func (c *Cache) loadAt(ctx context.Context, at int64) (store.Stream, error) {
	watch, cancel := context.WithCancel(ctx)
	stream, err := c.cfg.Store.Watch(watch, at) // first: a store needs its time to find old events
	if err == nil {
		kinds := c.sets.Load()
		var read map[*Set][]*Item
		if read, _, err = c.read(ctx, "/", at, kinds.find); err == nil {
			for _, s := range kinds.all {
				s.replace(read[s], at)
			}
			c.publish(at)
			context.AfterFunc(ctx, cancel)
			return stream, nil
		}
	}
	cancel()
	return nil, err
}

// readyAt closes ready once a revision is reached.
func (c *Cache) readyAt(rev int64) {
	if c.Revision() < rev {
		return
	}
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
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

// read decodes everything under a prefix as it was at a revision (0 = now), on all
// processors. It holds no more than a few chunks of encoded entries.
func (c *Cache) read(ctx context.Context, prefix string, at int64, find func(string) (*Set, string)) (map[*Set][]*Item, int64, error) {
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
		rev, err = c.cfg.Store.Range(ctx, prefix, store.RangeOptions{Revision: at}, func(e store.Entry) bool {
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
