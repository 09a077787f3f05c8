// Package usage tells what nodes and pods use now (metrics.k8s.io). It asks
// kubelets when somebody asks it, and keeps their answers for ten seconds: while
// nobody asks, nothing happens. It needs two readings to tell how much CPU is
// used, so the first to ask waits a second; a node that does not answer is left
// out after three, and nobody waits so long for it again.
package usage

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
	"github.com/proa-dev/proa/internal/cache"
)

// Config of a Meter.
type Config struct {
	Nodes, Pods cache.Reader
	TLS         *tls.Config // shows the client certificate that kubelets know
	Log         *slog.Logger
}

// Meter tells what is used.
type Meter struct {
	cfg    Config
	scrape func(context.Context, *corev1.Node) (*shot, error)
	now    func() time.Time
	pause  func(context.Context, time.Duration) // until the second reading
	idle   func()                               // when nobody asks any more

	mu    sync.Mutex
	nodes map[string]*node
	sweep *time.Timer
}

// New meter.
func New(c Config) *Meter {
	t := transport(c.TLS)
	return &Meter{
		cfg: c, nodes: map[string]*node{}, now: time.Now, pause: pause, idle: t.CloseIdleConnections,
		scrape: func(ctx context.Context, n *corev1.Node) (*shot, error) { return scrape(ctx, t, n) },
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// Makers of NodeMetrics and PodMetrics: what the API server serves them by.
func (m *Meter) Nodes() *Nodes { return &Nodes{m} }
func (m *Meter) Pods() *Pods   { return &Pods{m} }

// Nodes makes NodeMetrics.
type Nodes struct{ m *Meter }

// Pods makes PodMetrics.
type Pods struct{ m *Meter }

// Get what one node uses.
func (n *Nodes) Get(ctx context.Context, _, name string) (api.Object, error) {
	item := n.m.cfg.Nodes.Get("", name)
	if item == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("nodes"), name)
	}
	node := item.Object.(*corev1.Node)
	views := n.m.look(ctx, []*corev1.Node{node})
	if made := nodeMetrics(node, views[name].base, views[name].last); made != nil {
		return made, nil
	}
	return nil, apierrors.NewNotFound(group("nodemetrics"), name)
}

// List what the nodes use that may match.
func (n *Nodes) List(ctx context.Context, _ string, want verbs.Selector) ([]api.Object, error) {
	var nodes []*corev1.Node
	visit(n.m.cfg.Nodes, "", want, func(obj api.Object) { nodes = append(nodes, obj.(*corev1.Node)) })
	views := n.m.look(ctx, nodes)
	var all []api.Object
	for _, node := range nodes {
		if made := nodeMetrics(node, views[node.Name].base, views[node.Name].last); made != nil {
			all = append(all, made)
		}
	}
	return all, ctx.Err()
}

// Get what one pod uses.
func (p *Pods) Get(ctx context.Context, namespace, name string) (api.Object, error) {
	item := p.m.cfg.Pods.Get(namespace, name)
	if item == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("pods"), namespace+"/"+name)
	}
	if all := p.of(ctx, []*corev1.Pod{item.Object.(*corev1.Pod)}); len(all) > 0 {
		return all[0], nil
	}
	return nil, apierrors.NewNotFound(group("podmetrics"), namespace+"/"+name)
}

// List what the pods use that may match.
func (p *Pods) List(ctx context.Context, namespace string, want verbs.Selector) ([]api.Object, error) {
	var pods []*corev1.Pod
	visit(p.m.cfg.Pods, namespace, want, func(obj api.Object) { pods = append(pods, obj.(*corev1.Pod)) })
	return p.of(ctx, pods), ctx.Err()
}

// of pods that run; only their nodes are asked.
func (p *Pods) of(ctx context.Context, pods []*corev1.Pod) []api.Object {
	var nodes []*corev1.Node
	on := map[string]bool{}
	for _, pod := range pods {
		name := pod.Spec.NodeName
		if pod.Status.Phase != corev1.PodRunning || on[name] {
			continue
		}
		on[name] = true
		if item := p.m.cfg.Nodes.Get("", name); item != nil {
			nodes = append(nodes, item.Object.(*corev1.Node))
		}
	}
	views := p.m.look(ctx, nodes)
	var all []api.Object
	for _, pod := range pods {
		if pod.Status.Phase != corev1.PodRunning {
			continue
		}
		if made := podMetrics(pod, views[pod.Spec.NodeName].base, views[pod.Spec.NodeName].last); made != nil {
			all = append(all, made)
		}
	}
	return all
}

