// Package controllertest runs controllers on a real API server that keeps
// everything in memory, over a connection whose writes may fail at random.
package controllertest

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver"
	"github.com/proa-dev/proa/internal/apiserver/inprocess"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/local"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/store"
	"github.com/proa-dev/proa/internal/store/memory"
)

// Cluster under test.
type Cluster struct {
	T         testing.TB
	Conn      client.Conn // writes never fail by chance
	Shaky     *Shaky      // what the controllers use
	Informers *client.Informers
	API       http.RoundTripper // the API over its paths; fails never by chance
}

// New cluster with the namespace "default". fail is how many writes of a hundred
// fail, before or after they are done.
func New(t testing.TB, fail int) *Cluster {
	t.Helper()
	catalog, st := kinds.Catalog(), memory.New()
	c := cache.New(cache.Config{Store: st, Catalog: catalog, Decode: func(k *api.Kind, e store.Entry) (api.Object, error) {
		return wire.DecodeStorage(k, e.Value, e.Revision)
	}})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		_ = st.Close()
	})
	srv, err := apiserver.New(apiserver.Config{Catalog: catalog, Cache: c, Store: st})
	if err != nil {
		t.Fatal(err)
	}
	user := &inprocess.User{Verbs: srv.Verbs(), User: &request.User{Name: "test", Groups: []string{request.Masters}}}
	conn := local.New(local.Config{Server: user, Cache: c, Catalog: catalog, Manager: "test"})
	if _, err := client.For[*corev1.Namespace](conn).Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}); err != nil {
		t.Fatal(err)
	}
	shaky := &Shaky{Conn: conn}
	shaky.Percent.Store(int64(fail))
	return &Cluster{T: t, Conn: conn, Shaky: shaky, Informers: client.NewInformers(shaky), API: srv.Transport(user.User)}
}

// Run controllers until the test ends.
func (c *Cluster) Run(all ...loop.Controller) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Informers.Run(ctx) })
	for _, one := range all {
		wg.Go(func() { _ = one.Run(ctx) })
	}
	c.T.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// Log for controllers under test.
func Log() *slog.Logger { return slog.New(slog.DiscardHandler) }

// Until a condition holds; it is asked again after every change of any object of
// the kinds it depends on, in effect: often.
func (c *Cluster) Until(what string, ok func() bool) {
	c.T.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			c.T.Fatalf("not reached in 30 s: %s", what)
		case <-tick.C:
		}
	}
}

// Create an object.
func Create[T api.Object](c *Cluster, obj T) T {
	c.T.Helper()
	out, err := client.For[T](c.Conn).Create(c.T.Context(), obj)
	if err != nil {
		c.T.Fatal(err)
	}
	return out
}

// Get an object, the zero value if there is none.
func Get[T api.Object](c *Cluster, namespace, name string) T {
	c.T.Helper()
	out, err := client.For[T](c.Conn).Get(c.T.Context(), namespace, name)
	if err != nil && !apierrors.IsNotFound(err) {
		c.T.Fatal(err)
	}
	return out
}

// List all objects of a type.
func List[T api.Object](c *Cluster) []T {
	c.T.Helper()
	out, err := client.For[T](c.Conn).List(c.T.Context(), "", client.ListOptions{})
	if err != nil {
		c.T.Fatal(err)
	}
	return out
}

// Change an object; sub "" or "status".
func Change[T api.Object](c *Cluster, namespace, name, sub string, f func(T)) T {
	c.T.Helper()
	cl := client.For[T](c.Conn)
	for {
		have, err := cl.Get(c.T.Context(), namespace, name)
		if err != nil {
			c.T.Fatal(err)
		}
		out := have.DeepCopyObject().(T)
		f(out)
		got, err := c.Conn.Update(c.T.Context(), cl.Kind(), out, client.WriteOptions{Subresource: sub})
		if apierrors.IsConflict(err) {
			continue
		}
		if err != nil {
			c.T.Fatal(err)
		}
		return got.(T)
	}
}

