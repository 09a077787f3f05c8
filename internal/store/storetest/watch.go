package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/proa-dev/proa/internal/store"
)

func follow(t testing.TB, s store.Store, after int64) store.Stream {
	t.Helper()
	stream, err := s.Watch(t.Context(), after)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// next returns the next batch that says anything.
func next(t testing.TB, s store.Stream) store.Batch {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case b, ok := <-s.Batches():
			if !ok {
				t.Fatal("the watch ended:", s.Err())
			}
			if len(b.Events) > 0 {
				return b
			}
		case <-timeout:
			t.Fatal("no event")
		}
	}
}

func watch(t *testing.T, s store.Store) {
	first := put(t, s, "/a/x", "1", 0)
	second := put(t, s, "/a/x", "2", first)
	past, now := follow(t, s, first-1), follow(t, s, second)
	third, err := s.Commit(t.Context(), store.Write{Key: "/a/x", Prior: second})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "/a/x", "3", 0)
	for _, want := range []string{"+/a/x=1", "+/a/x=2", "-/a/x", "+/a/x=3"} {
		if got := text(next(t, past).Events[0]); got != want {
			t.Fatalf("from the past: %s, want %s", got, want)
		}
	}
	gone := next(t, now).Events[0]
	if !gone.Deleted || gone.Revision != third || gone.Key != "/a/x" {
		t.Fatalf("deletion: %+v", gone)
	}
	if e := next(t, now).Events[0]; e.Created != third+1 || e.Revision != third+1 {
		t.Fatalf("a key made again: %+v", e)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := s.Watch(ctx, third)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	for range stream.Batches() {
	}
	if !errors.Is(stream.Err(), context.Canceled) {
		t.Error(stream.Err())
	}
	future := follow(t, s, third+2) // one more than there is
	put(t, s, "/f/1", "1", 0)
	put(t, s, "/f/2", "1", 0)
	if got := text(next(t, future).Events[0]); got != "+/f/2=1" {
		t.Error("from the future:", got)
	}
}

// watchNoGap begins watches while others write, and reads them slowly.
func watchNoGap(t *testing.T, s store.Store) {
	const n = 2000
	start, err := s.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := range n {
			if _, err := s.Commit(t.Context(), store.Write{Key: "/k", Value: fmt.Append(nil, i), Unsafe: true}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	read := func(after int64, from int) {
		stream := follow(t, s, after)
		last := after
		for i := from; i < n; i++ {
			b := next(t, stream)
			if b.Revision <= last || len(b.Events) != 1 {
				t.Errorf("batch %d after %d with %d events", b.Revision, last, len(b.Events))
				return
			}
			if want := fmt.Sprint("+/k=", i); text(b.Events[0]) != want {
				t.Errorf("after %d: got %s, want %s", last, text(b.Events[0]), want)
				return
			}
			last = b.Revision
			if i%100 == 0 {
				wg.Go(func() { _, _ = s.Revision(t.Context()) })
			}
		}
	}
	for i := 0; i < n; i += n / 4 {
		wg.Go(func() { read(start+int64(i), i) })
	}
}

func compaction(t *testing.T, s store.Store) {
	var revs []int64
	var prior int64
	for i := range 10 {
		prior = put(t, s, "/a/x", fmt.Sprint(i), prior)
		revs = append(revs, prior)
	}
	put(t, s, "/a/kept", "k", 0)
	if err := s.Compact(t.Context(), prior+1000); !errors.Is(err, store.ErrFuture) {
		t.Error("compacting the future:", err)
	}
	if err := s.Compact(t.Context(), revs[5]); err != nil {
		t.Fatal(err)
	}
	if err := s.Compact(t.Context(), revs[5]); err != nil {
		t.Error("compacting again:", err)
	}
	if err := s.Compact(t.Context(), revs[2]); err != nil {
		t.Error("compacting what is compacted:", err)
	}
	_, err := s.Range(t.Context(), "/", store.RangeOptions{Revision: revs[3]}, func(store.Entry) bool { return true })
	if !errors.Is(err, store.ErrCompacted) {
		t.Error("range of the past:", err)
	}
	got, _ := list(t, s, "/", store.RangeOptions{Revision: revs[5]})
	same(t, "at the compaction", got, []string{"/a/x=5"})
	got, _ = list(t, s, "/", store.RangeOptions{})
	same(t, "now", got, []string{"/a/kept=k", "/a/x=9"})

	stream, err := s.Watch(t.Context(), revs[1])
	if err == nil {
		for range stream.Batches() {
		}
		err = stream.Err()
	}
	if !errors.Is(err, store.ErrCompacted) {
		t.Error("watch of the past:", err)
	}
	if b := next(t, follow(t, s, revs[5])); text(b.Events[0]) != "+/a/x=6" {
		t.Error("watch after the compaction:", b)
	}
}

func expiry(t *testing.T, s store.Store) {
	const ttl = time.Second
	began := time.Now()
	rev, err := s.Commit(t.Context(), store.Write{Key: "/a/brief", Value: []byte("1"), TTL: ttl}, store.Write{Key: "/a/too", Value: []byte("1"), TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	one := put(t, s, "/a/kept", "1", 0)
	again, err := s.Commit(t.Context(), store.Write{Key: "/a/again", Value: []byte("1"), TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "/a/again", "without", again)
	stream := follow(t, s, rev)
	gone := map[string]bool{}
	for len(gone) < 2 {
		for _, e := range next(t, stream).Events {
			if e.Deleted {
				gone[e.Key] = true
			}
		}
	}
	if took := time.Since(began); took < ttl {
		t.Errorf("gone after %v", took)
	}
	if !gone["/a/brief"] || !gone["/a/too"] {
		t.Error("gone:", gone)
	}
	got, _ := list(t, s, "/", store.RangeOptions{})
	same(t, "left", got, []string{"/a/again=without", "/a/kept=1"})
	put(t, s, "/a/kept", "2", one)
}

// writers add to counters at the same time; nothing gets lost.
func writers(t *testing.T, s store.Store) {
	const each, many = 20, 8
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			for range each {
				var cur store.Entry
				for {
					var value int
					_, _ = fmt.Sscan(string(cur.Value), &value)
					rev, err := s.Commit(t.Context(), store.Write{Key: "/n", Value: fmt.Append(nil, value+1), Prior: cur.Revision})
					if err == nil {
						if rev <= cur.Revision {
							t.Errorf("%d after %d", rev, cur.Revision)
						}
						break
					}
					var c *store.Conflict
					if !errors.As(err, &c) || c.Current == nil {
						t.Error(err)
						return
					}
					cur = *c.Current
				}
			}
		})
	}
	wg.Wait()
	got, _ := list(t, s, "/", store.RangeOptions{})
	same(t, "sum", got, []string{fmt.Sprint("/n=", each*many)})
}
