package stats

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What /metrics/resource tells, in the order it is written.
var families = []struct{ name, kind, help string }{
	{"container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the container in core-seconds"},
	{"container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes"},
	{"container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds"},
	{"container_swap_limit_bytes", "gauge", "Current amount of the container swap limit in bytes. Reported only on non-windows systems"},
	{"container_swap_usage_bytes", "gauge", "Current amount of the container swap usage in bytes. Reported only on non-windows systems"},
	{"node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds"},
	{"node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes"},
	{"node_swap_usage_bytes", "gauge", "Current swap usage of the node in bytes. Reported only on non-windows systems"},
	{"pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds"},
	{"pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes"},
	{"pod_swap_usage_bytes", "gauge", "Current amount of the pod swap usage in bytes. Reported only on non-windows systems"},
	{"resource_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise"},
}

// series collects lines by family.
type series map[string]*strings.Builder

// add a line; at zero = without time.
func (s series) add(name, labels string, v float64, at time.Time) {
	b := s[name]
	if b == nil {
		b = &strings.Builder{}
		s[name] = b
	}
	b.WriteString(name)
	if labels != "" {
		b.WriteString("{" + labels + "}")
	}
	b.WriteByte(' ')
	b.WriteString(strconv.FormatFloat(v, 'g', -1, 64))
	if !at.IsZero() {
		b.WriteByte(' ')
		b.WriteString(strconv.FormatInt(at.UnixMilli(), 10))
	}
	b.WriteByte('\n')
}

func (s series) usage(prefix, labels string, c *CPUStats, m *MemoryStats, swap *SwapStats) {
	if c != nil && c.UsageCoreNanoSeconds != nil {
		s.add(prefix+"_cpu_usage_seconds_total", labels, float64(*c.UsageCoreNanoSeconds)/1e9, c.Time.Time)
	}
	if m != nil && m.WorkingSetBytes != nil {
		s.add(prefix+"_memory_working_set_bytes", labels, float64(*m.WorkingSetBytes), m.Time.Time)
	}
	if swap == nil || swap.UsageBytes == nil {
		return
	}
	s.add(prefix+"_swap_usage_bytes", labels, float64(*swap.UsageBytes), swap.Time.Time)
	if prefix == "container" && swap.AvailableBytes != nil {
		s.add("container_swap_limit_bytes", labels, float64(*swap.AvailableBytes+*swap.UsageBytes), swap.Time.Time)
	}
}

func unixSeconds(t metav1.Time) float64 { return float64(t.UnixNano()) / 1e9 }

// Text of /metrics/resource, which metrics servers read.
func (s *Source) Text(ctx context.Context) string {
	sum, err := s.Read(ctx)
	failed := 0.
	if err != nil {
		failed = 1
	}
	return text(sum, failed)
}

func text(sum *Summary, failed float64) string {
	all := series{}
	all.usage("node", "", sum.Node.CPU, sum.Node.Memory, sum.Node.Swap)
	for i := range sum.Pods {
		p := &sum.Pods[i]
		pod := fmt.Sprintf("namespace=%q,pod=%q", p.PodRef.Namespace, p.PodRef.Name)
		all.usage("pod", pod, p.CPU, p.Memory, p.Swap)
		for j := range p.Containers {
			c := &p.Containers[j]
			labels := fmt.Sprintf("container=%q,%s", c.Name, pod)
			all.usage("container", labels, c.CPU, c.Memory, c.Swap)
			if c.StartTime.Unix() > 0 {
				all.add("container_start_time_seconds", labels, unixSeconds(c.StartTime), time.Time{})
			}
		}
	}
	all.add("resource_scrape_error", "", failed, time.Time{})
	var b strings.Builder
	for _, f := range families {
		if lines := all[f.name]; lines != nil {
			fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n%s", f.name, f.help, f.name, f.kind, lines)
		}
	}
	return b.String()
}
