// Package controllertest runs controllers on a real API server that keeps
// everything in memory, over a connection that fails at random (Shaky): writes
// and reads fail, watches are late, repeat themselves and break off. What fails
// when follows from a seed, which a test that fails prints: run it again with
// PROA_SEED=….
package controllertest

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
// fail, before or after they are done; 0 = no faults of any kind.
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
	shaky := newShaky(t, conn, fail)
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

// Settles waits until a condition holds and nobody writes any more, and sees that
// it still holds then: a controller that goes to and fro does not settle, nor one
// that is woken by what it writes itself for ever.
func (c *Cluster) Settles(what string, ok func() bool) {
	c.T.Helper()
	c.Until(what, ok)
	const rest = 20 // looks, of 5 ms each, in which nothing happens
	last, calm := c.at(), 0
	c.Until("rest after: "+what, func() bool {
		now := c.at()
		if now != last || !ok() {
			last, calm = now, 0
		} else {
			calm++
		}
		return calm >= rest
	})
}

// moment is how far writing has come.
type moment struct {
	revision string
	writes   int64 // that were tried
}

func (c *Cluster) at() moment {
	c.T.Helper()
	_, revision, err := c.Conn.List(c.T.Context(), client.For[*corev1.Namespace](c.Conn).Kind(), "", client.ListOptions{})
	if err != nil {
		c.T.Fatal(err)
	}
	return moment{revision, c.Shaky.tried.Load()}
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

// Delete an object, which may be gone already.
func Delete[T api.Object](c *Cluster, namespace, name string, opt metav1.DeleteOptions) {
	c.T.Helper()
	if err := client.For[T](c.Conn).Delete(c.T.Context(), namespace, name, opt); err != nil && !apierrors.IsNotFound(err) {
		c.T.Fatal(err)
	}
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

// Kubelet plays the nodes: pods get an address, become running and ready on the node they are
// bound or pinned to, and go when they are deleted. end decides the phase of a
// pod, "" = Running.
func (c *Cluster) Kubelet(end func(*corev1.Pod) corev1.PodPhase) {
	pods := client.For[*corev1.Pod](c.Conn)
	var addresses atomic.Int32 // given away
	Play[*corev1.Pod](c, "kubelet", 2, func(ctx context.Context, key string) (time.Duration, error) {
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
		n := addresses.Add(1)
		out.Status.PodIP = fmt.Sprintf("10.1.%d.%d", n>>8, n&0xff)
		out.Status.PodIPs = []corev1.PodIP{{IP: out.Status.PodIP}}
		ready := corev1.ConditionTrue
		if phase != corev1.PodRunning {
			ready = corev1.ConditionFalse
		}
		out.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Now()}}
		_, err = pods.UpdateStatus(ctx, out)
		return 0, err
	})
}

// Play the part of something outside that is told of the objects of a kind and
// writes without faults, with so many workers, until the test ends.
func Play[T api.Object](c *Cluster, name string, workers int, reconcile loop.Reconcile) {
	inf := client.NewInformer[T](c.Conn, client.Scope{})
	q := loop.NewQueue(name, Log())
	var none T
	inf.OnChange(func(_, now T) {
		if api.Object(now) != api.Object(none) {
			q.AddObject(now)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = inf.Run(ctx) })
	wg.Go(func() { _ = q.Run(ctx, workers, reconcile, inf.Synced()) })
	c.T.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}
