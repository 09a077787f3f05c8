package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
)

// Config of a scheduler.
type Config struct {
	Informers *client.Informers // shared; run by whoever made them
	// Profiles by spec.schedulerName it answers to; nil = default-scheduler with
	// upstream's defaults. See ParseConfiguration.
	Profiles map[string]*Options
	Seed     uint64 // decisions between nodes of one score
	Logger   *slog.Logger
}

// Scheduler is made by New before the informers run.
type Scheduler struct {
	profiles map[string]*Options
	conn     client.Conn
	pods     client.Client[*corev1.Pod]
	record   *event.Recorder
	log      *slog.Logger

	podsIn   *client.Informer[*corev1.Pod]
	budgets  *client.Informer[*policyv1.PodDisruptionBudget]
	claimsIn *client.Informer[*corev1.PersistentVolumeClaim]
	storing  map[string]chan struct{} // pods whose volumes are being bound, woken when storage changes
	synced   []<-chan struct{}

	inbox inbox
	world *world
	queue *queue
	binds chan bind
}

// bind is a decision on its way to the API server.
type bind struct {
	*pod
	obj     *corev1.Pod // as decided on; the pod's own may move on meanwhile
	node    string
	storage *storagePlan // what has to be bound first, nil = nothing
}

// New registers with the informers.
func New(c Config) *Scheduler {
	if len(c.Profiles) == 0 {
		c.Profiles = map[string]*Options{corev1.DefaultSchedulerName: {}}
	}
	conn := c.Informers.Conn()
	s := &Scheduler{
		profiles: c.Profiles, conn: conn, pods: client.For[*corev1.Pod](conn), log: c.Logger,
		record:  event.New(conn, corev1.DefaultSchedulerName, "", c.Logger),
		podsIn:  client.Shared[*corev1.Pod](c.Informers, client.Scope{}),
		budgets: client.Shared[*policyv1.PodDisruptionBudget](c.Informers, client.Scope{}),
		world:   newWorld(c.Seed), queue: newQueue(), binds: make(chan bind, 4096),
		storing: map[string]chan struct{}{}, inbox: inbox{wake: make(chan struct{}, 1)},
	}
	s.world.options = c.Profiles
	s.watchStorage(c.Informers)
	nodes := client.Shared[*corev1.Node](c.Informers, client.Scope{})
	namespaces := client.Shared[*corev1.Namespace](c.Informers, client.Scope{})
	s.podsIn.OnChange(func(old, now *corev1.Pod) { s.inbox.put(func() { s.podChanged(old, now) }) })
	nodes.OnChange(func(old, now *corev1.Node) { s.inbox.put(func() { s.nodeChanged(old, now) }) })
	namespaces.OnChange(func(old, now *corev1.Namespace) {
		s.inbox.put(func() {
			if now == nil {
				s.world.setNamespace(old.Name, nil)
			} else {
				s.world.setNamespace(now.Name, labels.Set(now.Labels))
			}
		})
	})
	s.synced = append(s.synced, s.podsIn.Synced(), nodes.Synced(), namespaces.Synced(), s.budgets.Synced())
	return s
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
	g.Go(func() error { s.record.Run(ctx); return ctx.Err() })
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
			s.queue.wake(0, now)
			sweep = now.Add(stuck)
		}
		if p := s.queue.pop(now); p != nil {
			if err := s.one(ctx, p, now); err != nil {
				return err
			}
			continue
		}
		if at := s.queue.next(); !at.IsZero() {
			timer.Reset(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.inbox.wake:
		case <-timer.C:
		}
	}
}

// one pod's turn.
func (s *Scheduler) one(ctx context.Context, p *pod, now time.Time) error {
	r := s.world.plan(p)
	if r.node != nil {
		delete(s.world.hopes, p.key)
		b := bind{pod: p, obj: p.obj, node: r.node.name}
		if len(p.claims) > 0 {
			b.storage = s.world.assumeStorage(p, r.node)
		}
		s.world.place(p, r.node.name, true)
		s.queue.wake(podCame, now)
		if b.storage != nil {
			go s.bindStorage(ctx, b)
			return nil
		}
		return s.send(ctx, b)
	}
	text := r.why.text
	s.queue.failed(p, r.why.for_, now)
	var nominated *string
	if len(s.world.nodes) > 0 {
		c, why, eligible := s.world.preempt(p, r.why, s.budgets.List("", nil))
		switch {
		case c != nil:
			s.nominate(ctx, p, c)
			nominated = &c.node.name
		case eligible:
			delete(s.world.hopes, p.key)
			nominated = new("")
			fallthrough
		default:
			text = strings.TrimSpace(text + " " + why)
		}
	}
	go s.tellPending(ctx, p.obj, text, nominated)
	return nil
}

