package stats

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-dev/proa/internal/kubelet/image"
	"github.com/proa-dev/proa/internal/kubelet/node"
	"github.com/proa-dev/proa/internal/kubelet/runtime"
)

// The shapes of stats/summary (k8s.io/kubelet/pkg/apis/stats/v1alpha1), as far as
// the runtime and the kernel have figures.
type (
	Summary struct {
		Node NodeStats  `json:"node"`
		Pods []PodStats `json:"pods"`
	}
	NodeStats struct {
		NodeName  string        `json:"nodeName"`
		StartTime metav1.Time   `json:"startTime"`
		CPU       *CPUStats     `json:"cpu,omitempty"`
		Memory    *MemoryStats  `json:"memory,omitempty"`
		Network   *NetworkStats `json:"network,omitempty"`
		Fs        *FsStats      `json:"fs,omitempty"`
		Runtime   *RuntimeStats `json:"runtime,omitempty"`
	}
	RuntimeStats struct {
		ImageFs *FsStats `json:"imageFs,omitempty"`
	}
	PodStats struct {
		PodRef     PodReference     `json:"podRef"`
		StartTime  metav1.Time      `json:"startTime"`
		Containers []ContainerStats `json:"containers"`
		CPU        *CPUStats        `json:"cpu,omitempty"`
		Memory     *MemoryStats     `json:"memory,omitempty"`
		Network    *NetworkStats    `json:"network,omitempty"`
		Ephemeral  *FsStats         `json:"ephemeral-storage,omitempty"`
	}
	PodReference struct {
		Name      string    `json:"name"`
		Namespace string    `json:"namespace"`
		UID       types.UID `json:"uid"`
	}
	ContainerStats struct {
		Name      string       `json:"name"`
		StartTime metav1.Time  `json:"startTime"`
		CPU       *CPUStats    `json:"cpu,omitempty"`
		Memory    *MemoryStats `json:"memory,omitempty"`
		Rootfs    *FsStats     `json:"rootfs,omitempty"`
	}
	CPUStats struct {
		Time                 metav1.Time `json:"time"`
		UsageNanoCores       *uint64     `json:"usageNanoCores,omitempty"`
		UsageCoreNanoSeconds *uint64     `json:"usageCoreNanoSeconds,omitempty"`
	}
	MemoryStats struct {
		Time            metav1.Time `json:"time"`
		AvailableBytes  *uint64     `json:"availableBytes,omitempty"`
		UsageBytes      *uint64     `json:"usageBytes,omitempty"`
		WorkingSetBytes *uint64     `json:"workingSetBytes,omitempty"`
		RSSBytes        *uint64     `json:"rssBytes,omitempty"`
	}
	NetworkStats struct {
		Time    metav1.Time `json:"time"`
		Name    string      `json:"name,omitempty"`
		RxBytes *uint64     `json:"rxBytes,omitempty"`
		TxBytes *uint64     `json:"txBytes,omitempty"`
	}
	FsStats struct {
		Time           metav1.Time `json:"time"`
		AvailableBytes *uint64     `json:"availableBytes,omitempty"`
		CapacityBytes  *uint64     `json:"capacityBytes,omitempty"`
		UsedBytes      *uint64     `json:"usedBytes,omitempty"`
		InodesFree     *uint64     `json:"inodesFree,omitempty"`
		Inodes         *uint64     `json:"inodes,omitempty"`
	}
)

// Source of figures.
type Source struct {
	Node    string
	Root    string
	Runtime *runtime.Client
	Images  *image.Manager
	Pods    func() []*v1.Pod
}

// Summary of the node and its pods.
func (s *Source) Summary(ctx context.Context) (*Summary, error) {
	r, err := s.Runtime.ListPodSandboxStats(ctx, &cri.ListPodSandboxStatsRequest{})
	if err != nil {
		return nil, err
	}
	now := metav1.Now()
	sum := &Summary{Node: s.node(ctx, now), Pods: []PodStats{}}
	for _, p := range r.Stats {
		a, l := p.GetAttributes(), p.GetLinux()
		m := a.GetMetadata()
		ps := PodStats{PodRef: PodReference{m.GetName(), m.GetNamespace(), types.UID(m.GetUid())}, CPU: cpu(l.GetCpu()), Memory: memory(l.GetMemory()), Containers: []ContainerStats{}}
		for _, pod := range s.Pods() {
			if pod.UID == ps.PodRef.UID && pod.Status.StartTime != nil {
				ps.StartTime = *pod.Status.StartTime
			}
		}
		if n := l.GetNetwork().GetDefaultInterface(); n != nil {
			ps.Network = &NetworkStats{now, n.Name, value(n.RxBytes), value(n.TxBytes)}
		}
		for _, c := range l.GetContainers() {
			cs := ContainerStats{Name: c.GetAttributes().GetMetadata().GetName(), CPU: cpu(c.Cpu), Memory: memory(c.Memory), StartTime: ps.StartTime}
			if w := c.GetWritableLayer(); w != nil {
				cs.Rootfs = &FsStats{Time: now, UsedBytes: value(w.UsedBytes)}
			}
			ps.Containers = append(ps.Containers, cs)
		}
		sum.Pods = append(sum.Pods, ps)
	}
	return sum, nil
}

