package cache

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/proa-dev/proa/internal/store"
	"github.com/proa-dev/proa/internal/store/etcd"
	"github.com/proa-dev/proa/internal/store/memory"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// bigPod has a few containers, and managed fields as most objects have: 2.7 kB in the store.
func bigPod(ns, name string) *corev1.Pod {
	p := pod(ns, name, "n1", "1")
	for i := range 8 {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: fmt.Sprint("c", i), Image: "registry.example/some/image:tag", Env: []corev1.EnvVar{{Name: "SOME_NAME", Value: "some value that is not short"}, {Name: "OTHER", Value: "another"}}, Command: []string{"/bin/sh", "-c", "echo hello"}})
	}
	p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl", Operation: "Apply", FieldsV1: &metav1.FieldsV1{Raw: []byte(strings.Repeat(`{"f:spec":{}}`, 100))}}}
	return p
}

// stored fills a store with pods.
func stored(b testing.TB, n int) *memory.Store {
	s := memory.New()
	var rev int64
	for i := range n {
		p := bigPod(fmt.Sprint("ns", i%50), fmt.Sprint("pod-", i))
		var err error
		if rev, err = s.Commit(context.Background(), store.Write{Key: "/pods/" + p.Namespace + "/" + p.Name, Value: encode(b, p)}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Compact(context.Background(), rev); err != nil {
		b.Fatal(err)
	}
	return s
}

func BenchmarkLoad50000(b *testing.B) {
	s := stored(b, 50_000)
	for b.Loop() {
		c := New(Config{Store: s, Catalog: catalog(), Decode: decode})
		if _, err := c.begin(b.Context(), false); err != nil || c.Of(pods).Snapshot().Len() != 50_000 {
			b.Fatal(err)
		}
	}
}

// BenchmarkCommit is a whole write by 16 writers: into a store in memory, through
// the feed, and back. watchers all watch everything; rate is of events delivered.
func BenchmarkCommit(b *testing.B) {
	for _, watchers := range []int{0, 1, 300} {
		b.Run(fmt.Sprint("watchers=", watchers), func(b *testing.B) {
			c := start(b, memory.New(), Config{})
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			var delivered atomic.Int64
			for range watchers {
				w, err := c.Of(pods).Watch(WatchOptions{})
				if err != nil {
					b.Fatal(err)
				}
				wg.Go(func() {
					for {
						events, _, err := w.Next(ctx)
						if err != nil {
							return
						}
						delivered.Add(int64(len(events)))
					}
				})
			}
			value := encode(b, bigPod("ns", "name"))
			var n atomic.Int64
			b.SetParallelism(8)
			b.ResetTimer()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					name := fmt.Sprint("pod-", n.Add(1))
					obj := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
					if _, _, err := c.Commit(ctx, Change{Kind: pods, Namespace: "ns", Name: name, Object: obj, Value: value}); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			b.ReportMetric(float64(delivered.Load())/b.Elapsed().Seconds(), "events/s")
			cancel()
			wg.Wait()
		})
	}
}

func BenchmarkSnapshotAndList10000(b *testing.B) {
	c := start(b, stored(b, 10_000), Config{})
	set := c.Of(pods)
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			n := 0
			set.Snapshot().Ascend("", "", "", func(*Item) bool { n++; return true })
			if n != 10_000 {
				b.Fatal(n)
			}
		}
	})
	b.Run("get", func(b *testing.B) {
		for b.Loop() {
			if set.Get("ns1", "pod-1") == nil {
				b.Fatal()
			}
		}
	})
	b.Run("snapshot after every write", func(b *testing.B) {
		item := set.Get("ns1", "pod-1")
		value := encode(b, bigPod("ns1", "pod-1"))
		for b.Loop() {
			items, _, err := c.Commit(context.Background(), Change{Kind: pods, Namespace: "ns1", Name: "pod-1", Prior: item.Revision, Object: bigPod("ns1", "pod-1"), Value: value})
			if err != nil {
				b.Fatal(err)
			}
			item = items[0]
			set.Snapshot()
		}
	})
}

// BenchmarkCommitEtcd is a whole write into etcd and back into the cache.
func BenchmarkCommitEtcd(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprint("writers=", writers), func(b *testing.B) {
			s, err := etcd.Open(context.Background(), etcd.Config{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			c := start(b, s, Config{})
			value := encode(b, bigPod("ns", "name"))
			work := make(chan int, 1024)
			var wg sync.WaitGroup
			b.ResetTimer()
			for range writers {
				wg.Go(func() {
					for i := range work {
						name := fmt.Sprint("pod-", i)
						obj := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
						if _, _, err := c.Commit(context.Background(), Change{Kind: pods, Namespace: "ns", Name: name, Object: obj, Value: value}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for i := range b.N {
				work <- i
			}
			close(work)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}
