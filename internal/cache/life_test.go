package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/store"
	"github.com/proa-dev/proa/internal/store/memory"
)

func wait(t testing.TB, c *Cache, rev int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.Wait(ctx, rev); err != nil {
		t.Fatalf("revision %d: %v (at %d)", rev, err, c.Revision())
	}
}

func put(t testing.TB, s store.Store, key string, value []byte) int64 {
	t.Helper()
	rev, err := s.Commit(context.Background(), store.Write{Key: key, Value: value, Unsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func TestBrokenEntries(t *testing.T) {
	s := memory.New()
	put(t, s, "/pods/a/born-bad", []byte("\xff\xff"))
	put(t, s, "/pods/a/good", encode(t, pod("a", "good", "", "1")))
	c := start(t, s, Config{})
	set := c.Of(pods)
	if b := set.Broken("a", "born-bad"); b == nil || b.Err == nil || set.Get("a", "born-bad") != nil || set.Get("a", "good") == nil {
		t.Fatal("loaded:", b)
	}
	w, err := set.Watch(WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := next(t, w); got != "+ good" {
		t.Error(got)
	}
	wait(t, c, put(t, s, "/pods/a/good", []byte("\xff")))
	if set.Broken("a", "good") == nil || set.Get("a", "good").Object.GetLabels()["v"] != "1" {
		t.Error("the last good state is not shown")
	}
	bad := set.Broken("a", "good")
	p := pod("a", "good", "", "2") // repaired by somebody who knows the revision
	if _, _, err := c.Commit(context.Background(), Change{Kind: pods, Namespace: "a", Name: "good", Prior: bad.Entry.Revision, Object: p, Value: encode(t, p)}); err != nil {
		t.Fatal(err)
	}
	if got := next(t, w); got != "~ good" || set.Broken("a", "good") != nil || set.Get("a", "good").Object != api.Object(p) {
		t.Error("repaired:", got)
	}
	wait(t, c, put(t, s, "/pods/a/born-bad", encode(t, pod("a", "born-bad", "", ""))))
	if got := next(t, w); got != "+ born-bad" {
		t.Error(got)
	}
}

// TestGoesOnWhereItWas: a cache that starts knows what happened shortly before, so
// that a watch from then goes on without a gap.
func TestGoesOnWhereItWas(t *testing.T) {
	s := memory.New()
	put(t, s, "/pods/a/old", encode(t, pod("a", "old", "", "1")))
	seen := put(t, s, "/pods/a/x", encode(t, pod("a", "x", "", "1")))
	put(t, s, "/pods/a/x", encode(t, pod("a", "x", "", "2")))
	if _, err := s.Commit(t.Context(), store.Write{Key: "/pods/a/old", Unsafe: true}); err != nil {
		t.Fatal(err)
	}
	last := put(t, s, "/nodes/n", encode(t, pod("", "n", "", "")))
	c := start(t, s, Config{})
	if c.Revision() < last {
		t.Errorf("ready at %d, before %d", c.Revision(), last)
	}
	w, err := c.Of(pods).Watch(WatchOptions{After: seen})
	if err != nil {
		t.Fatal(err)
	}
	if got := next(t, w); got != "~ x, - old" {
		t.Error(got)
	}
}

// TestStartsAfterCompaction: what was compacted is not asked for.
func TestStartsAfterCompaction(t *testing.T) {
	s := memory.New()
	var rev int64
	for range 60 {
		rev = put(t, s, "/pods/a/x", encode(t, pod("a", "x", "", "1")))
	}
	if err := s.Compact(t.Context(), rev-5); err != nil {
		t.Fatal(err)
	}
	c := start(t, s, Config{})
	if c.Of(pods).Get("a", "x") == nil {
		t.Error("not loaded")
	}
}

// TestSealed: what is written is sealed, read and watched plain, and known to be
// stale when it would be sealed in another way now.
func TestSealed(t *testing.T) {
	s := memory.New()
	put(t, s, "/pods/a/plain", encode(t, pod("a", "plain", "", "1")))
	put(t, s, "/pods/a/lost", []byte("lost:"))
	var known atomic.Bool
	open := func(e store.Entry) ([]byte, error) {
		if value, ok := bytes.CutPrefix(e.Value, []byte("lost:")); ok {
			if !known.Load() {
				return nil, errors.New("an unknown key")
			}
			return value, nil
		}
		value, _ := bytes.CutPrefix(e.Value, []byte("sealed:"))
		return value, nil
	}
	again := make(chan struct{}, 1)
	c := start(t, s, Config{
		Again: again,
		Seal: func(_ context.Context, _ *api.Kind, _ string, value []byte) ([]byte, error) {
			return append([]byte("sealed:"), value...), nil
		},
		Stale: func(_ *api.Kind, e store.Entry, _ []byte) bool { return !bytes.HasPrefix(e.Value, []byte("sealed:")) },
		Decode: func(k *api.Kind, e store.Entry) (api.Object, error) {
			value, err := open(e)
			if err != nil {
				return nil, err
			}
			e.Value = value
			return decode(k, e)
		},
	})
	i := create(t, c, pods, pod("a", "new", "", "1"))
	if c.Stale(t.Context(), pods, "a", "new", nil) || !c.Stale(t.Context(), pods, "a", "plain", nil) {
		t.Error("staleness is wrong")
	}
	update(t, c, pods, i, pod("a", "new", "", "2"))
	if _, err := s.Range(t.Context(), "/pods/a/new", store.RangeOptions{}, func(e store.Entry) bool {
		if !bytes.HasPrefix(e.Value, []byte("sealed:")) {
			t.Errorf("stored as %q", e.Value)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	set := c.Of(pods)
	if b := set.Unreadable("a"); b == nil || set.Unreadable("b") != nil || b.Entry.Key != "/pods/a/lost" {
		t.Error(b)
	}
	known.Store(true)
	again <- struct{}{}
	for end := time.Now().Add(10 * time.Second); set.Get("a", "lost") == nil; {
		if time.Now().After(end) {
			t.Fatal("not read again")
		}
		runtime.Gosched()
	}
	if err := c.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// cuttable is a store whose watches can be ended, and kept from coming back.
type cuttable struct {
	store.Store
	mu   sync.Mutex
	down error
	ends []context.CancelFunc
}

func (s *cuttable) Watch(ctx context.Context, after int64) (store.Stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return nil, s.down
	}
	ctx, cancel := context.WithCancel(ctx)
	s.ends = append(s.ends, cancel)
	return s.Store.Watch(ctx, after)
}

func (s *cuttable) set(down error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	for _, end := range s.ends {
		end()
	}
	s.ends = nil
}

// TestGap loses the store's watch: once so that it goes on where it was, once so
// that what happened is forgotten and the difference must do.
func TestGap(t *testing.T) {
	for _, forgotten := range []bool{false, true} {
		t.Run(fmt.Sprint("forgotten=", forgotten), func(t *testing.T) {
			s := &cuttable{Store: memory.New()}
			c := start(t, s, Config{})
			set := c.Of(pods)
			old := create(t, c, pods, pod("a", "changes", "", "1"))
			create(t, c, pods, pod("a", "goes", "", "1"))
			kept := create(t, c, pods, pod("a", "stays", "", "1"))
			w, err := set.Watch(WatchOptions{After: kept.Revision})
			if err != nil {
				t.Fatal(err)
			}
			s.set(store.ErrUnavailable)
			rev := put(t, s, "/pods/a/changes", encode(t, pod("a", "changes", "", "2")))
			put(t, s, "/pods/a/changes", encode(t, pod("a", "changes", "", "3")))
			put(t, s, "/pods/a/comes", encode(t, pod("a", "comes", "", "1")))
			put(t, s, "/pods/a/flies by", encode(t, pod("a", "flies by", "", "1")))
			if _, err := s.Commit(context.Background(), store.Write{Key: "/pods/a/flies by", Unsafe: true}); err != nil {
				t.Fatal(err)
			}
			last, err := s.Commit(context.Background(), store.Write{Key: "/pods/a/goes", Unsafe: true})
			if err != nil {
				t.Fatal(err)
			}
			want := "~ changes, ~ changes, + comes, + flies by, - flies by, - goes"
			if forgotten {
				if err := s.Compact(context.Background(), last); err != nil {
					t.Fatal(err)
				}
				want = "~ changes, + comes, - goes"
			}
			s.set(nil)
			wait(t, c, last)
			got := next(t, w)
			for len(got) < len(want) && strings.HasPrefix(want, got) {
				got += ", " + next(t, w)
			}
			if got != want {
				t.Errorf("told %q, want %q", got, want)
			}
			if set.Get("a", "stays") != kept {
				t.Error("what did not change was decoded again")
			}
			_, err = set.Watch(WatchOptions{After: old.Revision})
			if gone := errors.Is(err, ErrGone); gone != forgotten {
				t.Error("a watch from before the gap:", err)
			}
			if _, err := set.SnapshotAt(rev); errors.Is(err, ErrGone) != forgotten {
				t.Error("the state in the gap:", err)
			}
			if c.Of(pods).Snapshot().Count("a") != 3 {
				t.Error("wrong count")
			}
		})
	}
}

func TestWindowAndSlowWatchers(t *testing.T) {
	c := start(t, memory.New(), Config{Window: Window{Least: 5, Most: 20}, Queue: 10})
	set := c.Of(pods)
	first := create(t, c, pods, pod("a", "p", "", ""))
	slow, err := set.Watch(WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	patient, err := set.Watch(WatchOptions{Unbounded: true})
	if err != nil {
		t.Fatal(err)
	}
	page := set.Snapshot()
	set.Keep(page)
	item := first
	for i := range 30 {
		item = update(t, c, pods, item, pod("a", "p", "", fmt.Sprint(i)))
	}
	if got := next(t, slow); got != ErrSlow.Error() {
		t.Error("slow:", got)
	}
	if got := next(t, patient) + ", " + next(t, patient); strings.Count(got, "p") != 31 {
		t.Error("unbounded:", got)
	}
	if _, err := set.Watch(WatchOptions{After: first.Revision}); !errors.Is(err, ErrGone) {
		t.Error("from before the window:", err)
	}
	w, err := set.Watch(WatchOptions{After: item.Revision - 20})
	if err != nil {
		t.Fatal(err)
	}
	if got := next(t, w); strings.Count(got, "~") != 20 {
		t.Error("window:", got)
	}
	if at, err := set.SnapshotAt(page.Revision()); err != nil || at.Get("a", "p") != first {
		t.Error("a kept snapshot:", err)
	}
	if _, err := set.SnapshotAt(first.Revision - 1); !errors.Is(err, ErrGone) {
		t.Error("before everything:", err)
	}
	set.sweep(time.Now().Add(10 * time.Minute))
	if _, err := set.SnapshotAt(page.Revision()); !errors.Is(err, ErrGone) {
		t.Error("kept for ever:", err)
	}
	if n := len(set.window.events) - set.window.head; n != 5 {
		t.Error("old events left:", n)
	}
	future, err := set.Watch(WatchOptions{After: item.Revision + 1})
	if err != nil {
		t.Fatal(err)
	}
	item = update(t, c, pods, item, pod("a", "p", "", "not told"))
	remove(t, c, pods, item)
	if got := next(t, future); got != "- p" {
		t.Error("from the future:", got)
	}
}

func TestKindsComeAndGo(t *testing.T) {
	s := memory.New()
	c := start(t, s, Config{})
	widgets := &api.Kind{
		GroupVersionKind: schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Widget"},
		Resource:         "widgets", Path: "example.com/widgets",
		New: func() api.Object { return &corev1.ConfigMap{} },
	}
	widget := func(name string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}}
	}
	for i := range 300 {
		wait(t, c, put(t, s, fmt.Sprintf("/example.com/widgets/a/w%03d", i), encode(t, widget(fmt.Sprintf("w%03d", i)))))
	}
	if c.Of(widgets) != nil {
		t.Fatal("a set of an unknown kind")
	}
	// Others go on writing while the kind is taken in.
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				put(t, s, fmt.Sprintf("/example.com/widgets/a/new%d", i), encode(t, widget(fmt.Sprint("new", i))))
			}
		}
	}()
	var set *Set
	for range 5 {
		was := set
		var w Watcher
		if was != nil {
			w, _ = was.Watch(WatchOptions{})
			next(t, w)
		}
		var err error
		if set, err = c.Put(context.Background(), widgets); err != nil {
			t.Fatal(err)
		}
		if set == was || c.Of(widgets) != set || set.Get("a", "w000") == nil {
			t.Fatal("not taken in")
		}
		for ended := w == nil; !ended; {
			ended = next(t, w) == ErrStopped.Error()
		}
	}
	close(stop)
	<-stopped
	rev, _ := s.Revision(context.Background())
	wait(t, c, rev)
	n := 0
	if _, err := s.Range(context.Background(), "/example.com/", store.RangeOptions{}, func(store.Entry) bool { n++; return true }); err != nil {
		t.Fatal(err)
	}
	if set.Snapshot().Len() != n {
		t.Errorf("%d objects, the store has %d", set.Snapshot().Len(), n)
	}
	one := create(t, c, widgets, widget("one"))
	if set.Get("a", "one") != one {
		t.Error("commit to a kind that came later")
	}
	w, err := set.Watch(WatchOptions{After: one.Revision})
	if err != nil {
		t.Fatal(err)
	}
	c.Remove(widgets)
	if got := next(t, w); got != ErrStopped.Error() || c.Of(widgets) != nil {
		t.Error("removed:", got)
	}
	if _, err := set.Watch(WatchOptions{}); !errors.Is(err, ErrStopped) {
		t.Error("watch of a kind that is gone:", err)
	}
}

func TestStop(t *testing.T) {
	before := runtime.NumGoroutine()
	s := memory.New()
	c := New(Config{Store: s, Catalog: catalog(), Decode: decode})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	<-c.Ready()
	w, err := c.Of(pods).Watch(WatchOptions{After: 1})
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan error)
	go func() { waits <- c.Wait(context.Background(), 1000) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-waits; !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
	if got := next(t, w); got != ErrStopped.Error() {
		t.Error(got)
	}
	_ = s.Close()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// refusing is a store whose commits fail in ways that leave the outcome open.
type refusing struct {
	store.Store
	after bool // fail after it was written
}

func (s *refusing) Commit(ctx context.Context, writes ...store.Write) (int64, error) {
	if s.after {
		if _, err := s.Store.Commit(ctx, writes...); err != nil {
			return 0, err
		}
	}
	return 0, store.ErrUnavailable
}

func TestUnknownOutcome(t *testing.T) {
	inner := memory.New()
	for _, after := range []bool{false, true} {
		c := start(t, &refusing{inner, after}, Config{})
		p := pod("a", "p", "", "")
		_, _, err := c.Commit(context.Background(), Change{Kind: pods, Namespace: "a", Name: "p", Object: p, Value: encode(t, p)})
		if !errors.Is(err, store.ErrUnavailable) || len(c.expect.byKey) != 0 {
			t.Fatal(err, c.expect.byKey)
		}
		rev, _ := inner.Revision(context.Background())
		wait(t, c, rev)
		if there := c.Of(pods).Get("a", "p") != nil; there != after {
			t.Error("there:", there)
		}
	}
}
