package stats

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// lay files out below a folder.
func lay(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestGroupV1(t *testing.T) {
	root := lay(t, map[string]string{
		"cpuacct/pod/abc/cpuacct.usage":        "32674296\n",
		"memory/pod/abc/memory.usage_in_bytes": "10000\n",
		"memory/pod/abc/memory.stat":           "rss 1\ntotal_inactive_file 4000\ntotal_rss 3000\ntotal_pgfault 7\ntotal_pgmajfault 2\ntotal_swap 500\nhierarchical_memory_limit 20000\nhierarchical_memsw_limit 21000\n",
		"cpuacct/pod/cpuacct.usage":            "5\n",
		"memory/pod/memory.usage_in_bytes":     "100\n",
		"memory/pod/memory.stat":               "total_inactive_file 400\nhierarchical_memory_limit 9223372036854771712\n",
	})
	pod := group{false, func(c string) string { return filepath.Join(root, c, "pod") }}
	g, ok := pod.container("abc")
	if !ok {
		t.Fatal("the container's group is not found")
	}
	f, ok := g.read()
	if !ok || f.cpu != 32674296 || f.usage != 10000 || f.workingSet != 6000 || f.rss != 3000 || f.faults != 7 || f.major != 2 || f.limit != 20000 {
		t.Errorf("%v %+v", ok, f)
	}
	if *f.swap != 500 || *f.swapLeft != 500 {
		t.Errorf("swap %d, left %d", *f.swap, *f.swapLeft)
	}
	if left := f.memoryStats().AvailableBytes; *left != 14000 {
		t.Errorf("%d bytes left of the limit", *left)
	}
	f, ok = pod.read()
	if !ok || f.limit != 0 || f.workingSet != 0 || f.memoryStats().AvailableBytes != nil {
		t.Errorf("without a limit: %v %+v", ok, f)
	}
	if _, ok := pod.container("nobody"); ok {
		t.Error("a container that is not there has a group")
	}
}

func TestGroupV2(t *testing.T) {
	const pressure = "some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=12\n"
	root := lay(t, map[string]string{
		"cri-containerd-abc.scope/cpu.stat":            "usage_usec 1500\nuser_usec 1000\n",
		"cri-containerd-abc.scope/memory.current":      "10000\n",
		"cri-containerd-abc.scope/memory.stat":         "anon 3000\ninactive_file 4000\npgfault 7\npgmajfault 2\n",
		"cri-containerd-abc.scope/memory.max":          "max\n",
		"cri-containerd-abc.scope/memory.swap.current": "10\n",
		"cri-containerd-abc.scope/memory.swap.max":     "110\n",
		"cri-containerd-abc.scope/cpu.pressure":        pressure,
		"cpu.stat":                                     "usage_usec 77\n",
	})
	pod := group{true, func(string) string { return root }}
	g, ok := pod.container("abc")
	if !ok {
		t.Fatal("the group that systemd made is not found")
	}
	f, ok := g.read()
	if !ok || f.cpu != 1500_000 || f.workingSet != 6000 || f.rss != 3000 || f.faults != 7 || f.limit != 0 || *f.swap != 10 || *f.swapLeft != 100 {
		t.Errorf("%v %+v", ok, f)
	}
	if p := f.cpuStats().PSI; p == nil || p.Some.Avg10 != 1.5 || p.Some.Total != 1234 || p.Full.Total != 12 {
		t.Errorf("%+v", p)
	}
	if f.ioStats() != nil {
		t.Error("I/O pressure that the kernel does not tell")
	}
	// The root group has CPU, but nothing of memory: /proc knows.
	if m := machine(pod, 1<<50); m.cpu != 77_000 || m.usage == 0 || m.workingSet > m.usage || m.limit != 1<<50 {
		t.Errorf("%+v", m)
	}
}

func TestRates(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	var r rates
	// A core is busy all the time: the counter is the time.
	read := func(seconds float64, also map[string]time.Time) map[string]uint64 {
		all := map[string]reading{"a": {at(seconds), uint64(seconds * 1e9)}}
		for key := range also {
			all[key] = reading{at(seconds), 1e9}
		}
		return r.add(at(seconds), all, also)
	}
	if !r.cold(at(0)) || len(read(0, nil)) != 0 {
		t.Error("the first reading says nothing")
	}
	if got := read(.3, nil); got["a"] != 1e9 || r.cold(at(.3)) {
		t.Errorf("%v", got)
	}
	if got := read(15, map[string]time.Time{"new": at(13)}); got["a"] != 1e9 || got["new"] != 5e8 {
		t.Errorf("one second of CPU in the two since its start: %v", got)
	}
	if r.base["a"].at != at(0) || r.next["a"].at != at(15) {
		t.Errorf("base %v, next %v", r.base, r.next)
	}
	read(16, nil)
	if r.base["a"].at != at(0) {
		t.Error("readings that are near to each other moved the base")
	}
	if got := r.add(at(20), map[string]reading{"a": {at(20), 3}}, nil); len(got) != 0 {
		t.Errorf("a counter that went back has a rate: %v", got)
	}
	if !r.cold(at(100)) {
		t.Error("a reading of 80 s ago is compared with")
	}
}

func TestResourceText(t *testing.T) {
	now := metav1.Time{Time: time.UnixMilli(1795268711343)}
	cpu := func(n uint64) *CPUStats { return &CPUStats{Time: now, UsageCoreNanoSeconds: &n} }
	memory := func(n uint64) *MemoryStats { return &MemoryStats{Time: now, WorkingSetBytes: &n} }
	sum := &Summary{
		Node: NodeStats{CPU: cpu(3346_700_000_000), Memory: memory(1457995776)},
		Pods: []PodStats{{
			PodRef: PodReference{"p", "ns", "u"}, CPU: cpu(1e9), Memory: memory(4096),
			Containers: []ContainerStats{{
				Name: "c", StartTime: metav1.Unix(1795268710, 0), CPU: cpu(32674296), Memory: memory(1675264),
				Swap: &SwapStats{Time: now, UsageBytes: ptr.To(uint64(1)), AvailableBytes: ptr.To(uint64(2))},
			}},
		}},
	}
	want := `# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="c",namespace="ns",pod="p"} 0.032674296 1795268711343
# TYPE container_memory_working_set_bytes gauge
container_memory_working_set_bytes{container="c",namespace="ns",pod="p"} 1.675264e+06 1795268711343
# TYPE container_start_time_seconds gauge
container_start_time_seconds{container="c",namespace="ns",pod="p"} 1.79526871e+09
# TYPE container_swap_limit_bytes gauge
container_swap_limit_bytes{container="c",namespace="ns",pod="p"} 3 1795268711343
# TYPE container_swap_usage_bytes gauge
container_swap_usage_bytes{container="c",namespace="ns",pod="p"} 1 1795268711343
# TYPE node_cpu_usage_seconds_total counter
node_cpu_usage_seconds_total 3346.7 1795268711343
# TYPE node_memory_working_set_bytes gauge
node_memory_working_set_bytes 1.457995776e+09 1795268711343
# TYPE pod_cpu_usage_seconds_total counter
pod_cpu_usage_seconds_total{namespace="ns",pod="p"} 1 1795268711343
# TYPE pod_memory_working_set_bytes gauge
pod_memory_working_set_bytes{namespace="ns",pod="p"} 4096 1795268711343
# TYPE resource_scrape_error gauge
resource_scrape_error 0
`
	var got strings.Builder
	for line := range strings.Lines(text(sum, 0)) {
		if !strings.HasPrefix(line, "# HELP") {
			got.WriteString(line)
		}
	}
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}
