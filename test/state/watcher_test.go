package state

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// watcher follows the ConfigMaps of a test through all restarts of the server. It
// never lists again: each time it goes on after the last event that it got.
type watcher struct {
	api *kubernetes.Clientset

	mu      sync.Mutex
	last    int64
	resumed int
	events  []seenEvent
	checked int   // events before were looked at
	err     error // why it cannot go on
	state   map[string]int64
	values  map[string]bool
}

type seenEvent struct {
	kind        watch.EventType
	name, value string
	rv          int64
}

func follow(t *testing.T, s *server) *watcher {
	t.Helper()
	w := &watcher{api: s.client(), state: map[string]int64{}, values: map[string]bool{}}
	list, err := w.api.CoreV1().ConfigMaps(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "round"})
	if err != nil {
		t.Fatal(err)
	}
	w.last = number(list.ResourceVersion)
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(ended)
		for ctx.Err() == nil && w.once(ctx) {
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return w
}

// once watches until the connection ends; false = there is no going on.
func (w *watcher) once(ctx context.Context) bool {
	w.mu.Lock()
	from := w.last
	w.mu.Unlock()
	watching, err := w.api.CoreV1().ConfigMaps(namespace).Watch(ctx, metav1.ListOptions{LabelSelector: "round", ResourceVersion: fmt.Sprint(from), AllowWatchBookmarks: true})
	if err != nil {
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
		return true
	}
	defer watching.Stop()
	w.mu.Lock()
	w.resumed++
	w.mu.Unlock()
	for e := range watching.ResultChan() {
		if !w.take(e) {
			return false
		}
	}
	return true
}

func (w *watcher) take(e watch.Event) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, ok := e.Object.(*corev1.ConfigMap)
	if !ok {
		if st, ok := e.Object.(*metav1.Status); ok && st.Code >= 500 {
			return true // the server is going
		}
		w.err = fmt.Errorf("the watch after %d ended with %v", w.last, e.Object)
		return false
	}
	rv := number(m.ResourceVersion)
	if e.Type == watch.Bookmark {
		if rv < w.last {
			w.err = fmt.Errorf("a bookmark goes back from %d to %d", w.last, rv)
		}
		w.last = rv
		return w.err == nil
	}
	if rv <= w.last {
		w.err = fmt.Errorf("%s of %s at %d came after %d: a repeat, or out of order", e.Type, m.Name, rv, w.last)
	}
	w.last = rv
	w.events = append(w.events, seenEvent{e.Type, m.Name, m.Data["value"], rv})
	return w.err == nil
}

// check waits until the watch has come to a revision, and holds what it saw
// against what was acknowledged and what is there (revisions by name, at a
// revision).
func (w *watcher) check(t *testing.T, marker, at int64, ops []op, there map[string]int64) {
	t.Helper()
	eventually(t, 30*time.Second, "the watch sees the marker", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		switch {
		case w.err != nil:
			t.Fatal(w.err)
		case w.last <= marker: // its deletion comes after
			return fmt.Errorf("at %d of %d", w.last, marker)
		}
		return nil
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	written := map[int64]seenEvent{}
	for ; w.checked < len(w.events) && w.events[w.checked].rv <= at; w.checked++ {
		e := w.events[w.checked]
		had, was := w.state[e.name]
		switch {
		case e.kind == watch.Added && was, e.kind != watch.Added && !was:
			t.Errorf("%s of %s at %d, which was at %d", e.kind, e.name, e.rv, had)
		case e.kind != watch.Deleted && w.values[e.value]:
			t.Errorf("%s was written twice: again by %s of %s at %d", e.value, e.kind, e.name, e.rv)
		}
		if e.kind == watch.Deleted {
			delete(w.state, e.name)
			continue
		}
		w.state[e.name] = e.rv
		w.values[e.value] = true
		written[e.rv] = e
	}
	if !maps.Equal(w.state, there) {
		t.Errorf("the watch tells of %v, but there is %v", w.state, there)
	}
	for _, o := range ops {
		if e := written[o.rv]; o.outcome == done && o.rv > 0 && (e.name != o.name || e.value != o.value) {
			t.Errorf("%v was acknowledged, the watch has %+v", o, e)
		}
	}
}
