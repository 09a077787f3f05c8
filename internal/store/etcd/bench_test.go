package etcd

import (
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/proa-dev/proa/internal/store"
)

func value() []byte { return make([]byte, 1024) }

// BenchmarkCommit creates keys of 1 kB, each on the condition that it is not there.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprint("writers=", writers), func(b *testing.B) {
			s := open(b, Config{})
			v := value()
			var wg sync.WaitGroup
			next := make(chan int, 1024)
			b.ResetTimer()
			for range writers {
				wg.Go(func() {
					for i := range next {
						if _, err := s.Commit(b.Context(), store.Write{Key: fmt.Sprintf("/bench/%09d", i), Value: v}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for i := range b.N {
				next <- i
			}
			close(next)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}

// BenchmarkRange reads 50,000 entries of 1 kB.
func BenchmarkRange(b *testing.B) {
	s := open(b, Config{})
	fill(b, s, 50_000)
	for b.Loop() {
		n := 0
		if _, err := s.Range(b.Context(), "/", store.RangeOptions{}, func(store.Entry) bool { n++; return true }); err != nil || n != 50_000 {
			b.Fatal(n, err)
		}
	}
}

func fill(b testing.TB, s store.Store, n int) {
	for i := 0; i < n; {
		var writes []store.Write
		for ; i < n && len(writes) < 500; i++ {
			writes = append(writes, store.Write{Key: fmt.Sprintf("/bench/%09d", i), Value: value()})
		}
		if _, err := s.Commit(b.Context(), writes...); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen measures how soon a server answers: a new one, and one that was
// closed with 10,000 entries.
func BenchmarkOpen(b *testing.B) {
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			s := open(b, Config{Dir: b.TempDir()})
			b.StopTimer()
			_ = s.Close()
			b.StartTimer()
		}
	})
	b.Run("again", func(b *testing.B) {
		dir := b.TempDir()
		s := open(b, Config{Dir: dir})
		for i := range 10_000 {
			if _, err := s.Commit(b.Context(), store.Write{Key: fmt.Sprintf("/bench/%09d", i), Value: value()}); err != nil {
				b.Fatal(err)
			}
		}
		_ = s.Close()
		for b.Loop() {
			s := open(b, Config{Dir: dir})
			b.StopTimer()
			_ = s.Close()
			b.StartTimer()
		}
	})
}

// BenchmarkIdle reports what a server costs that nobody uses.
func BenchmarkIdle(b *testing.B) {
	open(b, Config{})
	for range b.N {
	}
	runtime.GC()
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	const while = 10 * time.Second
	<-time.After(while)
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	cpu := func(r *syscall.Rusage) float64 {
		return float64(r.Utime.Sec+r.Stime.Sec) + float64(r.Utime.Usec+r.Stime.Usec)/1e6
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(100*(cpu(&after)-cpu(&before))/while.Seconds(), "%core")
	b.ReportMetric(float64(m.HeapAlloc)/1e6, "MB-heap")
	b.ReportMetric(float64(m.Sys-m.HeapReleased)/1e6, "MB-go")
}
