package fairness

import "github.com/prometheus/client_golang/prometheus"

// collector reads the gate when somebody asks; a request costs no more than a few
// additions for it.
type collector struct {
	gate   *Gate
	levels []metric[*level]
	flows  []metric[*tally]
	// These have a label more.
	rejected, waited, took *prometheus.Desc
}

// metric of what there is many of.
type metric[T any] struct {
	desc *prometheus.Desc
	sort prometheus.ValueType
	of   func(T) float64
}

func ofLevel(labels ...string) []metric[*level] {
	gauge := func(name, help string, of func(*level) int) metric[*level] {
		return metric[*level]{desc(name, help, labels...), prometheus.GaugeValue, func(l *level) float64 { return float64(of(l)) }}
	}
	return []metric[*level]{
		gauge("nominal_limit_seats", "Nominal number of execution seats configured for each priority level", func(l *level) int { return l.nominal }),
		gauge("lower_limit_seats", "Configured lower bound on number of execution seats available to each priority level", func(l *level) int { return l.guarantee }),
		gauge("upper_limit_seats", "Configured upper bound on number of execution seats available to each priority level", func(l *level) int { return l.most }),
		// What others do not use may be used at once: the limit is what it may borrow.
		gauge("current_limit_seats", "current derived number of execution seats available to each priority level", func(l *level) int { return l.most }),
	}
}

func ofFlow(labels ...string) []metric[*tally] {
	gauge := func(name, help string, of func(*tally) int) metric[*tally] {
		return metric[*tally]{desc(name, help, labels...), prometheus.GaugeValue, func(t *tally) float64 { return float64(of(t)) }}
	}
	return []metric[*tally]{
		gauge("current_executing_seats", "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem", func(t *tally) int { return t.seats }),
		gauge("current_executing_requests", "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem", func(t *tally) int { return t.running }),
		gauge("current_inqueue_requests", "Number of requests currently pending in queues of the API Priority and Fairness subsystem", func(t *tally) int { return t.waiting }),
		gauge("current_inqueue_seats", "Number of seats currently pending in queues of the API Priority and Fairness subsystem", func(t *tally) int { return t.waitingSeats }),
		{desc("dispatched_requests_total", "Number of requests executed by API Priority and Fairness subsystem", labels...), prometheus.CounterValue, func(t *tally) float64 { return float64(t.dispatched) }},
	}
}

// desc of a metric of upstream's name.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("apiserver_flowcontrol_"+name, help, labels, nil)
}

// Metrics of the gate, under upstream's names.
func (g *Gate) Metrics() prometheus.Collector {
	const level, schema = "priority_level", "flow_schema"
	return &collector{
		gate:     g,
		levels:   ofLevel(level),
		flows:    ofFlow(level, schema),
		rejected: desc("rejected_requests_total", "Number of requests rejected by API Priority and Fairness subsystem", level, schema, "reason"),
		waited:   desc("request_wait_duration_seconds", "Length of time a request spent waiting in its queue", level, schema, "execute"),
		took:     desc("request_execution_seconds", "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem", level, schema, "type"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.levels {
		ch <- m.desc
	}
	for _, m := range c.flows {
		ch <- m.desc
	}
	for _, d := range []*prometheus.Desc{c.rejected, c.waited, c.took} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	for name, l := range c.gate.levels {
		for _, m := range c.levels {
			ch <- prometheus.MustNewConstMetric(m.desc, m.sort, m.of(l), name)
		}
		for schema, t := range l.tallies {
			for _, m := range c.flows {
				ch <- prometheus.MustNewConstMetric(m.desc, m.sort, m.of(t), name, schema)
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
