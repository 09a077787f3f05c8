// Package loop is what every controller runs on: a queue of keys and workers
// that bring one key at a time into the state its spec asks for. A key that is
// added while it waits is worked on once; a key is never worked on twice at the
// same time; one that fails comes again, later each time.
package loop

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/workqueue"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
)

// Controller is one of the cluster's controllers: New registers its handlers
// with shared informers, Run works until ctx ends.
type Controller interface {
	Run(ctx context.Context) error
}

// Reconcile brings one key into order, from what informers show now. It returns
// when it wants to look again although nothing has happened (0 = not), and an
// error to be called again soon. Conflicts and objects that vanished meanwhile
// are ordinary: they come again without being logged.
type Reconcile func(ctx context.Context, key string) (again time.Duration, err error)

// IgnoreNotFound is err unless it says that an object is not there: when it comes
// again, somebody says so.
func IgnoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Queue of keys.
type Queue struct {
	name string
	q    workqueue.TypedRateLimitingInterface[string]
	log  *slog.Logger
}

// NewQueue for a controller of this name. At the level debug it logs what it looks at.
// Failures of one key are retried after
// 5 ms, doubling up to 1000 s, and all together not more than 50 a second.
func NewQueue(name string, log *slog.Logger) *Queue {
	limiter := workqueue.NewTypedMaxOfRateLimiter(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](5*time.Millisecond, 1000*time.Second),
		&workqueue.TypedBucketRateLimiter[string]{Limiter: rate.NewLimiter(50, 300)},
	)
	return &Queue{name: name, q: workqueue.NewTypedRateLimitingQueue(limiter), log: log.With("controller", name)}
}

// Add a key to be worked on.
func (q *Queue) Add(key string) { q.q.Add(key) }

// AddObject adds an object's key (client.Key).
func (q *Queue) AddObject(obj api.Object) { q.q.Add(client.Key(obj.GetNamespace(), obj.GetName())) }

// AddAfter adds a key later.
func (q *Queue) AddAfter(key string, d time.Duration) { q.q.AddAfter(key, d) }

// Len is the number of keys that wait.
func (q *Queue) Len() int { return q.q.Len() }

// Run waits for informers and works with so many workers until ctx ends.
func (q *Queue) Run(ctx context.Context, workers int, reconcile Reconcile, synced ...<-chan struct{}) error {
	for _, c := range synced {
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for q.next(ctx, reconcile) {
			}
		})
	}
	<-ctx.Done()
	q.q.ShutDown()
	wg.Wait()
	return ctx.Err()
}

func (q *Queue) next(ctx context.Context, reconcile Reconcile) bool {
	key, stop := q.q.Get()
	if stop {
		return false
	}
	defer q.q.Done(key)
	again, err := reconcile(ctx, key)
	if q.log.Enabled(ctx, slog.LevelDebug) {
		q.log.Debug("looked", "key", key, "again", again, "err", err)
	}
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil:
		if !ordinary(err) {
			q.log.Warn("will try again", "key", key, "failures", q.q.NumRequeues(key)+1, "err", err)
		}
		q.q.AddRateLimited(key)
	default:
		q.q.Forget(key)
		if again > 0 {
			q.q.AddAfter(key, again)
		}
	}
	return true
}

func ordinary(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err) || errors.Is(err, context.Canceled)
}

// Split a key into namespace and name.
func Split(key string) (namespace, name string) {
	for i := range key {
		if key[i] == '/' {
			return key[:i], key[i+1:]
		}
	}
	return "", key
}
