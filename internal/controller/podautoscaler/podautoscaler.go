// Package podautoscaler scales what has a scale by what its pods use, or by
// anything else that is measured (HorizontalPodAutoscaler). Each autoscaler looks
// every 15 seconds by a clock of its own, and when its spec changes; without any,
// nothing happens.
package podautoscaler

import (
	"context"
	"hash/fnv"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
)

const (
	period  = 15 * time.Second
	atOnce  = 5                      // so many autoscalers are worked on
	nearest = 100 * time.Millisecond // two looks of one that is changed again and again
)

// Config of the controller.
type Config struct {
	Options Options
	// API sends requests to the API server in the name that metrics adapters know:
	// system:serviceaccount:kube-system:horizontal-pod-autoscaler.
	API   http.RoundTripper
	Clock clock.Clock // nil = the real one
}

// Controller of HorizontalPodAutoscalers.
type Controller struct {
	cfg     Config
	log     *slog.Logger
	in      *client.Informer[*autoscalingv2.HorizontalPodAutoscaler]
	pods    *client.Informer[*corev1.Pod]
	scalers client.Client[*autoscalingv2.HorizontalPodAutoscaler]
	api     *remote
	record  *event.Recorder
	slots   chan struct{}

	mu      sync.Mutex
	workers map[string]*worker
	start   func(*worker)                         // nil until Run
	chosen  map[string]map[string]labels.Selector // by namespace and name: the pods of each
}

// worker looks after one autoscaler.
type worker struct {
	namespace, name string
	wait            time.Duration // until its first look
	wake            chan struct{} // its spec has changed
	gone            chan struct{} // closed when it was deleted
	history         history
	uid             types.UID // of the one that history is of
}

