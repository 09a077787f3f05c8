package etcd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/proa-dev/proa/internal/store"
)

// TestLetGo: the file's pages are let go, and what is in them is still read.
func TestLetGo(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), Config{Dir: dir, History: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	value := []byte(strings.Repeat("x", 100_000))
	write := func(n, of int) {
		for i := n; i < n+of; i++ {
			if _, err := s.Commit(t.Context(), store.Write{Key: fmt.Sprintf("/configmaps/a/%04d", i), Value: value}); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(0, 2*mappedMost/len(value))
	read := func() {
		n := 0
		if _, err := s.Range(t.Context(), "/configmaps/", store.RangeOptions{}, func(e store.Entry) bool {
			if n++; string(e.Value) != string(value) {
				t.Fatal("another value")
			}
			return true
		}); err != nil || n != 2*mappedMost/len(value) {
			t.Fatal(n, err)
		}
	}
	s.server.Backend().ForceCommit()
	read()
	before := resident(t, filepath.Join(dir, "member", "snap", "db"))
	s.server.letGo()
	after := resident(t, filepath.Join(dir, "member", "snap", "db"))
	if before < mappedMost>>10 || after > before/4 {
		t.Errorf("resident were %d kB, and %d kB after", before, after)
	}
	read()
	// It happens by itself while others write.
	s.server.room.added.Store(2 * mappedMost)
	s.server.look()
	wait, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for s.server.room.added.Load() > mappedMost {
		if wait.Err() != nil {
			t.Fatal("nobody let the pages go")
		}
		runtime.Gosched()
	}
	write(9000, 3)
}

// resident pages of a mapped file, in kB.
func resident(t *testing.T, file string) (kb int) {
	t.Helper()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	of := false
	for line := range strings.Lines(string(smaps)) {
		if f := strings.Fields(line); strings.Contains(f[0], "-") {
			of = strings.HasSuffix(strings.TrimSpace(line), " "+file)
		} else if of && f[0] == "Rss:" {
			var n int
			fmt.Sscan(f[1], &n)
			kb += n
		}
	}
	return kb
}
