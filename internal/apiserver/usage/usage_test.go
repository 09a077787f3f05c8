package usage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
	"github.com/proa-dev/proa/internal/cache"
)

// reader is a cache of a few objects.
type reader struct {
	cache.Reader
	all []api.Object
}

func (r *reader) Get(namespace, name string) *cache.Item {
	for _, o := range r.all {
		if o.GetNamespace() == namespace && o.GetName() == name {
			return &cache.Item{Object: o}
		}
	}
	return nil
}
func (r *reader) Snapshot() cache.Snapshot { return (*snapshot)(r) }

type snapshot reader

func (s *snapshot) Ascend(namespace, _, _ string, visit func(*cache.Item) bool) {
	for _, o := range s.all {
		if namespace == "" || o.GetNamespace() == namespace {
			visit(&cache.Item{Object: o})
		}
	}
}
func (s *snapshot) Get(ns, name string) *cache.Item               { return (*reader)(s).Get(ns, name) }
func (s *snapshot) Revision() int64                               { return 1 }
func (s *snapshot) Len() int                                      { return len(s.all) }
func (s *snapshot) ByIndex(_, _ string, _ func(*cache.Item) bool) {}
func (s *snapshot) Count(string) int                              { return len(s.all) }

// world is a cluster whose nodes have run since time 0. Each container uses
// half a core, each node one and a half.
type world struct {
	t     *testing.T
	meter *Meter

	mu    sync.Mutex
	now   time.Time
	asked []string // nodes, in order
	down  map[string]bool
	why   error                // … they are
	fresh map[string]time.Time // containers that started later, by pod
	write func([]byte)         // is shown what nodes answer
}

var zero = time.Unix(1_000_000, 0)

func newWorld(t *testing.T, nodes, pods int) *world {
	w := &world{t: t, now: zero.Add(time.Hour), down: map[string]bool{}, fresh: map[string]time.Time{}}
	var n, p reader
	for i := range nodes {
		n.all = append(n.all, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", i), Labels: map[string]string{"i": fmt.Sprint(i)}}})
	}
	for i := range pods {
		p.all = append(p.all, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: []string{"a", "b"}[i%2], Name: fmt.Sprint("p", i), Labels: map[string]string{"app": []string{"x", "y", "z"}[i%3]}},
			Spec:       corev1.PodSpec{NodeName: fmt.Sprint("n", i%nodes), Containers: []corev1.Container{{Name: "one"}, {Name: "two"}}},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning},
		})
	}
	m := New(Config{Nodes: &n, Pods: &p, Log: slog.New(slog.DiscardHandler)})
	m.now = func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now }
	m.pause = func(_ context.Context, d time.Duration) { w.pass(d) }
	m.scrape = w.scrape
	w.meter = m
	return w
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) scrape(_ context.Context, n *corev1.Node) (*shot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, n.Name)
	if w.down[n.Name] {
		return nil, w.why
	}
	var b strings.Builder
	line := func(name, labels string, v float64) {
		fmt.Fprintf(&b, "%s%s %v %d\n", name, labels, v, w.now.UnixMilli())
	}
	line("node_cpu_usage_seconds_total", "", 1.5*w.now.Sub(zero).Seconds())
	line("node_memory_working_set_bytes", "", 1<<30)
	for _, o := range w.meter.cfg.Pods.(*reader).all {
		p := o.(*corev1.Pod)
		if p.Spec.NodeName != n.Name {
			continue
		}
		start := zero
		if at, ok := w.fresh[p.Name]; ok {
			start = at
		}
		for _, c := range p.Spec.Containers {
			labels := fmt.Sprintf("{container=%q,namespace=%q,pod=%q}", c.Name, p.Namespace, p.Name)
			line("container_cpu_usage_seconds_total", labels, .5*w.now.Sub(start).Seconds())
			line("container_memory_working_set_bytes", labels, 64<<20)
			fmt.Fprintf(&b, "container_start_time_seconds%s %d\n", labels, start.Unix())
		}
	}
	if w.write != nil {
		w.write([]byte(b.String()))
	}
	return parse([]byte(b.String()), w.now)
}

// took is which nodes were asked since the last call.
func (w *world) took() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.asked = nil }()
	slices.Sort(w.asked)
	return strings.Join(w.asked, " ")
}

func (w *world) list(namespace string, want verbs.Selector) string {
	w.t.Helper()
	all, err := w.meter.Pods().List(context.Background(), namespace, want)
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, o := range all {
		m := o.(*metricsv1beta1.PodMetrics)
		names = append(names, m.Name)
		if len(m.Containers) != 2 || m.Containers[0].Name != "one" || m.Containers[1].Usage.Cpu().String() != "500m" || m.Containers[0].Usage.Memory().String() != "64Mi" {
			w.t.Errorf("%+v", m)
		}
	}
	return strings.Join(names, " ")
}

