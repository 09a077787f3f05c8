package clients

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/transport"

	"github.com/proa-dev/proa/test/clients/proa"
)

// TestSharedInformer follows ConfigMaps while the server is killed and while the
// informer alone is cut off: no deletion is missed, none comes twice.
func TestSharedInformer(t *testing.T) {
	s := proa.Start(t)
	api := clientFor(t, s.Config())
	var w wire
	asked := &queries{}
	conf := w.config(s.Config())
	conf.Wrap(asked.wrap)
	for i := range 100 {
		writeMap(t, api, fmt.Sprintf("first-%d", i))
	}

	log := newEvents()
	factory := informers.NewSharedInformerFactoryWithOptions(clientFor(t, conf), time.Second, informers.WithNamespace("default"),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = "of=test" }))
	maps := factory.Core().V1().ConfigMaps()
	must(maps.Informer().AddEventHandler(log))(t)
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(func() { stop(); factory.Shutdown() })
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), maps.Informer().HasSynced) {
		t.Fatal("the informer does not get in step")
	}
	if !asked.has("sendInitialEvents=true") {
		t.Errorf("no watch-list was asked for: %v", asked.all())
	}
	if asked.has("limit=") {
		t.Errorf("the watch-list was refused, and a list came after it: %v", asked.all())
	}

	// the server goes while things change
	for round := range 3 {
		deleteMaps(t, api, "first-", round*20, round*20+10)
		s.Kill()
		s.Up()
		deleteMaps(t, api, "first-", round*20+10, round*20+20)
		writeMap(t, api, fmt.Sprintf("second-%d", round))
	}
	inStep(t, api, maps.Lister().ConfigMaps("default").List, log)

	// only the informer is away; what went meanwhile is told once, when it is back
	w.set(true)
	deleteMaps(t, api, "first-", 60, 80)
	writeMap(t, api, "third")
	s.Kill()
	s.Up()
	deleteMaps(t, api, "first-", 80, 90)
	check(t, api.CoreV1().ConfigMaps("default").Delete(t.Context(), "first-90", metav1.DeleteOptions{}))
	writeMap(t, api, "first-90") // another of the same name
	w.set(false)
	inStep(t, api, maps.Lister().ConfigMaps("default").List, log)

	proa.Eventually(t, "a resync comes", func(context.Context) error { return log.resynced() })
}

func writeMap(t *testing.T, api *kubernetes.Clientset, name string) {
	t.Helper()
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"of": "test"}}}
	must(api.CoreV1().ConfigMaps("default").Create(t.Context(), m, metav1.CreateOptions{}))(t)
}

func deleteMaps(t *testing.T, api *kubernetes.Clientset, prefix string, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		check(t, api.CoreV1().ConfigMaps("default").Delete(t.Context(), fmt.Sprint(prefix, i), metav1.DeleteOptions{}))
	}
}

// inStep waits until an informer holds what the server holds, and its handler was
// told of exactly that.
func inStep(t *testing.T, api *kubernetes.Clientset, cached func(labels.Selector) ([]*corev1.ConfigMap, error), log *events) {
	t.Helper()
	list := must(api.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{LabelSelector: "of=test"}))(t)
	want := map[types.UID]string{}
	for _, m := range list.Items {
		want[m.UID] = m.ResourceVersion
	}
	proa.Eventually(t, "the informer is in step", func(context.Context) error {
		have := must(cached(labels.Everything()))(t)
		if len(have) != len(want) {
			return fmt.Errorf("it holds %d objects, not %d", len(have), len(want))
		}
		for _, m := range have {
			if want[m.UID] != m.ResourceVersion {
				return fmt.Errorf("%s is at %q, not at %q", m.Name, m.ResourceVersion, want[m.UID])
			}
		}
		return log.holds(want)
	})
}

// events are what a handler was told, by UID.
type events struct {
	mu      sync.Mutex
	there   map[types.UID]string // revision
	deleted map[types.UID]int
	resyncs int
	wrong   []string
}

func newEvents() *events {
	return &events{there: map[types.UID]string{}, deleted: map[types.UID]int{}}
}

func (e *events) OnAdd(obj any, _ bool) {
	m := obj.(*corev1.ConfigMap)
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.there[m.UID]; ok || e.deleted[m.UID] > 0 {
		e.wrong = append(e.wrong, fmt.Sprintf("%s was added twice, or after it was deleted", m.Name))
	}
	e.there[m.UID] = m.ResourceVersion
}

func (e *events) OnUpdate(before, now any) {
	old, m := before.(*corev1.ConfigMap), now.(*corev1.ConfigMap)
	e.mu.Lock()
	defer e.mu.Unlock()
	if old.UID != m.UID { // what came in its place while the informer was away
		e.remove(old)
	}
	if old.ResourceVersion == m.ResourceVersion {
		e.resyncs++
	}
	e.there[m.UID] = m.ResourceVersion
}

func (e *events) OnDelete(obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.remove(obj.(*corev1.ConfigMap))
}

func (e *events) remove(m *corev1.ConfigMap) {
	if _, ok := e.there[m.UID]; !ok {
		e.wrong = append(e.wrong, fmt.Sprintf("%s was deleted, and was not there", m.Name))
	}
	delete(e.there, m.UID)
	e.deleted[m.UID]++
}

func (e *events) holds(want map[types.UID]string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.wrong) > 0 {
		return fmt.Errorf("%v", e.wrong)
	}
	if len(e.there) != len(want) {
		return fmt.Errorf("the handler knows of %d objects, not %d", len(e.there), len(want))
	}
	for uid, rv := range want {
		if e.there[uid] != rv {
			return fmt.Errorf("%s is at %q for the handler, not at %q", uid, e.there[uid], rv)
		}
	}
	return nil
}

func (e *events) resynced() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.resyncs == 0 {
		return fmt.Errorf("none came")
	}
	return nil
}

// queries that a client sent.
type queries struct {
	mu   sync.Mutex
	list []string
}

func (q *queries) wrap(next http.RoundTripper) http.RoundTripper {
	return transportFunc{next, func(r *http.Request) {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.list = append(q.list, r.URL.Path+"?"+r.URL.RawQuery)
	}}
}

func (q *queries) all() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]string(nil), q.list...)
}

func (q *queries) has(part string) bool {
	for _, s := range q.all() {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

type transportFunc struct {
	next http.RoundTripper
	see  func(*http.Request)
}

var _ transport.WrapperFunc = (&queries{}).wrap

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) {
	f.see(r)
	return f.next.RoundTrip(r)
}
