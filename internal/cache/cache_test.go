package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/store"
	"github.com/proa-dev/proa/internal/store/memory"
)

var (
	pods = &api.Kind{
		GroupVersionKind: schema.GroupVersionKind{Version: "v1", Kind: "Pod"},
		Resource:         "pods",
		New:              func() api.Object { return &corev1.Pod{} },
		NewList:          func() runtime.Object { return &corev1.PodList{} },
		Indexes: map[string]func(api.Object) []string{
			"spec.nodeName": api.IndexOf(func(p *corev1.Pod) []string { return []string{p.Spec.NodeName} }),
		},
	}
	services = &api.Kind{
		GroupVersionKind: schema.GroupVersionKind{Version: "v1", Kind: "Service"},
		Resource:         "services", Path: "services/specs",
		New: func() api.Object { return &corev1.Service{} },
	}
	nodes = &api.Kind{
		GroupVersionKind: schema.GroupVersionKind{Version: "v1", Kind: "Node"},
		Resource:         "nodes", Cluster: true,
		New: func() api.Object { return &corev1.Node{} },
	}
)

func decode(k *api.Kind, e store.Entry) (api.Object, error) {
	obj := k.New()
	return obj, obj.(interface{ Unmarshal([]byte) error }).Unmarshal(e.Value)
}

func encode(t testing.TB, obj api.Object) []byte {
	b, err := obj.(interface{ Marshal() ([]byte, error) }).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func pod(ns, name, node, label string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{"v": label}},
		Spec:       corev1.PodSpec{NodeName: node},
	}
}

func catalog() *api.Catalog {
	c, err := api.NewCatalog(pods, services, nodes)
	if err != nil {
		panic(err)
	}
	return c
}

// start runs a cache on a store until the test ends.
func start(t testing.TB, s store.Store, cfg Config) *Cache {
	t.Helper()
	if cfg.Catalog == nil {
		cfg.Catalog = catalog()
	}
	cfg.Store = s
	if cfg.Decode == nil {
		cfg.Decode = decode
	}
	c := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = s.Close()
	})
	select {
	case <-c.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("the cache does not get ready")
	}
	return c
}

func create(t testing.TB, c *Cache, k *api.Kind, obj api.Object) *Item {
	t.Helper()
	items, _, err := c.Commit(context.Background(), Change{Kind: k, Namespace: obj.GetNamespace(), Name: obj.GetName(), Object: obj, Value: encode(t, obj)})
	if err != nil {
		t.Fatal(err)
	}
	return items[0]
}

func update(t testing.TB, c *Cache, k *api.Kind, prior *Item, obj api.Object) *Item {
	t.Helper()
	items, _, err := c.Commit(context.Background(), Change{Kind: k, Namespace: obj.GetNamespace(), Name: obj.GetName(), Prior: prior.Revision, Object: obj, Value: encode(t, obj)})
	if err != nil {
		t.Fatal(err)
	}
	return items[0]
}

func remove(t testing.TB, c *Cache, k *api.Kind, i *Item) *Item {
	t.Helper()
	items, _, err := c.Commit(context.Background(), Change{Kind: k, Namespace: i.Object.GetNamespace(), Name: i.Object.GetName(), Prior: i.Revision})
	if err != nil {
		t.Fatal(err)
	}
	return items[0]
}

// next returns the next events of a watch as text.
func next(t testing.TB, w Watcher) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	events, _, err := w.Next(ctx)
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, e := range events {
		out = append(out, fmt.Sprintf("%s %s", []string{"", "+", "~", "-"}[e.Type], e.Item.Object.GetName()))
	}
	return strings.Join(out, ", ")
}

func TestCommitHandsOverTheVeryObject(t *testing.T) {
	c := start(t, memory.New(), Config{Decode: func(*api.Kind, store.Entry) (api.Object, error) {
		t.Error("decoded what was just written")
		return nil, errors.New("no")
	}})
	p := pod("a", "x", "", "1")
	made := create(t, c, pods, p)
	if made.Object != api.Object(p) || c.Of(pods).Get("a", "x") != made || p.ResourceVersion != fmt.Sprint(made.Revision) {
		t.Fatalf("not the object written: %v", made)
	}
	p2 := pod("a", "x", "n1", "2")
	two := update(t, c, pods, made, p2)
	if c.Of(pods).Get("a", "x").Object != api.Object(p2) || made.Object.GetResourceVersion() == two.Object.GetResourceVersion() {
		t.Fatal("update")
	}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "s"}}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	items, rev, err := c.Commit(context.Background(),
		Change{Kind: services, Namespace: "a", Name: "s", Object: svc, Value: encode(t, svc)},
		Change{Kind: nodes, Name: "n1", Object: node, Value: encode(t, node)},
		Change{Kind: pods, Namespace: "a", Name: "x", Prior: two.Revision})
	if err != nil || items[0].Object != api.Object(svc) || items[1].Revision != rev || c.Of(nodes).Get("", "n1") == nil || c.Of(services).Get("a", "s") == nil {
		t.Fatal(err, items)
	}
	if items[2].Revision != rev || items[2].Object.GetLabels()["v"] != "2" || p2.ResourceVersion != fmt.Sprint(two.Revision) {
		t.Fatalf("deletion: %+v", items[2])
	}
	if len(c.expect.byKey) != 0 {
		t.Fatal("expectations leak", c.expect.byKey)
	}
}

