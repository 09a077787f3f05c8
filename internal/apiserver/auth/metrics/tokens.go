package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Accounts counts the uses of service accounts' tokens.
type Accounts struct {
	Legacy       prometheus.Counter // that are kept in Secrets
	Manual, Auto prometheus.Counter // of these, by how the Secret came about
	Invalid      prometheus.Counter // of these, that are not believed any more
	Stale, Valid prometheus.Counter // that live longer than they should be used: used past that, or within
}

func (a *Accounts) open(m *Metrics) {
	of := func(name, help string) prometheus.Counter { return m.counter("serviceaccount_"+name, help) }
	a.Legacy = of("legacy_tokens_total", "Cumulative legacy service account tokens used")
	a.Stale = of("stale_tokens_total", "Cumulative stale projected service account tokens used")
	a.Manual = of("legacy_manual_token_uses_total", "Cumulative manually created legacy tokens used")
	a.Auto = of("legacy_auto_token_uses_total", "Cumulative auto-generated legacy tokens used")
	a.Invalid = of("invalid_legacy_auto_token_uses_total", "Cumulative invalid auto-generated legacy tokens used")
	a.Valid = of("valid_tokens_total", "Cumulative valid projected service account tokens used")
}

// Tokens counts what was remembered of tokens: of service accounts' whose
// signature was good, of issuers', and of what a webhook has answered.
type Tokens struct {
	hit, miss         Outcome
	good, bad         prometheus.Counter
	blocked, underway prometheus.Gauge
}

func (t *Tokens) open(m *Metrics) {
	const name = "authentication_token_cache_"
	of := outcomes{m.counters(name+"request_total", "", "status"), m.times(name+"request_duration_seconds", "", nil, "status")}
	t.hit, t.miss = of.of("hit"), of.of("miss")
	fetched := m.counters(name+"fetch_total", "", "status")
	t.good, t.bad = fetched.WithLabelValues("ok"), fetched.WithLabelValues("error")
	active := m.gauges(name+"active_fetch_count", "", "status")
	t.blocked, t.underway = active.WithLabelValues("blocked"), active.WithLabelValues("in_flight")
}

// Hit counts a token that was remembered.
func (t *Tokens) Hit(start time.Time) { t.hit.Done(time.Since(start)) }

// Miss counts a request that has to wait until it is known what a token is worth:
// what it returns is called when it is.
func (t *Tokens) Miss(start time.Time) (done func()) {
	t.blocked.Inc()
	return func() {
		t.blocked.Dec()
		t.miss.Done(time.Since(start))
	}
}

// Fetch counts finding out what a token is worth.
func (t *Tokens) Fetch() (done func(error)) {
	t.underway.Inc()
	return func(err error) {
		t.underway.Dec()
		if err != nil {
			t.bad.Inc()
		} else {
			t.good.Inc()
		}
	}
}
