package stats

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// group is a control group on disk: one folder on cgroup v2, one for each
// controller on v1.
type group struct {
	v2  bool
	dir func(controller string) string
}

// below is a group inside this one.
func (g group) below(name string) group {
	return group{g.v2, func(c string) string { return filepath.Join(g.dir(c), name) }}
}

// container finds the group of a container, by whose ID it is called: alone, or
// with systemd in RUNTIME-ID.scope.
func (g group) container(id string) (group, bool) {
	in := g.dir("memory")
	if _, err := os.Stat(filepath.Join(in, id)); err == nil {
		return g.below(id), true
	}
	found, _ := filepath.Glob(filepath.Join(in, "*"+id+".scope"))
	if len(found) != 1 {
		return group{}, false
	}
	return g.below(filepath.Base(found[0])), true
}

// figures of a group at one time.
type figures struct {
	at         time.Time
	cpu        uint64 // nanoseconds in all
	usage      uint64 // bytes
	workingSet uint64
	rss        uint64
	limit      uint64 // 0 = none
	faults     uint64
	major      uint64
	swap       *uint64
	swapLeft   *uint64
	cpuPSI     *PSIStats
	memoryPSI  *PSIStats
	ioPSI      *PSIStats
}

// read the figures; false = the group is not there (any more).
func (g group) read() (f figures, ok bool) {
	if g.v2 {
		return g.readV2()
	}
	return g.readV1()
}

func (g group) readV1() (f figures, ok bool) {
	if f.cpu, ok = number(g.dir("cpuacct"), "cpuacct.usage"); !ok {
		return f, false
	}
	f.at = time.Now()
	memory := g.dir("memory")
	if f.usage, ok = number(memory, "memory.usage_in_bytes"); !ok {
		return f, false
	}
	s := pairs(memory, "memory.stat")
	f.workingSet = less(f.usage, s["total_inactive_file"])
	f.rss, f.faults, f.major = s["total_rss"], s["total_pgfault"], s["total_pgmajfault"]
	f.limit = bound(s["hierarchical_memory_limit"])
	if swap, ok := s["total_swap"]; ok {
		f.swap = &swap
		if both := bound(s["hierarchical_memsw_limit"]); both > 0 && f.limit > 0 {
			left := less(less(both, f.limit), swap)
			f.swapLeft = &left
		}
	}
	return f, true
}

func (g group) readV2() (f figures, ok bool) {
	dir := g.dir("")
	cpu := pairs(dir, "cpu.stat")
	if cpu == nil {
		return f, false
	}
	f.at = time.Now()
	f.cpu = cpu["usage_usec"] * 1000
	f.cpuPSI, f.memoryPSI, f.ioPSI = pressure(dir, "cpu.pressure"), pressure(dir, "memory.pressure"), pressure(dir, "io.pressure")
	if f.usage, ok = number(dir, "memory.current"); !ok { // the root has none
		return f, false
	}
	s := pairs(dir, "memory.stat")
	f.workingSet = less(f.usage, s["inactive_file"])
	f.rss, f.faults, f.major = s["anon"], s["pgfault"], s["pgmajfault"]
	f.limit, _ = number(dir, "memory.max")
	if swap, ok := number(dir, "memory.swap.current"); ok {
		f.swap = &swap
		if most, ok := number(dir, "memory.swap.max"); ok && most > 0 {
			left := less(most, swap)
			f.swapLeft = &left
		}
	}
	return f, true
}

// less never goes below 0: the parts are not read at the same instant.
func less(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}

// bound is a limit of v1, where no limit is a very large number.
func bound(n uint64) uint64 {
	if n > math.MaxInt64>>1 {
		return 0
	}
	return n
}

// number in a file; "max" is 0.
func number(dir, name string) (uint64, bool) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0, false
	}
	text := strings.TrimSpace(string(b))
	if text == "max" {
		return 0, true
	}
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil
}

// pairs "NAME NUMBER" of a file, one in a line; nil = it cannot be read.
func pairs(dir, name string) map[string]uint64 {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil
	}
	all := make(map[string]uint64, 48)
	for line := range strings.Lines(string(b)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(value, 10, 64); ok && err == nil {
			all[key] = n
		}
	}
	return all
}

// pressure of a resource; nil = this kernel does not say (no PSI, or switched off).
func pressure(dir, name string) *PSIStats {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil
	}
	s := &PSIStats{}
	for line := range strings.Lines(string(b)) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		d := &s.Some
		if kind == "full" {
			d = &s.Full
		}
		for word := range strings.FieldsSeq(rest) {
			key, value, _ := strings.Cut(word, "=")
			switch key {
			case "avg10":
				d.Avg10, _ = strconv.ParseFloat(value, 64)
			case "avg60":
				d.Avg60, _ = strconv.ParseFloat(value, 64)
			case "avg300":
				d.Avg300, _ = strconv.ParseFloat(value, 64)
			case "total":
				d.Total, _ = strconv.ParseUint(value, 10, 64)
			}
		}
	}
	return s
}

// The figures in the shapes of the summary.

func (f *figures) cpuStats() *CPUStats {
	return &CPUStats{Time: metav1.Time{Time: f.at}, UsageCoreNanoSeconds: &f.cpu, PSI: f.cpuPSI}
}

func (f *figures) memoryStats() *MemoryStats {
	m := &MemoryStats{
		Time: metav1.Time{Time: f.at}, UsageBytes: &f.usage, WorkingSetBytes: &f.workingSet,
		RSSBytes: &f.rss, PageFaults: &f.faults, MajorPageFaults: &f.major, PSI: f.memoryPSI,
	}
	if f.limit > 0 {
		left := less(f.limit, f.workingSet)
		m.AvailableBytes = &left
	}
	return m
}

func (f *figures) swapStats() *SwapStats {
	if f.swap == nil {
		return nil
	}
	return &SwapStats{Time: metav1.Time{Time: f.at}, AvailableBytes: f.swapLeft, UsageBytes: f.swap}
}

func (f *figures) ioStats() *IOStats {
	if f.ioPSI == nil {
		return nil
	}
	return &IOStats{Time: metav1.Time{Time: f.at}, PSI: f.ioPSI}
}
