// Package storetest is the contract of store.Store as tests. Every
// implementation runs it.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/proa-dev/proa/internal/store"
)

// patience is how long anything here may take before it counts as not happening.
const patience = 20 * time.Second

// Run holds an implementation to the contract. open makes a new, empty store.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for name, test := range map[string]func(*testing.T, store.Store){
		"conflicts":               conflicts,
		"transactions are atomic": atomic,
		"bad transactions":        badTransactions,
		"empty values are values": emptyValues,
		"range":                   ranges,
		"pages are of one state":  pages,
		"watch":                   watch,
		"watch has no gap":        watchNoGap,
		"compaction":              compaction,
		"expiry":                  expiry,
		"writers at once":         writers,
		"revision":                revision,
		"contexts that ended":     contexts,
		"close":                   closing,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() { _ = s.Close() })
			test(t, s)
		})
	}
}

func put(t testing.TB, s store.Store, key, value string, prior int64) int64 {
	t.Helper()
	rev, err := s.Commit(t.Context(), store.Write{Key: key, Value: []byte(value), Prior: prior})
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return rev
}

func list(t testing.TB, s store.Store, prefix string, opt store.RangeOptions) (out []string, rev int64) {
	t.Helper()
	rev, err := s.Range(t.Context(), prefix, opt, func(e store.Entry) bool {
		out = append(out, e.Key+"="+string(e.Value))
		return true
	})
	if err != nil {
		t.Fatalf("range %s: %v", prefix, err)
	}
	return out, rev
}

func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: got %q, want %q", what, got, want)
	}
}

func wantConflict(t testing.TB, err error, key string, current int64) {
	t.Helper()
	var c *store.Conflict
	switch {
	case !errors.As(err, &c) || c.Key != key:
		t.Fatalf("got %v, want a conflict on %s", err, key)
	case current == 0 && c.Current != nil:
		t.Fatalf("conflict on %s: current is %v, want none", key, c.Current)
	case current != 0 && (c.Current == nil || c.Current.Revision != current || c.Current.Key != key):
		t.Fatalf("conflict on %s: current is %v, want revision %d", key, c.Current, current)
	}
}

func conflicts(t *testing.T, s store.Store) {
	one := put(t, s, "/a/x", "1", 0)
	commit := func(w store.Write) error {
		_, err := s.Commit(t.Context(), w)
		return err
	}
	wantConflict(t, commit(store.Write{Key: "/a/x", Value: []byte("2")}), "/a/x", one)
	wantConflict(t, commit(store.Write{Key: "/a/x", Value: []byte("2"), Prior: one - 1}), "/a/x", one)
	wantConflict(t, commit(store.Write{Key: "/a/y", Value: []byte("2"), Prior: one}), "/a/y", 0)
	wantConflict(t, commit(store.Write{Key: "/a/y", Prior: one}), "/a/y", 0)
	two := put(t, s, "/a/x", "2", one)
	if two <= one {
		t.Fatalf("revision %d after %d", two, one)
	}
	if err := commit(store.Write{Key: "/a/x", Value: []byte("3"), Unsafe: true}); err != nil {
		t.Fatal(err)
	}
	wantConflict(t, commit(store.Write{Key: "/a/x", Prior: two}), "/a/x", two+1)
	if err := commit(store.Write{Key: "/a/x", Prior: two + 1}); err != nil {
		t.Fatal(err)
	}
	put(t, s, "/a/x", "again", 0)
	if err := commit(store.Write{Key: "/not/there", Unsafe: true}); err != nil {
		t.Fatal("unsafe deletion of nothing:", err)
	}
}

