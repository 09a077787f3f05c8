package fairness

import "github.com/prometheus/client_golang/prometheus"

// desc of a metric of upstream's name.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("apiserver_flowcontrol_"+name, help, labels, nil)
}

// collector reads the gate when somebody asks; a request costs nothing for it.
type collector struct {
	gate                                                               *Gate
	nominal, seats, executing, waiting, dispatched, rejected, waitTime *prometheus.Desc
}

// Metrics of the gate, under upstream's names.
func (g *Gate) Metrics() prometheus.Collector {
	const level, schema = "priority_level", "flow_schema"
	return &collector{
		gate:       g,
		nominal:    desc("nominal_limit_seats", "Nominal number of execution seats configured for each priority level", level),
		seats:      desc("current_executing_seats", "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem", level),
		executing:  desc("current_executing_requests", "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem", level),
		waiting:    desc("current_inqueue_requests", "Number of requests currently pending in queues of the API Priority and Fairness subsystem", level),
		dispatched: desc("dispatched_requests_total", "Number of requests executed by API Priority and Fairness subsystem", level, schema),
		rejected:   desc("rejected_requests_total", "Number of requests rejected by API Priority and Fairness subsystem", level, schema, "reason"),
		waitTime:   desc("request_wait_duration_seconds_total", "Time that requests spent waiting in queues, of those that were executed", level),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.nominal, c.seats, c.executing, c.waiting, c.dispatched, c.rejected, c.waitTime} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	for name, l := range c.gate.levels {
		send(c.nominal, gauge, float64(l.nominal), name)
		send(c.seats, gauge, float64(l.executing), name)
		send(c.executing, gauge, float64(l.running), name)
		send(c.waiting, gauge, float64(l.waiting), name)
		send(c.waitTime, counter, l.waited.Seconds(), name)
		for schema, n := range l.dispatched {
			send(c.dispatched, counter, float64(n), name, schema)
		}
		for k, n := range l.rejected {
			send(c.rejected, counter, float64(n), name, k[0], k[1])
		}
	}
}
