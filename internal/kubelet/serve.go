package kubelet

import (
	"context"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	v1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/kubelet/server"
	"github.com/proa-dev/proa/internal/kubelet/stats"
)

func (k *kubelet) shownPods() []*v1.Pod {
	var list []*v1.Pod
	for _, s := range k.snapshot() {
		if s.pod != nil {
			list = append(list, s.pod)
		}
	}
	return list
}

// serve the kubelet's API.
func (k *kubelet) serve(ctx context.Context) error {
	if k.Certificate == nil {
		k.log.Warn("no serving certificate: logs, exec and port-forward are not served")
		<-ctx.Done()
		return ctx.Err()
	}
	source := &stats.Source{
		Node: k.Name, Root: k.RootDir, Runtime: k.rt, Images: k.images, Groups: k.cgroups,
		Pods: k.shownPods, Logs: k.node.PodLogs, PodDir: k.volumes.PodDir, Driven: k.csi.Usage,
	}
	return server.Run(ctx, server.Config{
		Node: k.Name, Conn: k.Conn, Log: k.log, Runtime: k.rt, Address: k.Address, Port: k.Port, Listener: k.Listener,
		ClientCAs: k.ClientCAs, Certificate: k.Certificate,
		Pods: k.shownPods, PodLogs: k.node.PodLogs, LogRoot: filepath.Dir(k.LogsDir),
		Summary:  func(ctx context.Context, brief bool) (any, error) { return source.Summary(ctx, brief) },
		Resource: source.Text,
		Metrics: map[string][]prometheus.Collector{
			"/metrics":          {metrics{k}, volumeMetrics{k}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})},
			"/metrics/cadvisor": {cadvisor{source}},
			"/metrics/probes":   {probeMetrics{k}},
		},
	})
}

var (
	runningPods  = prometheus.NewDesc("kubelet_running_pods", "Number of pods that have a running pod sandbox", nil, nil)
	runningConts = prometheus.NewDesc("kubelet_running_containers", "Number of containers currently running", []string{"container_state"}, nil)
	nodeName     = prometheus.NewDesc("kubelet_node_name", "The node's name. The count is always 1.", []string{"node"}, nil)
	probeTotal   = prometheus.NewDesc("prober_probe_total", "Cumulative number of a liveness, readiness or startup probe for a container by result.",
		[]string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"}, nil)
	containerCPU = prometheus.NewDesc("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", []string{"container", "pod", "namespace"}, nil)
	containerMem = prometheus.NewDesc("container_memory_working_set_bytes", "Current working set in bytes.", []string{"container", "pod", "namespace"}, nil)
)

// metrics of the kubelet itself.
type metrics struct{ k *kubelet }

func (m metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- runningPods
	ch <- runningConts
	ch <- nodeName
}

func (m metrics) Collect(ch chan<- prometheus.Metric) {
	pods, states := 0, map[string]int{}
	for _, p := range m.k.shownPods() {
		if p.Status.Phase == v1.PodRunning {
			pods++
		}
		for i := range p.Status.ContainerStatuses {
			switch st := p.Status.ContainerStatuses[i].State; {
			case st.Running != nil:
				states["running"]++
			case st.Terminated != nil:
				states["exited"]++
			default:
				states["created"]++
			}
		}
	}
	ch <- prometheus.MustNewConstMetric(runningPods, prometheus.GaugeValue, float64(pods))
	ch <- prometheus.MustNewConstMetric(nodeName, prometheus.GaugeValue, 1, m.k.Name)
	for state, n := range states {
		ch <- prometheus.MustNewConstMetric(runningConts, prometheus.GaugeValue, float64(n), state)
	}
}

// probeMetrics count what probes said.
type probeMetrics struct{ k *kubelet }

func (m probeMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- probeTotal }

func (m probeMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, s := range m.k.snapshot() {
		if s.pod == nil {
			continue
		}
		for c, n := range s.w.probes.Counts() {
			ch <- prometheus.MustNewConstMetric(probeTotal, prometheus.CounterValue, float64(n), c.Kind, c.Result, c.Container, s.pod.Name, s.pod.Namespace, string(s.pod.UID))
		}
	}
}

// cadvisor are the container figures that dashboards read.
type cadvisor struct{ s *stats.Source }

func (c cadvisor) Describe(ch chan<- *prometheus.Desc) {
	ch <- containerCPU
	ch <- containerMem
}

func (c cadvisor) Collect(ch chan<- prometheus.Metric) {
	sum, err := c.s.Read(context.Background())
	if err != nil {
		return
	}
	for _, p := range sum.Pods {
		for _, ct := range p.Containers {
			labels := []string{ct.Name, p.PodRef.Name, p.PodRef.Namespace}
			if ct.CPU != nil && ct.CPU.UsageCoreNanoSeconds != nil {
				ch <- prometheus.MustNewConstMetric(containerCPU, prometheus.CounterValue, float64(*ct.CPU.UsageCoreNanoSeconds)/1e9, labels...)
			}
			if ct.Memory != nil && ct.Memory.WorkingSetBytes != nil {
				ch <- prometheus.MustNewConstMetric(containerMem, prometheus.GaugeValue, float64(*ct.Memory.WorkingSetBytes), labels...)
			}
		}
	}
}