func (s *Source) node(ctx context.Context, now metav1.Time) NodeStats {
	n := NodeStats{NodeName: s.Node, StartTime: metav1.Time{Time: boot()}}
	busy := busyNanos()
	n.CPU = &CPUStats{Time: now, UsageCoreNanoSeconds: &busy}
	if c, err := node.Capacity(s.Root, 0); err == nil {
		free, _ := node.Available()
		total, available := uint64(c.Memory().Value()), uint64(free)
		used := total - available
		n.Memory = &MemoryStats{Time: now, AvailableBytes: &available, UsageBytes: &used, WorkingSetBytes: &used}
	}
	if fs, err := image.Stat(s.Root); err == nil {
		n.Fs = files(now, fs)
	}
	if fs, err := s.Images.FsInfo(ctx); err == nil {
		n.Runtime = &RuntimeStats{ImageFs: files(now, fs)}
		n.Runtime.ImageFs.UsedBytes = &fs.Used
	}
	return n
}

func files(now metav1.Time, fs image.FsInfo) *FsStats {
	used := fs.Capacity - fs.Available
	return &FsStats{Time: now, AvailableBytes: &fs.Available, CapacityBytes: &fs.Capacity, UsedBytes: &used, Inodes: &fs.Inodes, InodesFree: &fs.InodesFree}
}

func value(v *cri.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return &v.Value
}

func cpu(c *cri.CpuUsage) *CPUStats {
	if c == nil {
		return nil
	}
	return &CPUStats{metav1.Time{Time: time.Unix(0, c.Timestamp)}, value(c.UsageNanoCores), value(c.UsageCoreNanoSeconds)}
}

func memory(m *cri.MemoryUsage) *MemoryStats {
	if m == nil {
		return nil
	}
	return &MemoryStats{metav1.Time{Time: time.Unix(0, m.Timestamp)}, value(m.AvailableBytes), value(m.UsageBytes), value(m.WorkingSetBytes), value(m.RssBytes)}
}

// busyNanos is the CPU time that all of the machine has spent working.
func busyNanos() uint64 {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	if !lines.Scan() {
		return 0
	}
	sum := uint64(0)
	for i, w := range strings.Fields(lines.Text()) {
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

// Text of /metrics/resource, which metrics-server reads.
func (s *Source) Text(ctx context.Context) string {
	sum, err := s.Summary(ctx)
	failed := 0
	if err != nil {
		failed, sum = 1, &Summary{Node: s.node(ctx, metav1.Now())}
	}
	series := map[string][]string{}
	add := func(name, labels string, v float64, at metav1.Time) {
		if labels != "" {
			labels = "{" + labels + "}"
		}
		series[name] = append(series[name], fmt.Sprintf("%s%s %v %d\n", name, labels, v, at.UnixMilli()))
	}
	both := func(prefix, labels string, c *CPUStats, m *MemoryStats) {
		if c != nil && c.UsageCoreNanoSeconds != nil {
			add(prefix+"_cpu_usage_seconds_total", labels, float64(*c.UsageCoreNanoSeconds)/1e9, c.Time)
		}
		if m != nil && m.WorkingSetBytes != nil {
			add(prefix+"_memory_working_set_bytes", labels, float64(*m.WorkingSetBytes), m.Time)
		}
	}
	both("node", "", sum.Node.CPU, sum.Node.Memory)
	for _, p := range sum.Pods {
		pod := fmt.Sprintf("namespace=%q,pod=%q", p.PodRef.Namespace, p.PodRef.Name)
		both("pod", pod, p.CPU, p.Memory)
		for _, c := range p.Containers {
			labels := fmt.Sprintf("container=%q,%s", c.Name, pod)
			both("container", labels, c.CPU, c.Memory)
			add("container_start_time_seconds", labels, float64(c.StartTime.Unix()), metav1.Now())
		}
	}
	names := make([]string, 0, len(series))
	for n := range series {
		names = append(names, n)
	}
	sort.Strings(names)
	var b strings.Builder
	for _, n := range names {
		kind := "gauge"
		if strings.HasSuffix(n, "_total") {
			kind = "counter"
		}
		fmt.Fprintf(&b, "# TYPE %s %s\n%s", n, kind, strings.Join(series[n], ""))
	}
	fmt.Fprintf(&b, "# TYPE resource_scrape_error gauge\nresource_scrape_error %d\n# TYPE scrape_error gauge\nscrape_error %d\n", failed, failed)
	return b.String()
}
