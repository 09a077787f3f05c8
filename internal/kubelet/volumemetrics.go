package kubelet

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
)

var (
	claimLabels  = []string{"namespace", "persistentvolumeclaim"}
	volCapacity  = prometheus.NewDesc("kubelet_volume_stats_capacity_bytes", "Capacity in bytes of the volume", claimLabels, nil)
	volAvailable = prometheus.NewDesc("kubelet_volume_stats_available_bytes", "Number of available bytes in the volume", claimLabels, nil)
	volUsed      = prometheus.NewDesc("kubelet_volume_stats_used_bytes", "Number of used bytes in the volume", claimLabels, nil)
	volInodes    = prometheus.NewDesc("kubelet_volume_stats_inodes", "Maximum number of inodes in the volume", claimLabels, nil)
	volFree      = prometheus.NewDesc("kubelet_volume_stats_inodes_free", "Number of free inodes in the volume", claimLabels, nil)
	volInUse     = prometheus.NewDesc("kubelet_volume_stats_inodes_used", "Number of used inodes in the volume", claimLabels, nil)
)

// volumeMetrics are what claims of CSI drivers use.
type volumeMetrics struct{ k *kubelet }

func (m volumeMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{volCapacity, volAvailable, volUsed, volInodes, volFree, volInUse} {
		ch <- d
	}
}

func (m volumeMetrics) Collect(ch chan<- prometheus.Metric) {
	all := m.k.csi.Usage(context.Background(), "")
	if len(all) == 0 {
		return
	}
	namespaces := map[types.UID]string{}
	for _, p := range m.k.shownPods() {
		namespaces[p.UID] = p.Namespace
	}
	seen := map[[2]string]bool{} // several pods may use one claim
	for _, u := range all {
		of := [2]string{namespaces[u.Pod], u.Claim}
		if of[0] == "" || of[1] == "" || seen[of] {
			continue
		}
		seen[of] = true
		for d, v := range map[*prometheus.Desc]uint64{volCapacity: u.Capacity, volAvailable: u.Available, volUsed: u.Used, volInodes: u.Inodes, volFree: u.InodesFree, volInUse: u.InodesUsed} {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), of[:]...)
		}
	}
}
