package scheduler

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
)

// Config of a scheduler.
type Config struct {
	Informers     *client.Informers // shared; run by whoever made them
	Configuration *Configuration    // nil = upstream's defaults. See ParseConfiguration
	Seed          uint64            // decisions between nodes of one score
	Logger        *slog.Logger
}

// Scheduler is made by New before the informers run.
type Scheduler struct {
	config *Configuration
	conn   client.Conn
	pods   client.Client[*corev1.Pod]
	record map[string]*event.Recorder // by spec.schedulerName
	log    *slog.Logger

	podsIn    *client.Informer[*corev1.Pod]
	budgets   *client.Informer[*policyv1.PodDisruptionBudget]
	claimsIn  *client.Informer[*corev1.PersistentVolumeClaim]
	volumesIn *client.Informer[*corev1.PersistentVolume]
	devicesIn *client.Informer[*resourcev1.ResourceClaim]
	preparing map[string]chan struct{} // pods whose volumes or devices are being made ready, woken when those change
	synced    []<-chan struct{}
	asking    bool // about claims that no event shows; see askForUnseen

	inbox    inbox
	world    *world
	queue    *queue
	binds    chan bind
	outboxes [tellers]*outbox
}

// bind is a decision on its way to the API server.
type bind struct {
	*pod
	obj     *corev1.Pod // as decided on; the pod's own may move on meanwhile
	node    string
	on      *corev1.Node // as decided on
	storage *storagePlan // what has to be bound first, nil = nothing
	devices *devicePlan  // what has to be allocated and reserved first, nil = nothing
}

// New registers with the informers.
func New(c Config) *Scheduler {
	if c.Configuration == nil {
		c.Configuration = DefaultConfiguration()
	}
	conn := c.Informers.Conn()
	s := &Scheduler{
		config: c.Configuration, conn: conn, pods: client.For[*corev1.Pod](conn), log: c.Logger, record: map[string]*event.Recorder{},
		podsIn:  client.Shared[*corev1.Pod](c.Informers, client.Scope{}),
		budgets: client.Shared[*policyv1.PodDisruptionBudget](c.Informers, client.Scope{}),
		world:   newWorld(c.Seed, c.Configuration), queue: newQueue(c.Configuration), binds: make(chan bind, 4096),
		preparing: map[string]chan struct{}{}, inbox: inbox{wake: make(chan struct{}, 1)},
	}
	for name := range c.Configuration.Profiles {
		s.record[name] = event.New(conn, name, "", c.Logger)
	}
	for i := range s.outboxes {
		s.outboxes[i] = newOutbox()
	}
	s.watchStorage(c.Informers)
	s.watchDevices(c.Informers)
	s.watchOwners(c.Informers)
	heed(s, s.podsIn, s.podChanged)
	heed(s, client.Shared[*corev1.Node](c.Informers, client.Scope{}), s.nodeChanged)
	heed(s, client.Shared[*corev1.Namespace](c.Informers, client.Scope{}), func(old, now *corev1.Namespace) {
		if now == nil {
			s.world.setNamespace(old.Name, nil)
		} else {
			s.world.setNamespace(now.Name, labels.Set(now.Labels))
		}
	})
	s.synced = append(s.synced, s.budgets.Synced())
	return s
}

// heed an informer's changes where the world is owned.
func heed[T api.Object](s *Scheduler, in *client.Informer[T], f func(old, now T)) {
	in.OnChange(func(old, now T) { s.inbox.put(func() { f(old, now) }) })
	s.synced = append(s.synced, in.Synced())
}

// watchOwners keeps what selects pods up to date, for profiles that spread by it.
func (s *Scheduler) watchOwners(inf *client.Informers) {
	for _, o := range s.config.Profiles {
		if len(o.spread) > 0 {
			owns(s, client.Shared[*corev1.Service](inf, client.Scope{}))
			owns(s, client.Shared[*corev1.ReplicationController](inf, client.Scope{}))
			owns(s, client.Shared[*appsv1.ReplicaSet](inf, client.Scope{}))
			owns(s, client.Shared[*appsv1.StatefulSet](inf, client.Scope{}))
			return
		}
	}
}

func owns[T api.Object](s *Scheduler, in *client.Informer[T]) {
	var none T
	in.OnChange(func(old, now T) {
		var before, after api.Object
		if any(old) != any(none) {
			before = old
		}
		if any(now) != any(none) {
			after = now
		}
		if sameOwner(before, after) {
			return
		}
		s.inbox.put(func() { s.world.owners.set(before, after) })
	})
	s.synced = append(s.synced, in.Synced())
}

// inbox takes what informers and binders tell, for the one goroutine that owns
// the world.
type inbox struct {
	mu   sync.Mutex
	todo []func()
	wake chan struct{}
}

func (i *inbox) put(f func()) {
	i.mu.Lock()
	i.todo = append(i.todo, f)
	i.mu.Unlock()
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

func (i *inbox) take() []func() {
	i.mu.Lock()
	defer i.mu.Unlock()
	todo := i.todo
	i.todo = nil
	return todo
}

// Run schedules until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	for _, c := range s.synced {
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, r := range s.record {
		g.Go(func() error { r.Run(ctx); return ctx.Err() })
	}
	for _, o := range s.outboxes {
		g.Go(func() error { return s.tell(ctx, o) })
	}
	for range binders {
		g.Go(func() error { return s.bindAll(ctx) })
	}
	g.Go(func() error { return s.loop(ctx) })
	return g.Wait()
}

func (s *Scheduler) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	sweep := time.Now().Add(stuck)
	for {
		for _, f := range s.inbox.take() {
			f()
		}
		now := time.Now()
		if now.After(sweep) {
			s.world.forget(s.queue.each)
			s.askForUnseen(ctx)
			s.queue.flush(now)
			sweep = now.Add(stuck)
		}
		if s.world.devices.free() {
			s.queue.wake(s.world, happening{what: deviceClaimChanged, freed: true}, now)
		}
		if p := s.queue.pop(now); p != nil {
			if err := s.one(ctx, p, now); err != nil {
				return err
			}
			continue
		}
		at := s.queue.next()
		if at.IsZero() || at.After(sweep) {
			at = sweep
		}
		timer.Reset(time.Until(at))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.inbox.wake:
		case <-timer.C:
		}
	}
}
