package simulate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver"
	"github.com/proa-dev/proa/internal/apiserver/inprocess"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/local"
	"github.com/proa-dev/proa/internal/controller/daemonset"
	"github.com/proa-dev/proa/internal/controller/deployment"
	"github.com/proa-dev/proa/internal/controller/job"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/replicaset"
	"github.com/proa-dev/proa/internal/controller/statefulset"
	"github.com/proa-dev/proa/internal/scheduler"
	"github.com/proa-dev/proa/internal/store"
	"github.com/proa-dev/proa/internal/store/memory"
)

// writers is how many clients make objects at the same time.
const writers = 8

// onServer runs the simulation on an API server in this process.
func (c *Config) onServer(parent context.Context, nodes []*corev1.Node) (*Result, error) {
	log := c.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	st := memory.New()
	defer st.Close()
	ctx, cancel := context.WithCancel(parent)
	g, ctx := errgroup.WithContext(ctx)
	defer g.Wait()
	defer cancel()
	conn, err := serve(ctx, g, st)
	if err != nil {
		return nil, err
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: corev1.NamespaceDefault}}
	if _, err := client.For[*corev1.Namespace](conn).Create(ctx, ns); err != nil {
		return nil, err
	}
	if err := each(ctx, nodes, func(n *corev1.Node) error {
		_, err := client.For[*corev1.Node](conn).Create(ctx, n.DeepCopy())
		return err
	}); err != nil {
		return nil, err
	}
	inf := client.NewInformers(conn)
	watch := newWatcher(inf)
	all := []loop.Controller{
		deployment.New(inf, log), replicaset.New(inf, log), replicaset.NewReplication(inf, log), statefulset.New(inf, log),
		daemonset.New(inf, log), job.New(inf, log), watch,
		scheduler.New(scheduler.Config{Informers: inf, Configuration: c.Scheduler, Seed: c.Seed, Logger: log}),
	}
	for _, one := range all {
		g.Go(func() error { return one.Run(ctx) })
	}
	g.Go(func() error { return inf.Run(ctx) })
	if err := inf.WaitSynced(ctx); err != nil {
		return nil, err
	}
	began := time.Now()
	for _, o := range c.Objects {
		if err := create(ctx, conn, o); err != nil {
			return nil, fmt.Errorf("%s %s: %w", o.GetObjectKind().GroupVersionKind().Kind, o.GetName(), err)
		}
	}
	numbers := make([]int, c.Pods)
	for i := range numbers {
		numbers[i] = i
	}
	if err := each(ctx, numbers, func(i int) error { return create(ctx, conn, c.like(i)) }); err != nil {
		return nil, err
	}
	if err := watch.settled(ctx, c.Settle); err != nil {
		return nil, err
	}
	return c.countUp(watch, nodes, began), nil
}

func (c *Config) countUp(watch *watcher, nodes []*corev1.Node, began time.Time) *Result {
	t, why := newTally(c.Shapes, nodes), map[string]int{}
	for _, p := range watch.pods.List("", nil) {
		t.pod(p)
		for _, cond := range p.Status.Conditions {
			if p.Spec.NodeName == "" && cond.Type == corev1.PodScheduled && cond.Status == corev1.ConditionFalse {
				why[cond.Message]++
			}
		}
	}
	return t.result(max(0, time.Unix(0, watch.bound.Load()).Sub(began)), why)
}

func serve(ctx context.Context, g *errgroup.Group, st store.Store) (client.Conn, error) {
	catalog := kinds.Catalog()
	ch := cache.New(cache.Config{Store: st, Catalog: catalog, Decode: func(k *api.Kind, e store.Entry) (api.Object, error) {
		return wire.DecodeStorage(k, e.Value, e.Revision)
	}})
	g.Go(func() error { return ch.Run(ctx) })
	srv, err := apiserver.New(apiserver.Config{Catalog: catalog, Cache: ch, Store: st})
	if err != nil {
		return nil, err
	}
	user := &inprocess.User{Verbs: srv.Verbs(), User: &request.User{Name: "simulate", Groups: []string{request.Masters}}}
	return local.New(local.Config{Server: user, Cache: ch, Catalog: catalog}), nil
}

func create(ctx context.Context, conn client.Conn, obj api.Object) error {
	k, ok := conn.Catalog().Type(obj)
	if !ok {
		return fmt.Errorf("no kind is stored as %T", obj)
	}
	_, err := conn.Create(ctx, k, obj.DeepCopyObject().(api.Object), client.WriteOptions{})
	if apierrors.IsAlreadyExists(err) && k.GroupVersionKind.Kind == "Namespace" {
		return nil
	}
	return err
}

// each does something for every item, several at a time.
func each[T any](ctx context.Context, all []T, do func(T) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for _, one := range all {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return do(one) })
	}
	return g.Wait()
}

// watcher is all kubelets in one: it says of each pod that is bound that it runs
// and is ready. And it knows when nothing happens any more.
type watcher struct {
	pods   *client.Informer[*corev1.Pod]
	client client.Client[*corev1.Pod]
	last   atomic.Int64 // when something happened, in ns
	bound  atomic.Int64 // when a pod was bound

	mu   sync.Mutex
	todo []*corev1.Pod
	wake chan struct{}
}

func newWatcher(inf *client.Informers) *watcher {
	w := &watcher{pods: client.Shared[*corev1.Pod](inf, client.Scope{}), client: client.For[*corev1.Pod](inf.Conn()), wake: make(chan struct{}, 1)}
	w.last.Store(time.Now().UnixNano())
	w.pods.OnChange(func(old, now *corev1.Pod) {
		w.last.Store(time.Now().UnixNano())
		if now == nil || now.Spec.NodeName == "" || old != nil && old.Spec.NodeName != "" {
			return
		}
		w.bound.Store(time.Now().UnixNano())
		w.mu.Lock()
		w.todo = append(w.todo, now)
		w.mu.Unlock()
		select {
		case w.wake <- struct{}{}:
		default:
		}
	})
	return w
}

// Run until ctx ends.
func (w *watcher) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.wake:
		}
		w.mu.Lock()
		todo := w.todo
		w.todo = nil
		w.mu.Unlock()
		if err := each(ctx, todo, func(p *corev1.Pod) error { return w.ready(ctx, p) }); err != nil {
			return err
		}
	}
}

func (w *watcher) ready(ctx context.Context, p *corev1.Pod) error {
	now := metav1.Now()
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"phase": corev1.PodRunning, "startTime": now, "conditions": []corev1.PodCondition{
		{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now},
	}}})
	if err != nil {
		return err
	}
	_, err = w.client.Patch(ctx, p.Namespace, p.Name, client.Patch{Type: types.StrategicMergePatchType, Data: patch}, client.WriteOptions{Subresource: "status"})
	if apierrors.IsNotFound(err) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// settled waits until nothing has happened to any pod for a while.
func (w *watcher) settled(ctx context.Context, quiet time.Duration) error {
	for {
		left := quiet - time.Since(time.Unix(0, w.last.Load()))
		if left <= 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(left):
		}
	}
}
