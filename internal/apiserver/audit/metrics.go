package audit

import "github.com/prometheus/client_golang/prometheus"

// Where events may be lost, as metrics and logs call it.
const (
	pluginLog      = "log"
	pluginWebhook  = "webhook"
	pluginBuffered = "buffered"
	pluginTruncate = "truncate"
)

// counters of a Log, under upstream's names.
type counters struct {
	events, rejected prometheus.Counter
	levels           [len(levels)]prometheus.Counter
	lost             *prometheus.CounterVec
	byLevel          *prometheus.CounterVec
}

func newCounters() counters {
	of := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "apiserver_audit_" + name, Help: help}
	}
	c := counters{
		events:   prometheus.NewCounter(of("event_total", "Counter of audit events generated and sent to the audit backend.")),
		rejected: prometheus.NewCounter(of("requests_rejected_total", "Counter of apiserver requests rejected due to an error in audit logging backend.")),
		lost:     prometheus.NewCounterVec(of("error_total", "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error."), []string{"plugin"}),
		byLevel:  prometheus.NewCounterVec(of("level_total", "Counter of policy levels for audit events (1 per request)."), []string{"level"}),
	}
	for n, level := range levels {
		c.levels[n] = c.byLevel.WithLabelValues(string(level))
	}
	return c
}

func (c *counters) failed(plugin string, events int) {
	c.lost.WithLabelValues(plugin).Add(float64(events))
}

// Describe implements prometheus.Collector.
func (c *counters) Describe(ch chan<- *prometheus.Desc) {
	for _, of := range []prometheus.Collector{c.events, c.rejected, c.lost, c.byLevel} {
		of.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (c *counters) Collect(ch chan<- prometheus.Metric) {
	for _, of := range []prometheus.Collector{c.events, c.rejected, c.lost, c.byLevel} {
		of.Collect(ch)
	}
}

// Metrics of the log; those of none count nothing.
func (l *Log) Metrics() prometheus.Collector {
	if l == nil {
		c := newCounters()
		return &c
	}
	return &l.count
}