// New controller.
func New(in *client.Informers, cfg Config, log *slog.Logger) *Controller {
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	c := &Controller{
		cfg: cfg, log: log.With("controller", "horizontalpodautoscaler"),
		in:      client.Shared[*autoscalingv2.HorizontalPodAutoscaler](in, client.Scope{}),
		pods:    client.Shared[*corev1.Pod](in, client.Scope{}),
		scalers: client.For[*autoscalingv2.HorizontalPodAutoscaler](in.Conn()),
		api:     newRemote(in.Conn().Catalog(), cfg.API),
		record:  event.New(in.Conn(), "horizontal-pod-autoscaler", "", log),
		slots:   make(chan struct{}, atOnce),
		workers: map[string]*worker{}, chosen: map[string]map[string]labels.Selector{},
	}
	c.in.OnChange(func(old, now *autoscalingv2.HorizontalPodAutoscaler) {
		switch {
		case now == nil:
			c.forget(old)
		case old == nil || old.UID != now.UID || !equality.Semantic.DeepEqual(old.Spec, now.Spec):
			c.poke(now)
		}
	})
	return c
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	go c.record.Run(ctx)
	for _, synced := range []<-chan struct{}{c.in.Synced(), c.pods.Synced()} {
		select {
		case <-synced:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var all sync.WaitGroup
	c.mu.Lock()
	c.start = func(w *worker) { all.Go(func() { c.look(ctx, w) }) }
	for _, w := range c.workers {
		c.start(w)
	}
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.start = nil // nothing may be added any more
	c.mu.Unlock()
	all.Wait()
	return ctx.Err()
}

// poke the worker of an autoscaler, which is made if it is not there.
func (c *Controller) poke(h *autoscalingv2.HorizontalPodAutoscaler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := client.Key(h.Namespace, h.Name)
	w := c.workers[key]
	if w == nil {
		w = &worker{namespace: h.Namespace, name: h.Name, wake: make(chan struct{}, 1), gone: make(chan struct{})}
		c.workers[key] = w
		if c.start != nil {
			c.start(w)
		} else {
			// It was there before this controller: figures are not, and there may be
			// many. Each begins at a time of its own.
			w.wait = phase(h.UID)
		}
		return
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// phase of the clock of an autoscaler that was there at the start.
func phase(uid types.UID) time.Duration {
	sum := fnv.New32a()
	sum.Write([]byte(uid))
	return time.Duration(sum.Sum32()%uint32(period/time.Millisecond)) * time.Millisecond
}

func (c *Controller) forget(h *autoscalingv2.HorizontalPodAutoscaler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := client.Key(h.Namespace, h.Name)
	if w := c.workers[key]; w != nil {
		close(w.gone)
		delete(c.workers, key)
	}
	delete(c.chosen[h.Namespace], h.Name)
	if len(c.chosen[h.Namespace]) == 0 {
		delete(c.chosen, h.Namespace)
	}
}

// look after an autoscaler until it is gone.
func (c *Controller) look(ctx context.Context, w *worker) {
	var timer clock.Timer
	wait := func(d time.Duration) bool {
		if d <= 0 {
			return true
		}
		if timer == nil {
			timer = c.cfg.Clock.NewTimer(d)
		} else {
			timer.Reset(d)
		}
		return false
	}
	defer func() {
		if timer != nil {
			timer.Stop()
		}
	}()
	var last time.Time
	var woken <-chan struct{} // nil = it looks soon anyway
	for due := wait(w.wait); ; {
		for !due {
			select {
			case <-timer.C():
				due = true
			case <-woken:
				woken = nil
				due = wait(nearest - c.cfg.Clock.Since(last))
			case <-w.gone:
				return
			case <-ctx.Done():
				return
			}
		}
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		last = c.cfg.Clock.Now()
		err := c.reconcile(ctx, w)
		<-c.slots
		if err != nil && ctx.Err() == nil {
			c.log.Debug("an autoscaler cannot do all that it should", "autoscaler", client.Key(w.namespace, w.name), "err", err)
		}
		due, woken = wait(period), w.wake
	}
}

// reconcile an autoscaler once.
func (c *Controller) reconcile(ctx context.Context, w *worker) error {
	h, ok := c.in.Get(w.namespace, w.name)
	if !ok || h.DeletionTimestamp != nil {
		return nil
	}
	if w.uid != h.UID {
		w.uid, w.history = h.UID, history{}
	}
	about := event.Ref(c.scalers.Kind(), h)
	t, err := c.api.target(ctx, h)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p := broken(h, w.history, err, c.cfg.Clock.Now())
		return c.finish(ctx, w, h, &p)
	}
	s := &snapshot{Options: c.cfg.Options, scaler: h, scale: t.scale, history: w.history}
	if needsMetrics(h, t.scale.Spec.Replicas) {
		c.observe(ctx, s)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.now = c.cfg.Clock.Now()
	p := decide(s)
	if p.rescale {
		for _, n := range p.events {
			c.tell(about, n)
		}
		p.events = []note{p.rescaled(s, c.api.rescale(ctx, t, p.desired))}
		if p.events[0].kind == corev1.EventTypeNormal {
			c.log.Info("rescaled", "autoscaler", client.Key(w.namespace, w.name), "from", t.scale.Spec.Replicas, "to", p.desired, "why", p.reason)
		}
	}
	return c.finish(ctx, w, h, &p)
}

// observe what the decision needs besides the scale.
func (c *Controller) observe(ctx context.Context, s *snapshot) {
	selector, err := labels.Parse(s.scale.Status.Selector)
	if err != nil || s.scale.Status.Selector == "" {
		return
	}
	s.selector = selector
	s.pods = c.pods.List(s.scaler.Namespace, selector)
	// In order, so that an error names the same pod each time.
	slices.SortFunc(s.pods, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	if s.rivals = c.choose(s.scaler, selector, s.pods); len(s.rivals) < 2 {
		s.measured = c.api.measure(ctx, s.scaler, selector)
	}
}

// choose pods for an autoscaler and say which autoscalers have chosen any of them.
func (c *Controller) choose(h *autoscalingv2.HorizontalPodAutoscaler, selector labels.Selector, pods []*corev1.Pod) (rivals []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.workers[client.Key(h.Namespace, h.Name)] == nil {
		return nil // it is gone
	}
	of := c.chosen[h.Namespace]
	if of == nil {
		of = map[string]labels.Selector{}
		c.chosen[h.Namespace] = of
	}
	of[h.Name] = selector
	for name, sel := range of {
		if name == h.Name && len(pods) > 0 || slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return sel.Matches(labels.Set(p.Labels)) }) {
			rivals = append(rivals, "{"+name+" "+h.Namespace+"}")
		}
	}
	slices.SortFunc(rivals, strings.Compare)
	return rivals
}

func (c *Controller) tell(about corev1.ObjectReference, n note) {
	if n.kind == corev1.EventTypeNormal {
		c.record.Normal(about, n.reason, "%s", n.message)
	} else {
		c.record.Warning(about, n.reason, "%s", n.message)
	}
}

// finish a plan: its status is written and its events are told.
func (c *Controller) finish(ctx context.Context, w *worker, h *autoscalingv2.HorizontalPodAutoscaler, p *plan) error {
	w.history = p.history
	about := event.Ref(c.scalers.Kind(), h)
	for _, n := range p.events {
		c.tell(about, n)
	}
	if equality.Semantic.DeepEqual(h.Status, p.status) {
		return p.err
	}
	out := h.DeepCopy()
	out.Status = p.status
	if _, err := c.scalers.UpdateStatus(ctx, out); err != nil {
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			c.record.Warning(about, "FailedUpdateStatus", "%v", err)
		}
		return err
	}
	return p.err
}
