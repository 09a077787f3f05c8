package clienttest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/proa-dev/proa/internal/client"
)

// heard collects what a handler is told.
type heard struct {
	mu   sync.Mutex
	all  []string
	more chan struct{}
}

func newHeard() *heard { return &heard{more: make(chan struct{}, 1)} }

func (h *heard) pod(old, now *corev1.Pod) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case old == nil:
		h.all = append(h.all, "+"+now.Name)
	case now == nil:
		h.all = append(h.all, "-"+old.Name)
	default:
		h.all = append(h.all, "~"+now.Name)
	}
	select {
	case h.more <- struct{}{}:
	default:
	}
}

func (h *heard) wait(t *testing.T, want ...string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		h.mu.Lock()
		got := slices.Clone(h.all)
		h.mu.Unlock()
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-h.more:
		case <-timeout:
			t.Fatalf("heard %v, want %v", got, want)
		}
	}
}

func run(t *testing.T, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = f(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func synced(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatal("never synced")
	}
}

func informers(t *testing.T, conn client.Conn) {
	pods, ctx := client.For[*corev1.Pod](conn), t.Context()
	p := pod("i-one", "i-node")
	p.Labels = map[string]string{"i": "1"}
	must(pods.Create(ctx, p))(t)
	must(pods.Create(ctx, pod("i-elsewhere", "i-other")))(t)
	i := client.NewInformer[*corev1.Pod](conn, client.Scope{Index: "spec.nodeName", Value: "i-node"})
	h := newHeard()
	i.OnChange(h.pod)
	if i.Len() != 0 || i.List("", nil) != nil {
		t.Error("something is there before Run")
	}
	run(t, i.Run)
	synced(t, i.Synced())
	h.wait(t, "+i-one")
	if _, ok := i.Get("default", "i-one"); !ok {
		t.Error("what was told is not there")
	}
	if _, ok := i.Get("default", "i-elsewhere"); ok {
		t.Error("what is not in the scope is there")
	}
	if l := i.List("default", labels.SelectorFromSet(labels.Set{"i": "1"})); len(l) != 1 || l[0].Name != "i-one" {
		t.Error("list:", l)
	}
	if l := i.List("elsewhere", nil); len(l) != 0 {
		t.Error("list elsewhere:", l)
	}
	if l := i.ByIndex("spec.nodeName", "i-node"); len(l) != 1 || i.Len() != 1 {
		t.Error("by index:", l, i.Len())
	}
	if l := i.ByIndex("spec.nodeName", "i-other"); len(l) != 0 {
		t.Error("by index, out of the scope:", l)
	}
	var none int64
	if err := pods.Delete(ctx, "default", "i-one", metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
		t.Fatal(err)
	}
	h.wait(t, "+i-one", "-i-one")
	if i.Len() != 0 {
		t.Error("still there")
	}
}

func lateHandler(t *testing.T, conn client.Conn) {
	pods, ctx := client.For[*corev1.Pod](conn), t.Context()
	i := client.NewInformer[*corev1.Pod](conn, client.Scope{Index: "spec.nodeName", Value: "late-node"})
	run(t, i.Run)
	synced(t, i.Synced())
	made := must(pods.Create(ctx, pod("late-one", "late-node")))(t)
	early := newHeard()
	i.OnChange(early.pod) // before or after the informer has heard of it: it is told once
	change := made.DeepCopy()
	change.Labels = map[string]string{"x": "y"}
	must(pods.Update(ctx, change))(t)
	early.wait(t, "+late-one", "~late-one")
	late := newHeard()
	i.OnChange(late.pod)
	late.wait(t, "+late-one")
	var none int64
	if err := pods.Delete(ctx, "default", "late-one", metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
		t.Fatal(err)
	}
	late.wait(t, "+late-one", "-late-one")
	early.wait(t, "+late-one", "~late-one", "-late-one")
}

func shared(t *testing.T, conn client.Conn) {
	all := client.NewInformers(conn)
	a, b := client.Shared[*corev1.Pod](all, client.Scope{}), client.Shared[*corev1.Pod](all, client.Scope{})
	if a != b {
		t.Error("two informers for one type and scope")
	}
	run(t, all.Run)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := all.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	later := client.Shared[*corev1.Secret](all, client.Scope{})
	synced(t, later.Synced())
}