func group(name string) schema.GroupResource {
	return metricsv1beta1.SchemeGroupVersion.WithResource(name).GroupResource()
}

// visit the objects that may match: what metrics are made of, by what these have
// of it, labels and names.
func visit(of cache.Reader, namespace string, want verbs.Selector, do func(api.Object)) {
	if want.Fields != nil {
		if ns, ok := want.Fields.RequiresExactMatch("metadata.namespace"); ok && namespace == "" {
			namespace = ns
		}
	}
	of.Snapshot().Ascend(namespace, "", "", func(i *cache.Item) bool {
		obj := i.Object
		if want.Labels != nil && !want.Labels.Matches(labels.Set(obj.GetLabels())) {
			return true
		}
		if want.Fields != nil && !want.Fields.Matches(fields.Set{"metadata.name": obj.GetName(), "metadata.namespace": obj.GetNamespace()}) {
			return true
		}
		do(obj)
		return true
	})
}

// state of a node, made if it is not there.
func (m *Meter) state(name string) *node {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[name]
	if n == nil {
		n = &node{}
		m.nodes[name] = n
	}
	return n
}

const (
	// apart are the two readings that are needed when there are none.
	apart = time.Second
	// atOnce so many nodes are asked.
	atOnce = 64
	// unused is how long after the last question everything is forgotten.
	unused = 2 * time.Minute
)

// look at nodes: their figures, as old as maxAge at most. Nodes that do not
// answer are not in it.
func (m *Meter) look(ctx context.Context, nodes []*corev1.Node) map[string]view {
	now := m.now()
	var stale, cold, quiet []*corev1.Node
	for _, n := range nodes {
		isStale, isCold, slow := m.state(n.Name).state(now)
		switch {
		case slow:
			quiet = append(quiet, n)
			continue
		case isStale:
			stale = append(stale, n)
		}
		if isCold {
			cold = append(cold, n)
		}
	}
	m.later()
	if len(quiet) > 0 { // they are asked again, but nobody waits
		go m.ask(context.WithoutCancel(ctx), quiet, now.Add(-maxAge))
	}
	m.ask(ctx, stale, now.Add(-maxAge))
	if len(cold) > 0 {
		m.pause(ctx, apart)
		again := cold[:0]
		for _, n := range cold {
			if _, isCold, slow := m.state(n.Name).state(m.now()); isCold && !slow {
				again = append(again, n)
			}
		}
		m.ask(ctx, again, m.now())
	}
	views := make(map[string]view, len(nodes))
	now = m.now()
	for _, n := range nodes {
		views[n.Name] = m.state(n.Name).view(now)
	}
	return views
}

// ask nodes at once whose shots are older than since; it returns when each has
// answered or its time is up.
func (m *Meter) ask(ctx context.Context, nodes []*corev1.Node, since time.Time) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, n := range nodes {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			// Who waits for the same answer must not suffer if this client goes away.
			asked, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
			defer cancel()
			err := m.state(n.Name).ask(asked, since, func(ctx context.Context) (*shot, error) { return m.scrape(ctx, n) })
			if err != nil {
				m.cfg.Log.Warn("a node does not say what it uses", "node", n.Name, "err", err)
			}
		})
	}
	wg.Wait()
}

// later forgets nodes that nobody asked about for a while.
func (m *Meter) later() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sweep == nil {
		m.sweep = time.AfterFunc(unused, m.forget)
	}
}

func (m *Meter) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for name, n := range m.nodes {
		n.mu.Lock()
		if now.Sub(n.wanted) >= unused && n.pending == nil {
			delete(m.nodes, name)
		}
		n.mu.Unlock()
	}
	m.sweep = nil
	if len(m.nodes) > 0 {
		m.sweep = time.AfterFunc(unused, m.forget)
		return
	}
	m.idle()
}

// transport to kubelets: one connection to each is kept while it is needed.
func transport(t *tls.Config) *http.Transport {
	return &http.Transport{TLSClientConfig: t, MaxIdleConnsPerHost: 1, IdleConnTimeout: 90 * time.Second, DisableCompression: true}
}