func TestNobodyIsAskedTwice(t *testing.T) {
	w := newWorld(t, 2, 4)
	if got := w.list("", verbs.Selector{}); got != "p0 p1 p2 p3" {
		t.Error(got)
	}
	if got := w.took(); got != "n0 n0 n1 n1" {
		t.Errorf("two readings of each were needed, not %q", got)
	}
	w.pass(maxAge - time.Second)
	nodes, err := w.meter.Nodes().List(context.Background(), "", verbs.Selector{})
	if err != nil || len(nodes) != 2 {
		t.Fatal(nodes, err)
	}
	if got := w.took(); got != "" {
		t.Errorf("%s were asked although their answers are fresh", got)
	}
	n := nodes[0].(*metricsv1beta1.NodeMetrics)
	if n.Usage.Cpu().String() != "1500m" || n.Usage.Memory().String() != "1Gi" || n.Labels["i"] != "0" || n.Window.Duration != apart {
		t.Errorf("%+v", n)
	}
	w.pass(15 * time.Second)
	w.list("", verbs.Selector{})
	if got := w.took(); got != "n0 n1" {
		t.Errorf("one more reading is enough, not %q", got)
	}
	one, err := w.meter.Pods().Get(context.Background(), "a", "p0")
	if err != nil {
		t.Fatal(err)
	}
	p := one.(*metricsv1beta1.PodMetrics)
	if want := maxAge - time.Second + 15*time.Second; p.Window.Duration != want || !p.Timestamp.Time.Equal(w.now) || p.Labels["app"] != "x" {
		t.Errorf("window %s, timestamp %s, now %s", p.Window, p.Timestamp, w.now)
	}
	// After a long while the old readings say nothing.
	w.pass(time.Hour)
	w.list("", verbs.Selector{})
	if got := w.took(); got != "n0 n0 n1 n1" {
		t.Errorf("asked %q", got)
	}
}

func TestOnlyNodesOfThePods(t *testing.T) {
	w := newWorld(t, 4, 12)
	app, _ := labels.Parse("app=x")
	for _, c := range []struct {
		namespace, field, pods, asked string
	}{
		{"a", "", "p0 p6", "n0 n0 n2 n2"},
		{"b", "", "p3 p9", "n1 n1 n3 n3"},
		{"", "metadata.name=p6", "p6", ""},
		{"", "metadata.namespace=b", "p3 p9", ""},
	} {
		want := verbs.Selector{Labels: app}
		if c.field != "" {
			want.Fields = fields.ParseSelectorOrDie(c.field)
		}
		if got := w.list(c.namespace, want); got != c.pods {
			t.Errorf("%+v: %s", c, got)
		}
		if got := w.took(); got != c.asked {
			t.Errorf("%+v: asked %q", c, got)
		}
	}
	_, err := w.meter.Pods().Get(context.Background(), "a", "nobody")
	if !apierrors.IsNotFound(err) || err.Error() != `pods "a/nobody" not found` {
		t.Error(err)
	}
	w.meter.cfg.Pods.(*reader).all[0].(*corev1.Pod).Status.Phase = corev1.PodPending
	_, err = w.meter.Pods().Get(context.Background(), "a", "p0")
	if !apierrors.IsNotFound(err) || err.Error() != `podmetrics.metrics.k8s.io "a/p0" not found` {
		t.Error(err)
	}
}

func TestNodeThatDoesNotAnswer(t *testing.T) {
	w := newWorld(t, 2, 4)
	w.down["n1"], w.why = true, errors.New("connection refused")
	for _, want := range []string{"n0 n0 n1 n1", "n1 n1"} { // it costs nobody time: asked each time
		if got := w.list("", verbs.Selector{}); got != "p0 p2" {
			t.Error(got)
		}
		if got := w.took(); got != want {
			t.Errorf("asked %q", got)
		}
	}
	w.why = context.DeadlineExceeded
	if got := w.list("", verbs.Selector{}); got != "p0 p2" {
		t.Error(got)
	}
	if got := w.took(); got != "n1" {
		t.Errorf("asked %q", got)
	}
	// Nobody waits for it any more, but it is asked.
	w.mu.Lock()
	w.down["n1"] = false
	w.mu.Unlock()
	if got := w.list("", verbs.Selector{}); got != "p0 p2" {
		t.Error(got)
	}
	n := w.meter.state("n1")
	for deadline := time.Now().Add(10 * time.Second); ; {
		n.mu.Lock()
		failed := n.failed
		n.mu.Unlock()
		if !failed {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it was not asked again")
		}
	}
	if got := w.list("", verbs.Selector{}); got != "p0 p1 p2 p3" {
		t.Error(got)
	}
	_, err := w.meter.Nodes().Get(context.Background(), "", "n7")
	if !apierrors.IsNotFound(err) || err.Error() != `nodes "n7" not found` {
		t.Error(err)
	}
}

