package stats

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/kubelet/node"
)

// machine is what all of the machine uses: the root of the control groups, and
// on v2, where the root says little of memory, /proc.
func machine(root group, capacity uint64) figures {
	f, ok := root.read()
	if f.at.IsZero() {
		f.at, f.cpu = time.Now(), busyNanos()
	}
	if !ok {
		memory := meminfo()
		f.usage = less(capacity, memory["MemFree"])
		f.workingSet = less(f.usage, memory["Inactive(file)"])
		f.rss = memory["AnonPages"]
		vm := pairs("/proc", "vmstat")
		f.faults, f.major = vm["pgfault"], vm["pgmajfault"]
	}
	f.limit = capacity
	f.swap, f.swapLeft = nil, nil
	if memory := meminfo(); memory["SwapTotal"] > 0 {
		used, left := less(memory["SwapTotal"], memory["SwapFree"]), memory["SwapFree"]
		f.swap, f.swapLeft = &used, &left
	}
	if f.cpuPSI == nil {
		f.cpuPSI, f.memoryPSI, f.ioPSI = pressure("/proc/pressure", "cpu"), pressure("/proc/pressure", "memory"), pressure("/proc/pressure", "io")
	}
	return f
}

// meminfo in bytes.
func meminfo() map[string]uint64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return nil
	}
	all := make(map[string]uint64, 64)
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		if n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64); err == nil {
			all[key] = n << 10
		}
	}
	return all
}

// busyNanos is the CPU time that all of the machine has spent working.
func busyNanos() uint64 {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	sum := uint64(0)
	for i, w := range strings.Fields(line) {
		if n, err := strconv.ParseUint(w, 10, 64); err == nil && i != 4 && i != 5 && i < 9 { // idle, iowait, guest
			sum += n
		}
	}
	return sum * 10_000_000 // ticks of 1/100 s
}

func boot() time.Time {
	b, _ := os.ReadFile("/proc/uptime")
	seconds, _, _ := strings.Cut(string(b), " ")
	up, _ := strconv.ParseFloat(seconds, 64)
	return time.Now().Add(-time.Duration(up * float64(time.Second))).Truncate(time.Second)
}

// capacity of the machine's memory in bytes.
func capacity(root string) uint64 {
	c, err := node.Capacity(root, 0)
	if err != nil {
		return 0
	}
	return uint64(c.Memory().Value())
}

// processes that run, and how many there can be.
func processes() *RlimitStats {
	r := &RlimitStats{Time: metav1.Now()}
	if n, ok := number("/proc/sys/kernel", "pid_max"); ok {
		most := int64(n)
		r.MaxPID = &most
	}
	b, _ := os.ReadFile("/proc/loadavg")
	if words := strings.Fields(string(b)); len(words) > 3 {
		_, all, _ := strings.Cut(words[3], "/")
		if n, err := strconv.ParseInt(all, 10, 64); err == nil {
			r.Running = &n
		}
	}
	return r
}

// network interfaces of the machine (lo and the ends of pods' pairs are not among
// them), the one with the default route first.
func network(proc string) *NetworkStats {
	b, err := os.ReadFile(filepath.Join(proc, "net/dev"))
	if err != nil {
		return nil
	}
	n := &NetworkStats{Time: metav1.Now()}
	main := defaultRoute(proc)
	for line := range strings.Lines(string(b)) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		words := strings.Fields(rest)
		if !ok || len(words) < 11 || name == "lo" || strings.HasPrefix(name, "veth") {
			continue
		}
		at := func(i int) *uint64 {
			v, err := strconv.ParseUint(words[i], 10, 64)
			if err != nil {
				return nil
			}
			return &v
		}
		i := InterfaceStats{Name: name, RxBytes: at(0), RxErrors: at(2), TxBytes: at(8), TxErrors: at(10)}
		n.Interfaces = append(n.Interfaces, i)
		if name == main || main == "" && n.Name == "" {
			n.InterfaceStats = i
		}
	}
	return n
}

func defaultRoute(proc string) string {
	b, _ := os.ReadFile(filepath.Join(proc, "net/route"))
	for line := range strings.Lines(string(b)) {
		if words := strings.Fields(line); len(words) > 2 && words[1] == "00000000" {
			return words[0]
		}
	}
	return ""
}
