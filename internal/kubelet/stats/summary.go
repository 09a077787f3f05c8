package stats

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-dev/proa/internal/kubelet/cgroup"
	"github.com/proa-dev/proa/internal/kubelet/csi"
	"github.com/proa-dev/proa/internal/kubelet/image"
	"github.com/proa-dev/proa/internal/kubelet/runtime"
)

// Source of figures. CPU and memory are read from the control groups, which costs
// no call to the runtime; what is on disk and went over the network, and figures
// of containers that have no group here (in virtual machines), the runtime knows.
type Source struct {
	Node    string
	Root    string
	Runtime *runtime.Client
	Images  *image.Manager
	Groups  *cgroup.Tree
	Pods    func() []*v1.Pod           // with the status last computed
	Logs    func(*v1.Pod) string       // folder of a pod's logs
	PodDir  func(uid types.UID) string // folder of a pod's volumes
	// Driven are the volumes of a pod that CSI drivers serve, nil = there are none.
	Driven func(ctx context.Context, uid types.UID) []csi.Usage

	rates rates
}

// Summary of the node and its pods. brief leaves out all but CPU, memory and swap.
// Where CPU rates have nothing to compare with it takes 0.3 s.
func (s *Source) Summary(ctx context.Context, brief bool) (*Summary, error) {
	if s.rates.cold(time.Now()) {
		s.rated(s.read())
		select {
		case <-time.After(shortly):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	sum := s.read()
	s.rated(sum)
	if err := s.fill(ctx, sum, brief); err != nil {
		return nil, err
	}
	if !brief {
		s.disks(ctx, sum)
		sum.Node.Network, sum.Node.Rlimit = network("/proc"), processes()
		sum.Node.System = s.system()
	}
	for i := range sum.Pods {
		sum.Pods[i].pod = nil
	}
	return sum, nil
}

// Read CPU and memory alone, without rates: one look. With an error the summary
// holds what is known nevertheless.
func (s *Source) Read(ctx context.Context) (*Summary, error) {
	sum := s.read()
	return sum, s.fill(ctx, sum, true)
}

// read CPU and memory of the node and its pods.
func (s *Source) read() *Summary {
	sum := &Summary{Node: s.machine(), Pods: []PodStats{}}
	for _, p := range s.Pods() {
		if ps, ok := s.readPod(p); ok {
			sum.Pods = append(sum.Pods, ps)
		}
	}
	return sum
}

func (s *Source) group(dir func(controller string) string) group { return group{s.Groups.V2(), dir} }

func (s *Source) machine() NodeStats {
	f := machine(s.group(s.Groups.Host), capacity(s.Root))
	return NodeStats{
		NodeName: s.Node, StartTime: metav1.Time{Time: boot()},
		CPU: f.cpuStats(), Memory: f.memoryStats(), Swap: f.swapStats(), IO: f.ioStats(),
	}
}

// readPod; false = nothing of it runs.
func (s *Source) readPod(p *v1.Pod) (ps PodStats, ok bool) {
	ps = PodStats{PodRef: PodReference{p.Name, p.Namespace, p.UID}, Containers: []ContainerStats{}, pod: p}
	if p.Status.StartTime != nil {
		ps.StartTime = *p.Status.StartTime
	}
	own := s.group(func(c string) string { return s.Groups.Path(p, c) })
	if f, ok := own.read(); ok {
		ps.CPU, ps.Memory, ps.Swap, ps.IO = f.cpuStats(), f.memoryStats(), f.swapStats(), f.ioStats()
		if n, ok := number(own.dir("pids"), "pids.current"); ok {
			ps.Process = &ProcessStats{&n}
		}
	}
	for _, all := range [][]v1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for i := range all {
			if all[i].State.Running == nil {
				continue
			}
			ok = true
			c := ContainerStats{Name: all[i].Name, StartTime: all[i].State.Running.StartedAt}
			if g, ok := own.container(bare(all[i].ContainerID)); ok {
				if f, ok := g.read(); ok {
					c.CPU, c.Memory, c.Swap, c.IO = f.cpuStats(), f.memoryStats(), f.swapStats(), f.ioStats()
				}
			}
			ps.Containers = append(ps.Containers, c)
		}
	}
	return ps, ok
}

// rated adds how much CPU is used now.
func (s *Source) rated(sum *Summary) {
	all, started := map[string]reading{}, map[string]time.Time{}
	visit := func(do func(key string, c *CPUStats, start metav1.Time)) {
		do("", sum.Node.CPU, metav1.Time{})
		for i := range sum.Pods {
			p := &sum.Pods[i]
			do(string(p.PodRef.UID), p.CPU, p.StartTime)
			for j := range p.Containers {
				c := &p.Containers[j]
				do(string(p.PodRef.UID)+"/"+c.Name+c.StartTime.String(), c.CPU, c.StartTime)
			}
		}
	}
	visit(func(key string, c *CPUStats, start metav1.Time) {
		if c != nil && c.UsageCoreNanoSeconds != nil {
			all[key], started[key] = reading{c.Time.Time, *c.UsageCoreNanoSeconds}, start.Time
		}
	})
	rate := s.rates.add(time.Now(), all, started)
	visit(func(key string, c *CPUStats, _ metav1.Time) {
		if n, ok := rate[key]; ok && c != nil {
			c.UsageNanoCores = &n
		}
	})
}

// missing says that a container's figures are not in a control group.
func (sum *Summary) missing() bool {
	for i := range sum.Pods {
		for j := range sum.Pods[i].Containers {
			if sum.Pods[i].Containers[j].CPU == nil {
				return true
			}
		}
	}
	return false
}

// fill in what only the runtime knows; with brief only if there is something.
func (s *Source) fill(ctx context.Context, sum *Summary, brief bool) error {
	if brief && !sum.missing() || s.Runtime == nil {
		return nil
	}
	r, err := s.Runtime.ListPodSandboxStats(ctx, &cri.ListPodSandboxStatsRequest{})
	if err != nil {
		return err
	}
	known := make(map[types.UID]*cri.LinuxPodSandboxStats, len(r.Stats))
	for _, p := range r.Stats {
		known[types.UID(p.GetAttributes().GetMetadata().GetUid())] = p.GetLinux()
	}
	for i := range sum.Pods {
		if l := known[sum.Pods[i].PodRef.UID]; l != nil {
			sum.Pods[i].fill(l, brief)
		}
	}
	return nil
}

func (p *PodStats) fill(l *cri.LinuxPodSandboxStats, brief bool) {
	if p.CPU == nil {
		p.CPU, p.Memory = cpu(l.GetCpu()), memory(l.GetMemory())
	}
	if n := l.GetNetwork(); n != nil && !brief {
		p.Network = &NetworkStats{Time: metav1.Time{Time: time.Unix(0, n.Timestamp)}, InterfaceStats: nic(n.DefaultInterface)}
		for _, i := range append([]*cri.NetworkInterfaceUsage{n.DefaultInterface}, n.Interfaces...) {
			if i != nil {
				p.Network.Interfaces = append(p.Network.Interfaces, nic(i))
			}
		}
	}
	for _, from := range l.GetContainers() {
		for j := range p.Containers {
			c := &p.Containers[j]
			if c.Name != from.GetAttributes().GetMetadata().GetName() {
				continue
			}
			if c.CPU == nil {
				c.CPU, c.Memory = cpu(from.Cpu), memory(from.Memory)
			}
			if w := from.GetWritableLayer(); w != nil && !brief {
				c.Rootfs = &FsStats{Time: metav1.Time{Time: time.Unix(0, w.Timestamp)}, UsedBytes: value(w.UsedBytes), InodesUsed: value(w.InodesUsed)}
			}
		}
	}
}

func nic(i *cri.NetworkInterfaceUsage) InterfaceStats {
	return InterfaceStats{i.GetName(), value(i.GetRxBytes()), value(i.GetRxErrors()), value(i.GetTxBytes()), value(i.GetTxErrors())}
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
	return &CPUStats{Time: metav1.Time{Time: time.Unix(0, c.Timestamp)}, UsageNanoCores: value(c.UsageNanoCores), UsageCoreNanoSeconds: value(c.UsageCoreNanoSeconds)}
}

func memory(m *cri.MemoryUsage) *MemoryStats {
	if m == nil {
		return nil
	}
	s := &MemoryStats{
		Time: metav1.Time{Time: time.Unix(0, m.Timestamp)}, UsageBytes: value(m.UsageBytes), WorkingSetBytes: value(m.WorkingSetBytes),
		RSSBytes: value(m.RssBytes), PageFaults: value(m.PageFaults), MajorPageFaults: value(m.MajorPageFaults),
	}
	if left := m.GetAvailableBytes().GetValue(); left > 0 {
		s.AvailableBytes = &left
	}
	return s
}