func TestManyAskAtOnce(t *testing.T) {
	w := newWorld(t, 3, 30)
	w.list("", verbs.Selector{})
	w.took()
	w.pass(20 * time.Second)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { w.list("", verbs.Selector{}) })
	}
	wg.Wait()
	if got := w.took(); got != "n0 n1 n2" {
		t.Errorf("asked %q", got)
	}
}

func TestYoungContainers(t *testing.T) {
	w := newWorld(t, 1, 2)
	w.list("", verbs.Selector{})
	w.pass(15 * time.Second)
	w.fresh["p1"] = w.now.Add(-5 * time.Second)
	if got := w.list("", verbs.Selector{}); got != "p0 p1" {
		t.Errorf("%s: what p1 has used since it started is known", got)
	}
	p, err := w.meter.Pods().Get(context.Background(), "b", "p1")
	if err != nil || p.(*metricsv1beta1.PodMetrics).Window.Duration != 5*time.Second {
		t.Errorf("%+v %v", p, err)
	}
	w.pass(15 * time.Second)
	w.fresh["p1"] = w.now
	if got := w.list("", verbs.Selector{}); got != "p0" {
		t.Errorf("%s: what has just started says nothing", got)
	}
}

func TestEverythingIsForgotten(t *testing.T) {
	w := newWorld(t, 2, 2)
	closed := false
	w.meter.idle = func() { closed = true }
	w.list("a", verbs.Selector{})
	w.pass(unused)
	w.list("b", verbs.Selector{})
	w.meter.forget()
	if len(w.meter.nodes) != 1 || w.meter.sweep == nil || closed {
		t.Errorf("%d nodes are known; only that of namespace b is still of use", len(w.meter.nodes))
	}
	w.pass(unused)
	w.meter.forget()
	if len(w.meter.nodes) != 0 || w.meter.sweep != nil || !closed {
		t.Errorf("%d nodes are known, timer %v, connections closed: %v", len(w.meter.nodes), w.meter.sweep, closed)
	}
}

func TestParse(t *testing.T) {
	now := time.UnixMilli(5_000_000)
	s, err := parse([]byte(`# HELP node_cpu_usage_seconds_total x
node_cpu_usage_seconds_total{} 3346.7 1795268711346
node_memory_working_set_bytes 1.457995776e+09 1795268711346
container_cpu_usage_seconds_total{container="c",namespace="ns",pod="p"} 0.25 1795268711343
container_memory_working_set_bytes{pod="p", namespace="ns", container="c",} 1024
container_start_time_seconds{container="c",namespace="ns",pod="p"} 1.79526871e+09
container_memory_working_set_bytes{container="a\"b",namespace="ns",pod="p"} 5
pod_cpu_usage_seconds_total{namespace="ns",pod="p"} 0.08 1795268711343`), now)
	if err != nil {
		t.Fatal(err)
	}
	c := s.pods[pod{"ns", "p"}]["c"]
	if c.cpu != .25 || c.memory != 1024 || c.start != 1.79526871e9 || c.at != time.UnixMilli(1795268711343) || c.has != whole {
		t.Errorf("%+v", c)
	}
	if s.node.cpu != 3346.7 || s.node.memory != 1457995776 || s.node.has != whole {
		t.Errorf("%+v", s.node)
	}
	if odd := s.pods[pod{"ns", "p"}][`a"b`]; odd.memory != 5 || odd.at != now || odd.has != hasMemory {
		t.Errorf("%+v", odd)
	}
	for _, bad := range []string{
		"node_cpu_usage_seconds_total x", "node_cpu_usage_seconds_total NaN", "node_cpu_usage_seconds_total 1 soon",
		"container_cpu_usage_seconds_total 1", `container_cpu_usage_seconds_total{container=c} 1`, `container_cpu_usage_seconds_total{container="c 1`,
	} {
		if _, err := parse([]byte(bad), now); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`container_cpu_usage_seconds_total{container="c\\",namespace="ns",pod="p"} 0.25 1795268711343`))
	f.Fuzz(func(t *testing.T, text []byte) { parse(text, zero) })
}

func BenchmarkParse(b *testing.B) {
	w := newWorld(&testing.T{}, 1, 110)
	var text []byte
	w.write = func(b []byte) { text = b }
	w.scrape(b.Context(), w.meter.cfg.Nodes.(*reader).all[0].(*corev1.Node))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if s, err := parse(text, zero); err != nil || len(s.pods) != 110 {
			b.Fatal(err)
		}
	}
}