func TestConflictCatchesUp(t *testing.T) {
	s := memory.New()
	c := start(t, s, Config{})
	one := create(t, c, pods, pod("a", "x", "", "1"))
	rev, err := s.Commit(context.Background(), store.Write{Key: "/pods/a/x", Prior: one.Revision, Value: encode(t, pod("a", "x", "", "other"))})
	if err != nil {
		t.Fatal(err)
	}
	p := pod("a", "x", "", "2")
	_, _, err = c.Commit(context.Background(), Change{Kind: pods, Namespace: "a", Name: "x", Prior: one.Revision, Object: p, Value: encode(t, p)})
	if conflict := (*store.Conflict)(nil); !errors.As(err, &conflict) || c.Of(pods).Get("a", "x").Revision != rev {
		t.Fatal(err)
	}
	if len(c.expect.byKey) != 0 {
		t.Fatal("expectations leak")
	}
}

func TestScopes(t *testing.T) {
	c := start(t, memory.New(), Config{})
	one := create(t, c, pods, pod("a", "one", "", ""))
	create(t, c, pods, pod("b", "two", "n1", ""))
	set := c.Of(pods)
	open := func(opt WatchOptions) Watcher {
		w, err := set.Watch(opt)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Stop)
		return w
	}
	all, inA := open(WatchOptions{}), open(WatchOptions{Scope: Scope{Namespace: "a"}})
	named, anywhere := open(WatchOptions{Scope: Scope{Namespace: "a", Name: "one"}}), open(WatchOptions{Scope: Scope{Name: "two"}})
	onN1, onN2 := open(WatchOptions{Scope: Scope{Index: "spec.nodeName", Value: "n1"}}), open(WatchOptions{Scope: Scope{Index: "spec.nodeName", Value: "n2"}})
	for i, tt := range []struct {
		w    Watcher
		want string
	}{{all, "+ one, + two"}, {inA, "+ one"}, {named, "+ one"}, {anywhere, "+ two"}, {onN1, "+ two"}, {onN2, ""}} {
		if got := next(t, tt.w); got != tt.want {
			t.Errorf("%d: %q", i, got)
		}
	}
	bound := update(t, c, pods, one, pod("a", "one", "n1", ""))
	moved := update(t, c, pods, bound, pod("a", "one", "n2", ""))
	remove(t, c, pods, moved)
	past := open(WatchOptions{After: one.Revision, Scope: Scope{Index: "spec.nodeName", Value: "n1"}})
	for i, tt := range []struct {
		w    Watcher
		want string
	}{{all, "~ one, ~ one, - one"}, {inA, "~ one, ~ one, - one"}, {named, "~ one, ~ one, - one"}, {onN1, "+ one, - one"}, {onN2, "+ one, - one"}, {past, "+ two, + one, - one"}} {
		got := next(t, tt.w)
		for len(got) < len(tt.want) && strings.HasPrefix(tt.want, got) {
			got += ", " + next(t, tt.w)
		}
		if got != tt.want {
			t.Errorf("%d: %q", i, got)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := anywhere.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Error("woken by changes elsewhere", err)
	}
	if rev := anywhere.(*Watch).Revision(); rev != c.Revision() {
		t.Error("a watch without events does not learn the revision", rev)
	}
}

