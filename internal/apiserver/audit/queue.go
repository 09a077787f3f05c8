package audit

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Batch is how events are passed on in the background.
type Batch struct {
	Buffer   int           // events that may wait; more are lost
	MaxSize  int           // of one batch
	MaxWait  time.Duration // that an event waits for others to go with it
	Throttle bool
	QPS      float32 // batches in a second
	Burst    int
}

// queue passes events on in batches, in the background.
type queue struct {
	Batch
	to     func(ctx context.Context, all []entry) error
	log    *Log
	events chan entry
	limit  *rate.Limiter
	at     chan struct{} // batches that are on their way
}

// underway is how many batches may be on their way at once.
const underway = 32

// lastCall is how long what is waiting may take when the server stops.
const lastCall = 5 * time.Second

func newQueue(b Batch, log *Log, to func(ctx context.Context, all []entry) error) *queue {
	q := &queue{Batch: b, to: to, log: log, events: make(chan entry, b.Buffer), limit: rate.NewLimiter(rate.Inf, 0), at: make(chan struct{}, underway)}
	if b.Throttle {
		q.limit = rate.NewLimiter(rate.Limit(b.QPS), b.Burst)
	}
	return q
}

var errFull = errors.New("the buffer is full: raise --audit-*-batch-buffer-size, or let the policy record less")

func (q *queue) put(all ...entry) error {
	for n, e := range all {
		select {
		case q.events <- e:
		default:
			q.log.failed(pluginBuffered, len(all)-n, errFull)
			return nil // the mode promises not to hinder requests
		}
	}
	return nil
}

// run until ctx ends; then what waits goes, and has lastCall for it.
func (q *queue) run(ctx context.Context) {
	calls, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	for {
		batch := q.collect(ctx)
		if len(batch) == 0 {
			break
		}
		if ctx.Err() == nil {
			q.limit.Wait(ctx) //nolint:errcheck // ctx has ended: no reason to wait
		}
		q.at <- struct{}{}
		wg.Go(func() {
			defer func() { <-q.at }()
			q.to(calls, batch) //nolint:errcheck // who has lost it has said so
		})
		if ctx.Err() != nil {
			time.AfterFunc(lastCall, stop)
		}
	}
	time.AfterFunc(lastCall, stop)
	wg.Wait()
}

// collect waits for an event, and then for others to go with it. Nothing is
// returned when ctx has ended and nothing waits.
func (q *queue) collect(ctx context.Context) []entry {
	var batch []entry
	select {
	case e := <-q.events:
		batch = append(batch, e)
	case <-ctx.Done():
	}
	var full <-chan time.Time
	if q.MaxSize > 1 && ctx.Err() == nil {
		t := time.NewTimer(q.MaxWait)
		defer t.Stop()
		full = t.C
	}
	for len(batch) < q.MaxSize {
		select { // what is there goes in any case
		case e := <-q.events:
			batch = append(batch, e)
			continue
		default:
		}
		if ctx.Err() != nil {
			return batch
		}
		select {
		case e := <-q.events:
			batch = append(batch, e)
		case <-full:
			return batch
		case <-ctx.Done():
		}
	}
	return batch
}
