package metrics

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Reloads of a configuration file that is followed. Nothing is told before Read.
type Reloads struct {
	server string
	total  *prometheus.CounterVec
	last   *prometheus.GaugeVec
	info   *prometheus.Desc
	hash   atomic.Pointer[string] // of what holds now
}

func newReloads(m *Metrics, of string) *Reloads {
	name := "apiserver_" + of + "_config_controller_"
	r := &Reloads{
		server: m.server,
		total:  m.counters(name+"automatic_reloads_total", "Total number of automatic reloads of "+of+" configuration split by status and apiserver identity.", "status", "apiserver_id_hash"),
		last:   m.gauges(name+"automatic_reload_last_timestamp_seconds", "Timestamp of the last automatic reload of "+of+" configuration split by status and apiserver identity.", "status", "apiserver_id_hash"),
		info:   prometheus.NewDesc(name+"last_config_info", "Information about the last applied "+of+" configuration with hash as label, split by apiserver identity.", []string{"apiserver_id_hash", "hash"}, nil),
	}
	return register(m, r)
}

// Describe implements prometheus.Collector.
func (r *Reloads) Describe(ch chan<- *prometheus.Desc) { ch <- r.info }

// Collect implements prometheus.Collector.
func (r *Reloads) Collect(ch chan<- prometheus.Metric) {
	if h := r.hash.Load(); h != nil {
		ch <- prometheus.MustNewConstMetric(r.info, prometheus.GaugeValue, 1, r.server, *h)
	}
}

// Read notes the configuration that the server has started with.
func (r *Reloads) Read(data []byte) {
	hash := Hash(string(data))
	r.hash.Store(&hash)
}

// Changed counts a change of the file, which could be taken over or not.
func (r *Reloads) Changed(data []byte, err error) {
	status := "success"
	if err != nil {
		status = "failure"
	}
	r.total.WithLabelValues(status, r.server).Inc()
	r.last.WithLabelValues(status, r.server).SetToCurrentTime()
	if err == nil {
		r.Read(data)
	}
}
