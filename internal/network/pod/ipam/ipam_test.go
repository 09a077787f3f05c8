package ipam

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func ranges(list ...string) (r []netip.Prefix) {
	for _, s := range list {
		r = append(r, netip.MustParsePrefix(s))
	}
	return r
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "net"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTakeAndFree(t *testing.T) {
	s, r := open(t), ranges("10.1.2.0/24", "fd00::/64")
	a, err := s.Take(Owner{"one", "eth0"}, r)
	if err != nil || fmt.Sprint(a) != "[10.1.2.2 fd00::2]" {
		t.Fatal(a, err)
	}
	b, err := s.Take(Owner{"two", "eth0"}, r)
	if err != nil || fmt.Sprint(b) != "[10.1.2.3 fd00::3]" {
		t.Fatal(b, err)
	}
	if err := s.Free(Owner{"one", "eth1"}, a...); err != nil {
		t.Fatal(err)
	}
	if own, err := s.Owned(Owner{"one", "eth0"}); err != nil || len(own) != 2 {
		t.Errorf("another interface's addresses were freed: %v %v", own, err)
	}
	for range 2 { // it may be said twice
		if err := s.Free(Owner{"one", "eth0"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Free(Owner{"two", "eth0"}, b...); err != nil {
		t.Fatal(err)
	}
	if all, err := s.All(); err != nil || len(all) != 0 {
		t.Errorf("left: %v %v", all, err)
	}
	if c, err := s.Take(Owner{"three", "eth0"}, r); err != nil || fmt.Sprint(c) != "[10.1.2.4 fd00::4]" {
		t.Errorf("an address that was just freed is used at once: %v %v", c, err)
	}
}

// A range is used to its last address, then goes round, and says so when it is full.
func TestExhausted(t *testing.T) {
	s, r := open(t), ranges("10.1.2.0/29", "fd00::/120")
	seen := map[netip.Addr]bool{}
	for i := range 5 {
		a, err := s.Take(Owner{fmt.Sprint(i), "eth0"}, r)
		if err != nil || seen[a[0]] {
			t.Fatal(a, err)
		}
		seen[a[0]] = true
	}
	if seen[netip.MustParseAddr("10.1.2.0")] || seen[netip.MustParseAddr("10.1.2.1")] || seen[netip.MustParseAddr("10.1.2.7")] {
		t.Errorf("network, gateway or broadcast address given out: %v", seen)
	}
	_, err := s.Take(Owner{"more", "eth0"}, r)
	var full *Exhausted
	if !errors.As(err, &full) || !strings.Contains(err.Error(), "10.1.2.0/29") || !strings.Contains(err.Error(), "all 5") {
		t.Fatal(err)
	}
	if _, err := s.Take(Owner{"more", "eth0"}, ranges("fd00::/120", "10.1.2.0/29")); !errors.As(err, &full) {
		t.Fatal(err)
	}
	if own, _ := s.Owned(Owner{"more", "eth0"}); len(own) != 0 {
		t.Errorf("a taker who did not get all has kept %v", own)
	}
	if err := s.Free(Owner{"2", "eth0"}); err != nil {
		t.Fatal(err)
	}
	if a, err := s.Take(Owner{"more", "eth0"}, r); err != nil || a[0].String() != "10.1.2.4" {
		t.Error(a, err)
	}
	for _, tiny := range []string{"10.9.9.9/32", "10.9.9.8/31", "10.9.9.8/30"} {
		a, err := open(t).Take(Owner{"x", "eth0"}, ranges(tiny))
		if tiny == "10.9.9.8/30" && (err != nil || a[0].String() != "10.9.9.10") || tiny != "10.9.9.8/30" && !errors.As(err, &full) {
			t.Error(tiny, a, err)
		}
	}
}

// What host-local has written is known, and freed.
func TestTakesOverFromHostLocal(t *testing.T) {
	s := open(t)
	for name, content := range map[string]string{"10.1.2.2": "abc\r\neth0", "last_reserved_ip.0": "10.1.2.2", "lock": ""} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if a, err := s.Take(Owner{"def", "eth0"}, ranges("10.1.2.0/24")); err != nil || a[0].String() != "10.1.2.3" {
		t.Fatal(a, err)
	}
	if err := s.Free(Owner{"abc", "eth0"}); err != nil {
		t.Fatal(err)
	}
	if all, _ := s.All(); len(all) != 1 {
		t.Error(all)
	}
}

func TestCollect(t *testing.T) {
	s := open(t)
	for _, name := range []string{"kept", "gone", "fresh"} {
		if _, err := s.Take(Owner{name, "eth0"}, ranges("10.1.2.0/24", "fd00::/64")); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-time.Hour)
	for a, owner := range must(s.All()) {
		if owner.Container != "fresh" {
			os.Chtimes(s.file(a), old, old)
		}
	}
	gone, err := s.Collect(func(o Owner) bool { return o.Container == "kept" }, time.Now().Add(-time.Minute))
	if err != nil || len(gone) != 2 || gone[0].Container != "gone" {
		t.Error(gone, err)
	}
	if all := must(s.All()); len(all) != 4 {
		t.Error(all)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// held is that a process had an address, by a clock that all share.
type held struct {
	by         string
	from, till int64
}

// Many processes take and free at once; some are killed in the midst of it. No
// address is ever two pods', and none is lost.
func TestManyAtOnceAndKilled(t *testing.T) {
	if dir := os.Getenv("IPAM_TEST_DIR"); dir != "" {
		taker(dir, os.Getenv("IPAM_TEST_NAME"))
		return
	}
	dir := filepath.Join(t.TempDir(), "net")
	s := must(Open(dir))
	var mu sync.Mutex
	times := map[string][]held{}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			name := fmt.Sprint("p", i)
			cmd := exec.Command(os.Args[0], "-test.run", "^TestManyAtOnceAndKilled$")
			cmd.Env = append(os.Environ(), "IPAM_TEST_DIR="+dir, "IPAM_TEST_NAME="+name)
			out := must(cmd.StdoutPipe())
			if err := cmd.Start(); err != nil {
				t.Error(err)
				return
			}
			lines, n := bufio.NewScanner(out), 0
			for lines.Scan() {
				var verb, addr string
				var at int64
				if _, err := fmt.Sscan(lines.Text(), &verb, &addr, &at); err != nil {
					continue // what the testing package prints
				}
				mu.Lock()
				if own := times[addr]; verb == "took" {
					times[addr] = append(own, held{name, at, 1<<63 - 1})
				} else if i := slices.IndexFunc(own, func(h held) bool { return h.by == name && h.till == 1<<63-1 }); i >= 0 {
					own[i].till = at
				}
				mu.Unlock()
				if n++; i%2 == 0 && n == 40+i { // wherever it is now
					cmd.Process.Kill()
				}
			}
			cmd.Wait()
		})
	}
	wg.Wait()
	for addr, list := range times {
		slices.SortFunc(list, func(a, b held) int { return cmp.Compare(a.from, b.from) })
		for i := 1; i < len(list); i++ {
			if list[i].from < list[i-1].till {
				t.Errorf("%s took %s while %s had it", list[i].by, addr, list[i-1].by)
			}
		}
	}
	if _, err := s.Collect(func(Owner) bool { return false }, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for i := range 61 { // all of the range but its network, gateway and broadcast addresses
		if _, err := s.Take(Owner{fmt.Sprint("after", i), "eth0"}, ranges("10.1.2.0/26")); err != nil {
			t.Fatalf("an address was lost: %d: %v", i, err)
		}
	}
}

// taker is one of the many.
func taker(dir, name string) {
	now := func() (at int64) {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			panic(err)
		}
		return ts.Nano()
	}
	s := must(Open(dir))
	for i := range 60 {
		owner := Owner{fmt.Sprint(name, "-", i), "eth0"}
		a := must(s.Take(owner, ranges("10.1.2.0/26")))
		fmt.Println("took", a[0], now())
		fmt.Println("frees", a[0], now())
		if err := s.Free(owner, a...); err != nil {
			panic(err)
		}
	}
}