func atomic(t *testing.T, s store.Store) {
	x := put(t, s, "/a/x", "1", 0)
	stream := follow(t, s, x)
	_, err := s.Commit(t.Context(),
		store.Write{Key: "/a/new", Value: []byte("1")},
		store.Write{Key: "/a/x", Prior: x},
		store.Write{Key: "/a/gone", Prior: x})
	wantConflict(t, err, "/a/gone", 0)
	got, _ := list(t, s, "/", store.RangeOptions{})
	same(t, "after a failed transaction", got, []string{"/a/x=1"})

	rev, err := s.Commit(t.Context(),
		store.Write{Key: "/b/new", Value: []byte("1")},
		store.Write{Key: "/a/x", Prior: x},
		store.Write{Key: "/a/y", Value: []byte("2"), Unsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	b := next(t, stream)
	var events []string
	for _, e := range b.Events {
		if e.Revision != rev {
			t.Errorf("an event of %d in the batch of %d", e.Revision, rev)
		}
		events = append(events, text(e))
	}
	slices.Sort(events)
	if b.Revision != rev {
		t.Errorf("batch of %d, want %d", b.Revision, rev)
	}
	same(t, "one batch", events, []string{"+/a/y=2", "+/b/new=1", "-/a/x"})

	many := make([]store.Write, 1000)
	for i := range many {
		many[i] = store.Write{Key: fmt.Sprintf("/many/%04d", i), Value: []byte("v")}
	}
	if _, err := s.Commit(t.Context(), many...); err != nil && !errors.Is(err, store.ErrTooLarge) {
		t.Fatal(err)
	}
}

func badTransactions(t *testing.T, s store.Store) {
	for name, writes := range map[string][]store.Write{
		"nothing":          {},
		"a key twice":      {{Key: "/a", Value: []byte("1")}, {Key: "/a", Value: []byte("2"), Unsafe: true}},
		"a key without /":  {{Key: "a", Value: []byte("1")}},
		"put and deletion": {{Key: "/a", Value: []byte("1")}, {Key: "/a", Unsafe: true}},
	} {
		if _, err := s.Commit(t.Context(), writes...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	got, _ := list(t, s, "/", store.RangeOptions{})
	same(t, "afterwards", got, nil)
}

func emptyValues(t *testing.T, s store.Store) {
	rev := put(t, s, "/a/x", "", 0)
	if _, err := s.Range(t.Context(), "/a/", store.RangeOptions{}, func(e store.Entry) bool {
		if e.Revision != rev || len(e.Value) != 0 || e.Created != rev {
			t.Errorf("%+v", e)
		}
		rev = 0
		return true
	}); err != nil || rev != 0 {
		t.Fatal("an empty value deletes", err)
	}
}

func ranges(t *testing.T, s store.Store) {
	if got, rev := list(t, s, "/", store.RangeOptions{}); len(got) != 0 || rev < 1 {
		t.Fatal("empty store", got, rev)
	}
	for _, k := range []string{"/pods/b/1", "/pods/a/2", "/pods/a/1", "/pods/a-b/1", "/podsx/a", "/pod/a"} {
		put(t, s, k, "v", 0)
	}
	got, rev := list(t, s, "/pods/", store.RangeOptions{})
	same(t, "prefix", got, []string{"/pods/a-b/1=v", "/pods/a/1=v", "/pods/a/2=v", "/pods/b/1=v"})
	if now, _ := s.Revision(t.Context()); rev != now {
		t.Errorf("read at %d, now is %d", rev, now)
	}
	got, _ = list(t, s, "/pods/", store.RangeOptions{From: "/pods/a/2"})
	same(t, "from", got, []string{"/pods/a/2=v", "/pods/b/1=v"})
	got, _ = list(t, s, "/pods/", store.RangeOptions{From: "/pods/a/1\x00", Page: 1})
	same(t, "from after", got, []string{"/pods/a/2=v", "/pods/b/1=v"})
	for _, from := range []string{"/pods/zzz", "/zzz"} {
		got, _ = list(t, s, "/pods/", store.RangeOptions{From: from})
		same(t, "from beyond", got, nil)
	}
	n := 0
	if _, err := s.Range(t.Context(), "/pods/", store.RangeOptions{}, func(store.Entry) bool { n++; return n < 2 }); err != nil || n != 2 {
		t.Errorf("stopping: %d visits, %v", n, err)
	}
	if _, err := s.Range(t.Context(), "/", store.RangeOptions{Revision: rev + 100}, nil); !errors.Is(err, store.ErrFuture) {
		t.Errorf("future: %v", err)
	}
	x, _ := list(t, s, "/pods/a/", store.RangeOptions{Revision: rev - 4})
	same(t, "in the past", x, []string{"/pods/a/2=v"})
}

// pages writes between the pages of a read, which shows none of it.
func pages(t *testing.T, s store.Store) {
	var want []string
	revs := map[string]int64{}
	for i := range 10 {
		key := fmt.Sprintf("/a/%02d", i)
		revs[key] = put(t, s, key, "old", 0)
		want = append(want, key+"=old")
	}
	var got []string
	at, err := s.Range(t.Context(), "/a/", store.RangeOptions{Page: 3}, func(e store.Entry) bool {
		got = append(got, e.Key+"="+string(e.Value))
		if len(got) == 2 {
			put(t, s, "/a/055", "inserted", 0)
			put(t, s, "/a/07", "new", revs["/a/07"])
			if _, err := s.Commit(t.Context(), store.Write{Key: "/a/08", Prior: revs["/a/08"]}); err != nil {
				t.Error(err)
			}
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "while it changes", got, want)
	got, rev := list(t, s, "/a/", store.RangeOptions{Revision: at})
	same(t, "again at that revision", got, want)
	if rev != at {
		t.Errorf("read at %d, asked for %d", rev, at)
	}
}

func revision(t *testing.T, s store.Store) {
	for i := range 50 {
		rev := put(t, s, fmt.Sprintf("/a/%d", i), "v", 0)
		if now, err := s.Revision(t.Context()); err != nil || now < rev {
			t.Fatalf("revision %d after the commit of %d: %v", now, rev, err)
		}
	}
}

func contexts(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Commit(ctx, store.Write{Key: "/a", Value: []byte("1")}); !errors.Is(err, context.Canceled) {
		t.Error("commit:", err)
	}
	if _, err := s.Range(ctx, "/", store.RangeOptions{}, func(store.Entry) bool { return true }); err != nil && !errors.Is(err, context.Canceled) {
		t.Error("range:", err)
	}
}

func closing(t *testing.T, s store.Store) {
	stream := follow(t, s, put(t, s, "/a", "1", 0))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case _, ok := <-stream.Batches():
		if ok {
			t.Error("a batch out of nothing")
		}
	case <-time.After(patience):
		t.Fatal("the watch outlives the store")
	}
	if !errors.Is(stream.Err(), store.ErrUnavailable) {
		t.Error("watch:", stream.Err())
	}
	if _, err := s.Commit(t.Context(), store.Write{Key: "/b", Value: []byte("1")}); !errors.Is(err, store.ErrUnavailable) {
		t.Error("commit:", err)
	}
	if _, err := s.Watch(t.Context(), 1); err == nil {
		t.Error("watch of a closed store")
	}
	if err := s.Close(); err != nil {
		t.Error("closing twice:", err)
	}
}

func text(e store.Event) string {
	if e.Deleted {
		return "-" + e.Key
	}
	return "+" + e.Key + "=" + string(bytes.TrimSpace(e.Value))
}