// nominate a pod for the node from which others go for it.
func (s *Scheduler) nominate(ctx context.Context, p *pod, c *preemption) {
	h := &hope{pod: p, on: c.node.name, victims: map[types.UID]bool{}}
	for _, v := range c.victims {
		h.victims[v.obj.UID] = true
	}
	for key, other := range s.world.hopes {
		if other.on == h.on && other.priority < p.priority {
			delete(s.world.hopes, key) // it hoped for what is taken now
			go s.tellNominated(ctx, other.obj)
		}
	}
	s.world.hopes[p.key] = h
	go s.evict(ctx, p.obj, c.objects())
}

func (s *Scheduler) send(ctx context.Context, b bind) error {
	select {
	case s.binds <- b:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Scheduler) podChanged(old, now *corev1.Pod) {
	obj := now
	if obj == nil {
		obj = old
	}
	key := obj.Namespace + "/" + obj.Name
	gone := now == nil || now.Status.Phase == corev1.PodSucceeded || now.Status.Phase == corev1.PodFailed
	at := time.Now()
	switch {
	case gone:
		if wait := s.storing[key]; wait != nil {
			select {
			case wait <- struct{}{}:
			default:
			}
		}
		delete(s.world.hopes, key)
		s.queue.remove(key)
		if s.world.placed[key] != nil {
			s.world.remove(key)
			s.queue.wake(podGone, at)
		}
	case now.Spec.NodeName != "":
		s.queue.remove(key)
		delete(s.world.hopes, key)
		have := s.world.placed[key]
		if have != nil && have.on == now.Spec.NodeName && have.obj.UID == now.UID && s.world.classOf(now) == have.class {
			have.pod.obj, have.assumed = now, false
			return
		}
		first := s.world.placed[key] == nil
		s.world.place(s.world.newPod(now), now.Spec.NodeName, false)
		if first {
			s.queue.wake(podCame, at)
		} else {
			s.queue.wake(podGone|podCame, at)
		}
	case s.responsible(now):
		if have := s.world.placed[key]; have != nil && have.assumed && have.obj.UID == now.UID {
			return // bound as far as we know; the API server will say so
		}
		if have := s.queue.all[key]; have != nil && have.obj.UID == now.UID && sameSpec(have.obj, now) {
			have.obj = now // only its status or metadata changed
			return
		}
		p := s.world.newPod(now)
		if on := now.Status.NominatedNodeName; on != "" && s.world.hopes[key] == nil {
			s.world.hopes[key] = &hope{pod: p, on: on}
		} else if h := s.world.hopes[key]; h != nil {
			h.pod = p
		}
		s.queue.put(p, at)
	default:
		delete(s.world.hopes, key)
		s.queue.remove(key)
	}
}

// responsible: the pod asks for this scheduler, and is held back by nothing.
func (s *Scheduler) responsible(p *corev1.Pod) bool {
	return s.profiles[p.Spec.SchedulerName] != nil && p.DeletionTimestamp == nil && len(p.Spec.SchedulingGates) == 0
}

func (s *Scheduler) nodeChanged(old, now *corev1.Node) {
	if now == nil {
		s.world.removeNode(old.Name)
		return
	}
	s.world.setNode(now)
	if old == nil || matters(old, now) {
		s.queue.wake(nodeAdded, time.Now())
	}
}

// evict the victims of a preemption. When one cannot be, the pod that needs the
// room is looked at again.
func (s *Scheduler) evict(ctx context.Context, p *corev1.Pod, victims []*corev1.Pod) {
	for _, v := range victims {
		if err := s.preemptOne(ctx, p, v); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			if ctx.Err() == nil {
				s.log.Warn("a pod could not be preempted", "pod", v.Name, "namespace", v.Namespace, "for", p.Name, "err", err)
			}
			s.inbox.put(func() {
				key := p.Namespace + "/" + p.Name
				delete(s.world.hopes, key)
				if have := s.queue.waiting[key]; have != nil && have.obj.UID == p.UID {
					s.queue.again(have.pod, time.Now())
				}
			})
			return
		}
	}
}

// tellNominated takes back that a pod is nominated for a node.
func (s *Scheduler) tellNominated(ctx context.Context, p *corev1.Pod) {
	patch := fmt.Appendf(nil, `{"metadata":{"uid":%q},"status":{"nominatedNodeName":null}}`, p.UID)
	if _, err := s.pods.Patch(ctx, p.Namespace, p.Name, client.Patch{Type: types.MergePatchType, Data: patch}, client.WriteOptions{Subresource: "status"}); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		s.log.Warn("nominated node not taken back", "pod", p.Name, "namespace", p.Namespace, "err", err)
	}
}