// Kubelet plays the nodes: pods become running and ready on the node they are
// bound or pinned to, and go when they are deleted. end decides the phase of a
// pod, "" = Running.
func (c *Cluster) Kubelet(end func(*corev1.Pod) corev1.PodPhase) {
	pods := client.For[*corev1.Pod](c.Conn)
	inf := client.NewInformer[*corev1.Pod](c.Conn, client.Scope{})
	q := loop.NewQueue("kubelet", Log())
	inf.OnChange(func(_, now *corev1.Pod) {
		if now != nil {
			q.AddObject(now)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = inf.Run(ctx) })
	wg.Go(func() {
		_ = q.Run(ctx, 2, func(ctx context.Context, key string) (time.Duration, error) {
			namespace, name := loop.Split(key)
			p, err := pods.Get(ctx, namespace, name)
			if err != nil {
				return 0, nil
			}
			zero := int64(0)
			if p.DeletionTimestamp != nil {
				if p.DeletionGracePeriodSeconds != nil && *p.DeletionGracePeriodSeconds == 0 {
					return 0, nil // only finalizers hold it
				}
				return 0, pods.Delete(ctx, namespace, name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
			}
			phase := corev1.PodRunning
			if end != nil {
				if to := end(p); to != "" {
					phase = to
				}
			}
			if p.Status.Phase == phase || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
				return 0, nil
			}
			out := p.DeepCopy()
			out.Status.Phase = phase
			ready := corev1.ConditionTrue
			if phase != corev1.PodRunning {
				ready = corev1.ConditionFalse
			}
			out.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Now()}}
			_, err = pods.UpdateStatus(ctx, out)
			return 0, err
		}, inf.Synced())
	})
	c.T.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// Shaky is a Conn that fails some writes, and whose lists can be made to forget.
type Shaky struct {
	client.Conn
	Percent atomic.Int64 // of writes that fail
	Forget  atomic.Bool  // lists of pods are empty
}

var errShaky = errors.New("failed by chance")

// chance says whether a write fails, and whether it is done all the same.
func (s *Shaky) chance() (fails, done bool) {
	n := rand.Int64N(100)
	return n < s.Percent.Load(), n%2 == 0
}

func (s *Shaky) write(f func() (api.Object, error)) (api.Object, error) {
	fails, done := s.chance()
	if fails && !done {
		return nil, errShaky
	}
	out, err := f()
	if fails && err == nil {
		return nil, errShaky
	}
	return out, err
}

// List implements client.Conn.
func (s *Shaky) List(ctx context.Context, k *api.Kind, namespace string, opt client.ListOptions) ([]api.Object, string, error) {
	out, rev, err := s.Conn.List(ctx, k, namespace, opt)
	if s.Forget.Load() && k.Resource == "pods" {
		out = nil
	}
	return out, rev, err
}

// Create implements client.Conn.
func (s *Shaky) Create(ctx context.Context, k *api.Kind, obj api.Object, opt client.WriteOptions) (api.Object, error) {
	return s.write(func() (api.Object, error) { return s.Conn.Create(ctx, k, obj, opt) })
}

// Update implements client.Conn.
func (s *Shaky) Update(ctx context.Context, k *api.Kind, obj api.Object, opt client.WriteOptions) (api.Object, error) {
	return s.write(func() (api.Object, error) { return s.Conn.Update(ctx, k, obj, opt) })
}

// Patch implements client.Conn.
func (s *Shaky) Patch(ctx context.Context, k *api.Kind, namespace, name string, p client.Patch, opt client.WriteOptions) (api.Object, error) {
	return s.write(func() (api.Object, error) { return s.Conn.Patch(ctx, k, namespace, name, p, opt) })
}

// Delete implements client.Conn.
func (s *Shaky) Delete(ctx context.Context, k *api.Kind, namespace, name string, opt metav1.DeleteOptions) error {
	_, err := s.write(func() (api.Object, error) { return nil, s.Conn.Delete(ctx, k, namespace, name, opt) })
	return err
}

// Post implements client.Conn.
func (s *Shaky) Post(ctx context.Context, k *api.Kind, namespace, name, sub string, body runtime.Object) (runtime.Object, error) {
	return s.Conn.Post(ctx, k, namespace, name, sub, body)
}
