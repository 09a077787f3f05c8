package usage

import (
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// young containers have used what they have used since they started: there need
// not be an earlier reading of them.
const (
	young = time.Minute
	least = time.Second // shorter windows say nothing
)

// used is what something uses: CPU over a window that ended at a time.
type used struct {
	at     time.Time
	window time.Duration
	usage  corev1.ResourceList
}

// between two readings of the same thing; before may be empty. false = it cannot
// be said.
func between(before, now reading) (u used, ok bool) {
	if now.has&whole != whole {
		return u, false
	}
	same := before.has&hasCPU != 0 && before.start == now.start && before.cpu <= now.cpu
	if !same {
		start := time.UnixMilli(int64(now.start * 1000))
		if now.start == 0 || now.at.Sub(start) > young {
			return u, false
		}
		before = reading{at: start}
	}
	u.at, u.window = now.at, now.at.Sub(before.at)
	if u.window < least {
		return u, false
	}
	nanos := int64(math.Round((now.cpu - before.cpu) / u.window.Seconds() * 1e9))
	u.usage = corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(nanos, resource.Nano),
		corev1.ResourceMemory: *resource.NewQuantity(int64(now.memory), resource.BinarySI),
	}
	return u, true
}

// nodeMetrics of a node; nil = they cannot be said.
func nodeMetrics(n *corev1.Node, base, last *shot) *metricsv1beta1.NodeMetrics {
	if base == nil || last == nil {
		return nil
	}
	u, ok := between(base.node, last.node)
	if !ok {
		return nil
	}
	return &metricsv1beta1.NodeMetrics{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: n.Labels, CreationTimestamp: metav1.NewTime(last.taken)},
		Timestamp:  metav1.NewTime(u.at), Window: metav1.Duration{Duration: u.window}, Usage: u.usage,
	}
}

// podMetrics of a pod; nil = they cannot be said of each of its containers.
func podMetrics(p *corev1.Pod, base, last *shot) *metricsv1beta1.PodMetrics {
	key := pod{p.Namespace, p.Name}
	if last == nil || len(last.pods[key]) == 0 {
		return nil
	}
	var before map[string]reading
	if base != nil {
		before = base.pods[key]
	}
	m := &metricsv1beta1.PodMetrics{
		ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, Labels: p.Labels, CreationTimestamp: metav1.NewTime(last.taken)},
		Containers: make([]metricsv1beta1.ContainerMetrics, 0, len(last.pods[key])),
	}
	for _, name := range containers(p) {
		now, runs := last.pods[key][name]
		if !runs {
			continue
		}
		u, ok := between(before[name], now)
		if !ok {
			return nil
		}
		if m.Timestamp.IsZero() || u.at.Before(m.Timestamp.Time) {
			m.Timestamp = metav1.NewTime(u.at)
		}
		m.Window.Duration = max(m.Window.Duration, u.window)
		m.Containers = append(m.Containers, metricsv1beta1.ContainerMetrics{Name: name, Usage: u.usage})
	}
	if len(m.Containers) == 0 {
		return nil
	}
	return m
}

// containers of a pod by name, in the order of its spec.
func containers(p *corev1.Pod) []string {
	names := make([]string, 0, len(p.Spec.Containers))
	for i := range p.Spec.Containers {
		names = append(names, p.Spec.Containers[i].Name)
	}
	for i := range p.Spec.InitContainers {
		names = append(names, p.Spec.InitContainers[i].Name)
	}
	for i := range p.Spec.EphemeralContainers {
		names = append(names, p.Spec.EphemeralContainers[i].Name)
	}
	return names
}
