package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
)

// memory is an API server of a few maps: enough for a kubelet.
type memory struct {
	catalog *api.Catalog
	mu      sync.Mutex
	version int
	objects map[string]map[string]api.Object // by resource, by namespace/name
	watches []*watching
}

type watching struct {
	kind   *api.Kind
	scope  client.Scope
	synced chan struct{}
	wake   chan struct{}
	mu     sync.Mutex
	queue  []client.Event
	first  bool
}

func (m *memory) Catalog() *api.Catalog { return m.catalog }

func (m *memory) Get(_ context.Context, k *api.Kind, ns, name string) (api.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o := m.objects[k.Resource][client.Key(ns, name)]; o != nil {
		return o, nil
	}
	return nil, apierrors.NewNotFound(k.GroupResource(), name)
}

func (m *memory) List(context.Context, *api.Kind, string, client.ListOptions) ([]api.Object, string, error) {
	panic("a kubelet lists nothing")
}

func (m *memory) Create(_ context.Context, k *api.Kind, o api.Object, _ client.WriteOptions) (api.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k.Virtual {
		return o, nil
	}
	if m.objects[k.Resource][client.Key(o.GetNamespace(), o.GetName())] != nil {
		return nil, apierrors.NewAlreadyExists(k.GroupResource(), o.GetName())
	}
	return m.put(k, o), nil
}

func (m *memory) Update(_ context.Context, k *api.Kind, o api.Object, _ client.WriteOptions) (api.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.put(k, o), nil
}

func (m *memory) put(k *api.Kind, o api.Object) api.Object {
	m.version++
	o.SetResourceVersion(strconv.Itoa(m.version))
	if m.objects[k.Resource] == nil {
		m.objects[k.Resource] = map[string]api.Object{}
	}
	key := client.Key(o.GetNamespace(), o.GetName())
	old := m.objects[k.Resource][key]
	m.objects[k.Resource][key] = o
	m.tell(k, client.Event{Old: old, New: o})
	return o
}

func (m *memory) Patch(_ context.Context, k *api.Kind, ns, name string, p client.Patch, _ client.WriteOptions) (api.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.objects[k.Resource][client.Key(ns, name)]
	if old == nil {
		return nil, apierrors.NewNotFound(k.GroupResource(), name)
	}
	a, err := json.Marshal(old)
	if err != nil {
		return nil, err
	}
	b, err := strategicpatch.StrategicMergePatch(a, p.Data, k.New())
	if err != nil {
		return nil, err
	}
	o := k.New()
	if err := json.Unmarshal(b, o); err != nil {
		return nil, err
	}
	if o.GetUID() != old.GetUID() {
		return nil, apierrors.NewConflict(k.GroupResource(), name, nil)
	}
	return m.put(k, o), nil
}

func (m *memory) Delete(_ context.Context, k *api.Kind, ns, name string, opt metav1.DeleteOptions) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := client.Key(ns, name)
	old := m.objects[k.Resource][key]
	if old == nil || opt.Preconditions != nil && *opt.Preconditions.UID != old.GetUID() {
		return apierrors.NewNotFound(k.GroupResource(), name)
	}
	delete(m.objects[k.Resource], key)
	m.tell(k, client.Event{Old: old})
	return nil
}

func (m *memory) Post(context.Context, *api.Kind, string, string, string, runtime.Object) (runtime.Object, error) {
	return nil, errors.New("no tokens here")
}

func (m *memory) Watch(_ context.Context, k *api.Kind, s client.Scope) (client.Events, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := &watching{kind: k, scope: s, synced: make(chan struct{}), wake: make(chan struct{}, 1)}
	for _, o := range m.objects[k.Resource] {
		w.add(client.Event{New: o})
	}
	m.watches = append(m.watches, w)
	w.wake <- struct{}{}
	return w, nil
}

func (m *memory) tell(k *api.Kind, e client.Event) {
	for _, w := range m.watches {
		if w.kind == k {
			w.add(e)
			select {
			case w.wake <- struct{}{}:
			default:
			}
		}
	}
}

func (w *watching) add(e client.Event) {
	o := e.New
	if o == nil {
		o = e.Old
	}
	if w.scope.Name != "" && o.GetName() != w.scope.Name || w.scope.Namespace != "" && o.GetNamespace() != w.scope.Namespace {
		return
	}
	if w.scope.Index != "" && w.kind.Indexes[w.scope.Index](o)[0] != w.scope.Value {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = append(w.queue, e)
}

func (w *watching) Next(ctx context.Context) ([]client.Event, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-w.wake:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.queue
	w.queue = nil
	if !w.first {
		w.first = true
		close(w.synced)
	}
	return all, nil
}

func (w *watching) Synced() <-chan struct{} { return w.synced }
func (w *watching) Stop()                   {}
