package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/cache/share"
	"github.com/proa-dev/proa/internal/store"
)

// Config of a Cache.
type Config struct {
	Store   store.Store
	Catalog *api.Catalog // the kinds there are at the start; later ones come by Put
	// Decode makes the object that is kept under an entry. It need not set the
	// resourceVersion. It is called by several goroutines.
	Decode func(k *api.Kind, e store.Entry) (api.Object, error)
	// Seal makes of an object's bytes what is stored of them, and Stale says that
	// what it would now make of value is something else than e; nil = the bytes are
	// stored as they are.
	Seal  func(ctx context.Context, k *api.Kind, key string, value []byte) ([]byte, error)
	Stale func(k *api.Kind, e store.Entry, value []byte) bool
	// Again tells that what could not be decoded may be decodable now; nil = never.
	Again  <-chan struct{}
	Window Window
	Queue  int // events that may wait for a watcher before it is given up; 0 = 16384
	Logger *slog.Logger
}

// Cache follows a store and keeps what is in it, decoded. *Cache implements
// Waiter; its Sets implement Reader.
type Cache struct {
	cfg   Config
	log   *slog.Logger
	ready chan struct{}
	done  chan struct{} // closed when Run ends

	rev     atomic.Int64 // up to which everything is in the sets and the watchers' queues
	waiters waiters
	expect  expectations
	parts   *share.Parts
	encoded encodings

	mu   sync.Mutex // guards changes of kinds
	sets atomic.Pointer[kinds]
	join chan joining // sets that Put wants taken into the feed

	target   int64 // the feed's alone: ready when this is reached
	noReplay bool  // the feed's alone
}

// New is a cache that is empty until Run is called.
func New(cfg Config) *Cache {
	cfg.Window.defaults()
	if cfg.Queue == 0 {
		cfg.Queue = 16384
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Cache{cfg: cfg, log: cfg.Logger, ready: make(chan struct{}), done: make(chan struct{}), join: make(chan joining)}
	c.expect.byKey = map[string][]*expected{}
	c.parts, c.encoded.least = share.New(), encodedLeast
	var all []*Set
	for _, k := range cfg.Catalog.All() {
		if !k.Virtual {
			all = append(all, newSet(c, k))
		}
	}
	c.sets.Store(newKinds(all))
	return c
}

// Ready is closed once everything was loaded. Before that reads find nothing.
func (c *Cache) Ready() <-chan struct{} { return c.ready }

// Revision up to which the cache has seen everything.
func (c *Cache) Revision() int64 { return c.rev.Load() }

// Run loads what the store has and follows it until ctx ends. When the store
// cannot be reached it goes on serving what it knows and tries again.
func (c *Cache) Run(ctx context.Context) error {
	defer c.stop()
	var wait time.Duration
	for loaded := false; ; {
		err := c.once(ctx, &loaded, &wait)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, store.ErrCompacted) || errors.Is(err, store.ErrFuture) {
			c.log.Warn("the store forgot what the cache has not seen yet; reading everything again", "revision", c.Revision(), "err", err)
			loaded = false
			continue
		}
		wait = min(max(2*wait, 50*time.Millisecond), 5*time.Second)
		c.log.Error("the store is not there; trying again", "err", err, "wait", wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// once loads if that is needed and follows until the stream breaks.
func (c *Cache) once(ctx context.Context, loaded *bool, wait *time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.begin(ctx, *loaded)
	if err != nil {
		return err
	}
	*loaded = true
	*wait = 0
	c.readyAt(c.target)
	behind := time.NewTimer(replayStep)
	defer behind.Stop()
	steps := 0
	sweep := time.NewTicker(time.Minute)
	defer sweep.Stop()
	for {
		select {
		case b, ok := <-stream.Batches():
			if !ok {
				return fmt.Errorf("watch: %w", stream.Err())
			}
			c.feed(b, stream.Batches())
			c.readyAt(c.target)
		case <-behind.C:
			if c.Revision() >= c.target {
				break
			}
			if steps++; steps == replaySteps {
				c.noReplay, *loaded = true, false
				return fmt.Errorf("revision %d was not reached within %s", c.target, replaySteps*replayStep)
			}
			_, _ = c.cfg.Store.Revision(ctx) // a store that others move says so when it is asked
			behind.Reset(replayStep)
		case j := <-c.join:
			c.take(ctx, j)
		case <-c.cfg.Again:
			c.mend(ctx)
		case <-sweep.C:
			for _, s := range c.sets.Load().all {
				s.sweep(time.Now())
			}
		}
	}
}

// feedMost bounds how many batches are made visible at once.
const feedMost = 256

// feed makes a batch, and those that already wait behind it, visible: first in
// the sets and the watchers' queues, then by the revision.
func (c *Cache) feed(b store.Batch, more <-chan store.Batch) {
	now := time.Now()
	kinds := c.sets.Load()
	rev := b.Revision
	c.route(kinds, b)
	for n := 1; n < feedMost; n++ {
		select {
		case b, ok := <-more:
			if ok {
				c.route(kinds, b)
				rev = b.Revision
				continue
			}
		default:
		}
		break
	}
	for _, s := range kinds.all {
		if len(s.incoming) > 0 {
			s.apply(now)
		}
	}
	c.publish(rev)
}

// route sorts a batch's events by set.
func (c *Cache) route(kinds *kinds, b store.Batch) {
	for _, e := range b.Events {
		if s, key := kinds.find(e.Key); s != nil {
			s.incoming = append(s.incoming, incoming{key, e})
		}
	}
}

func (c *Cache) publish(rev int64) {
	if rev > c.rev.Load() {
		c.rev.Store(rev)
		c.waiters.wake(rev)
	}
}

func (c *Cache) stop() {
	close(c.done)
	for _, s := range c.sets.Load().all {
		s.stop()
	}
}