// TestModel changes objects at random, on two caches of one store, and holds
// snapshots, watches of all scopes and old snapshots to a plain map.
func TestModel(t *testing.T) {
	s := memory.New()
	c := start(t, s, Config{})
	other := start(t, s, Config{})
	rng := rand.New(rand.NewSource(1))
	set := c.Of(pods)
	model := map[string]*corev1.Pod{}
	type old struct {
		rev   int64
		model map[string]*corev1.Pod
		snap  Snapshot
	}
	var olds []old
	scopes := []Scope{{}, {Namespace: "a"}, {Namespace: "a", Name: "p1"}, {Name: "p2"}, {Index: "spec.nodeName", Value: "n1"}, {Namespace: "b", Index: "spec.nodeName", Value: "n2"}, {Index: "spec.nodeName"}}
	type follower struct {
		w     Watcher
		scope Scope
		seen  map[string]string // key → resourceVersion
	}
	var followers []*follower
	follow := func(opt WatchOptions, seen map[string]string) {
		w, err := set.Watch(opt)
		if err != nil {
			t.Fatal(err)
		}
		followers = append(followers, &follower{w, opt.Scope, seen})
	}
	in := func(sc Scope, p *corev1.Pod) bool {
		return (sc.Namespace == "" || sc.Namespace == p.Namespace) && (sc.Name == "" || sc.Name == p.Name) && (sc.Index == "" || sc.Value == p.Spec.NodeName)
	}
	for _, sc := range scopes {
		follow(WatchOptions{Scope: sc}, map[string]string{})
	}
	for step := range 2000 {
		ns, name := []string{"a", "a-b", "b"}[rng.Intn(3)], fmt.Sprint("p", rng.Intn(4))
		by := []*Cache{c, other}[rng.Intn(2)]
		if err := by.Wait(context.Background(), c.Revision()); err != nil {
			t.Fatal(err)
		}
		cur := by.Of(pods).Get(ns, name)
		key := ns + "/" + name
		switch {
		case cur == nil:
			p := pod(ns, name, []string{"", "n1", "n2"}[rng.Intn(3)], fmt.Sprint(step))
			model[key] = create(t, by, pods, p).Object.(*corev1.Pod)
		case rng.Intn(3) == 0:
			remove(t, by, pods, cur)
			delete(model, key)
		default:
			p := pod(ns, name, []string{"", "n1", "n2"}[rng.Intn(3)], fmt.Sprint(step))
			model[key] = update(t, by, pods, cur, p).Object.(*corev1.Pod)
		}
		rev, _ := s.Revision(context.Background())
		if err := c.Wait(context.Background(), rev); err != nil {
			t.Fatal(err)
		}
		if step%50 == 0 {
			copied := map[string]*corev1.Pod{}
			for k, v := range model {
				copied[k] = v
			}
			olds = append(olds, old{rev, copied, set.Snapshot()})
			sc := scopes[rng.Intn(len(scopes))]
			seen := map[string]string{}
			for k, p := range model {
				if in(sc, p) {
					seen[k] = p.ResourceVersion
				}
			}
			follow(WatchOptions{Scope: sc, After: rev}, seen)
		}
	}
	same := func(what string, snap Snapshot, model map[string]*corev1.Pod) {
		t.Helper()
		if snap.Len() != len(model) || snap.Count("") != len(model) {
			t.Fatalf("%s: %d objects, want %d", what, snap.Len(), len(model))
		}
		last := ""
		snap.Ascend("", "", "", func(i *Item) bool {
			p := i.Object.(*corev1.Pod)
			key := p.Namespace + "/" + p.Name
			if m := model[key]; m == nil || m.Labels["v"] != p.Labels["v"] || m.ResourceVersion != p.ResourceVersion || key <= last {
				t.Fatalf("%s: %s is %v, want %v", what, key, p, m)
			}
			last = key
			return true
		})
		for _, ns := range []string{"a", "a-b", "b"} {
			want, got := 0, 0
			for _, p := range model {
				if p.Namespace == ns {
					want++
				}
			}
			snap.Ascend(ns, "", "", func(*Item) bool { got++; return true })
			if got != want || snap.Count(ns) != want {
				t.Fatalf("%s: %d in %s, want %d", what, got, ns, want)
			}
		}
		for _, node := range []string{"", "n1", "n2"} {
			want, got := 0, 0
			for _, p := range model {
				if p.Spec.NodeName == node {
					want++
				}
			}
			snap.ByIndex("spec.nodeName", node, func(i *Item) bool { got++; return true })
			if got != want {
				t.Fatalf("%s: %d on %q, want %d", what, got, node, want)
			}
		}
	}
	same("now", set.Snapshot(), model)
	for _, o := range olds {
		same("held", o.snap, o.model)
		at, err := set.SnapshotAt(o.rev)
		if err != nil {
			t.Fatal(err)
		}
		same(fmt.Sprint("at ", o.rev), at, o.model)
	}
	if err := errors.Join(c.Verify(context.Background()), other.Verify(context.Background())); err != nil {
		t.Fatal(err)
	}
	for n, f := range followers {
		want := map[string]string{}
		for k, p := range model {
			if in(f.scope, p) {
				want[k] = p.ResourceVersion
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		for f.w.(*Watch).Revision() < c.Revision() {
			events, _, err := f.w.Next(ctx)
			if err != nil {
				t.Fatal(n, f.scope, err)
			}
			for _, e := range events {
				p := e.Item.Object.(*corev1.Pod)
				key := p.Namespace + "/" + p.Name
				_, had := f.seen[key]
				if e.Type == Added == had {
					t.Fatalf("%d: event %d of %s, had %v", n, e.Type, key, had)
				}
				if e.Type == Deleted {
					delete(f.seen, key)
				} else {
					f.seen[key] = p.ResourceVersion
				}
			}
		}
		cancel()
		if fmt.Sprint(f.seen) != fmt.Sprint(want) {
			t.Fatalf("%d %+v: folded %v, want %v", n, f.scope, f.seen, want)
		}
		f.w.Stop()
	}
}

func TestVerifyFindsWhoChangesSharedObjects(t *testing.T) {
	c := start(t, memory.New(), Config{})
	p := pod("a", "x", "", "1")
	create(t, c, pods, p)
	if err := c.Verify(context.Background()); err != nil {
		t.Fatal(err)
	}
	p.Labels["v"] = "changed"
	if err := c.Verify(context.Background()); err == nil || !strings.Contains(err.Error(), "/pods/a/x at revision 2") {
		t.Fatal(err)
	}
}
