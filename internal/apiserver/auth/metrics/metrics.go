// Package metrics counts what authentication and authorisation do, under the
// names that upstream's API server has for it. Who counts on the way of a request
// holds its counter already: a request costs a few atomic additions, and no memory.
package metrics

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of one server. It is a prometheus.Collector.
type Metrics struct {
	Authentication Authentication
	Authorization  Authorization
	Impersonation  Impersonation
	Accounts       Accounts
	Tokens         Tokens
	// CertificateExpiration is for how long yet client certificates are good, in seconds.
	CertificateExpiration prometheus.Observer
	// Webhooks and Aggregated look at the certificates that other servers show.
	Webhooks, Aggregated *Servers
	// AuthenticationConfig and AuthorizationConfig are of the files that are followed.
	AuthenticationConfig, AuthorizationConfig *Reloads

	server    string // hash of this server's identity
	decisions *prometheus.CounterVec
	webhooks  webhooks
	matches   *Matches
	issuers   issuers
	all       []prometheus.Collector
}

// New metrics. server identifies this API server among others of its cluster.
func New(server string) *Metrics {
	m := &Metrics{server: Hash(server)}
	m.Authentication.open(m)
	m.Authorization.open(m)
	m.Impersonation.open(m)
	m.Accounts.open(m)
	m.Tokens.open(m)
	m.CertificateExpiration = register(m, prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "apiserver_client_certificate_expiration_seconds", Help: "Distribution of the remaining lifetime on the certificate used to authenticate a request.",
		Buckets: []float64{0, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 345600, 604800, 2592000, 7776000, 15552000, 31104000},
	}))
	m.Webhooks, m.Aggregated = newServers(m, "apiserver_webhooks"), newServers(m, "apiserver_kube_aggregator")
	m.AuthenticationConfig, m.AuthorizationConfig = newReloads(m, "authentication"), newReloads(m, "authorization")
	m.decisions = m.counters("apiserver_authorization_decisions_total", "Total number of terminal decisions made by an authorizer split by authorizer type, name, and decision.", "type", "name", "decision")
	m.webhooks.open(m)
	m.matches = newMatches(m)
	m.issuers.open(m)
	return m
}

// Or is m, or metrics that nobody reads if there is none.
func Or(m *Metrics) *Metrics {
	if m == nil {
		return New("")
	}
	return m
}

// Decisions that an authoriser makes; what it leaves to others is not counted.
func (m *Metrics) Decisions(sort, name string) (allowed, denied prometheus.Counter) {
	return m.decisions.WithLabelValues(sort, name, "allowed"), m.decisions.WithLabelValues(sort, name, "denied")
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all {
		c.Collect(ch)
	}
}

func register[C prometheus.Collector](m *Metrics, c C) C {
	m.all = append(m.all, c)
	return c
}

func (m *Metrics) counter(name, help string) prometheus.Counter {
	return register(m, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help}))
}

func (m *Metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	return register(m, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
}

func (m *Metrics) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return register(m, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels))
}

// times are histograms of seconds; buckets nil = the usual ones.
func (m *Metrics) times(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return register(m, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels))
}

// doubling buckets, from a millisecond to sixteen seconds.
func doubling() []float64 { return prometheus.ExponentialBuckets(0.001, 2, 15) }

// Outcome counts what came out in one way, and how long it took.
type Outcome struct {
	total prometheus.Counter
	took  prometheus.Observer
}

// Done counts one.
func (o *Outcome) Done(took time.Duration) {
	o.total.Inc()
	o.took.Observe(took.Seconds())
}

// outcomes are found by their labels once, and held.
type outcomes struct {
	total *prometheus.CounterVec
	took  *prometheus.HistogramVec
}

func (o outcomes) of(labels ...string) Outcome {
	return Outcome{o.total.WithLabelValues(labels...), o.took.WithLabelValues(labels...)}
}

// lazily makes the counters of labels that are not known before they are needed.
// Only labels that were counted show up, as upstream has it.
type lazily[K comparable, V any] struct {
	known sync.Map // K → V
	open  func(K) V
}

func (l *lazily[K, V]) of(key K) V {
	if v, ok := l.known.Load(key); ok {
		return v.(V)
	}
	v, _ := l.known.LoadOrStore(key, l.open(key))
	return v.(V)
}

// Hash is how metrics name what is long or not for everybody: "" is nothing.
func Hash(text string) string {
	if text == "" {
		return ""
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text)))
}
