package fairness

import "github.com/prometheus/client_golang/prometheus"

// collector reads the gate when somebody asks; a request costs no more than a few
// additions for it.
type collector struct {
	gate   *Gate
	levels []*prometheus.Desc // as ofLevel has them
	flows  []*prometheus.Desc // as ofFlow
	// These have a label more.
	rejected, waited, took *prometheus.Desc
}

// metric of upstream's name, which has only its own labels.
type metric[T any] struct {
	name, help string
	sort       prometheus.ValueType
	of         func(T) float64
}

func ofLevel() []metric[*level] {
	gauge := prometheus.GaugeValue
	return []metric[*level]{
		{"nominal_limit_seats", "Nominal number of execution seats configured for each priority level", gauge, func(l *level) float64 { return float64(l.nominal) }},
		{"lower_limit_seats", "Configured lower bound on number of execution seats available to each priority level", gauge, func(l *level) float64 { return float64(l.guarantee) }},
		{"upper_limit_seats", "Configured upper bound on number of execution seats available to each priority level", gauge, func(l *level) float64 { return float64(l.most) }},
		// What others do not use may be used at once: the limit is what it may borrow.
		{"current_limit_seats", "current derived number of execution seats available to each priority level", gauge, func(l *level) float64 { return float64(l.most) }},
	}
}

func ofFlow() []metric[*tally] {
	gauge := prometheus.GaugeValue
	return []metric[*tally]{
		{"current_executing_seats", "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem", gauge, func(t *tally) float64 { return float64(t.seats) }},
		{"current_executing_requests", "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem", gauge, func(t *tally) float64 { return float64(t.running) }},
		{"current_inqueue_requests", "Number of requests currently pending in queues of the API Priority and Fairness subsystem", gauge, func(t *tally) float64 { return float64(t.waiting) }},
		{"current_inqueue_seats", "Number of seats currently pending in queues of the API Priority and Fairness subsystem", gauge, func(t *tally) float64 { return float64(t.waitingSeats) }},
		{"dispatched_requests_total", "Number of requests executed by API Priority and Fairness subsystem", prometheus.CounterValue, func(t *tally) float64 { return float64(t.dispatched) }},
	}
}

// desc of a metric of upstream's name.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("apiserver_flowcontrol_"+name, help, labels, nil)
}

// Metrics of the gate, under upstream's names.
func (g *Gate) Metrics() prometheus.Collector {
	const level, schema = "priority_level", "flow_schema"
	c := &collector{
		gate:     g,
		rejected: desc("rejected_requests_total", "Number of requests rejected by API Priority and Fairness subsystem", level, schema, "reason"),
		waited:   desc("request_wait_duration_seconds", "Length of time a request spent waiting in its queue", level, schema, "execute"),
		took:     desc("request_execution_seconds", "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem", level, schema, "type"),
	}
	for _, m := range ofLevel() {
		c.levels = append(c.levels, desc(m.name, m.help, level))
	}
	for _, m := range ofFlow() {
		c.flows = append(c.flows, desc(m.name, m.help, level, schema))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, all := range [][]*prometheus.Desc{c.levels, c.flows, {c.rejected, c.waited, c.took}} {
		for _, d := range all {
			ch <- d
		}
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	for name, l := range c.gate.levels {
		for i, m := range ofLevel() {
			ch <- prometheus.MustNewConstMetric(c.levels[i], m.sort, m.of(l), name)
		}
		for schema, t := range l.tallies {
			for i, m := range ofFlow() {
				ch <- prometheus.MustNewConstMetric(c.flows[i], m.sort, m.of(t), name, schema)
			}
			for reason, n := range t.rejected {
				ch <- prometheus.MustNewConstMetric(c.rejected, prometheus.CounterValue, float64(n), name, schema, reason)
			}
			times := func(d *prometheus.Desc, h *histogram, label string) {
				if h.count > 0 {
					ch <- prometheus.MustNewConstHistogram(d, h.count, h.sum, h.buckets(), name, schema, label)
				}
			}
			times(c.waited, &t.served, "true")
			times(c.waited, &t.refused, "false")
			times(c.took, &t.execution, "regular")
		}
	}
}
