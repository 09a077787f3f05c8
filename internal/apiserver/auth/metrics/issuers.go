package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// issuers of tokens (OpenID Connect) are named by the hash of their URL.
type issuers struct {
	server  string
	took    *prometheus.HistogramVec
	fetched *prometheus.GaugeVec
	info    *prometheus.Desc

	mu   sync.Mutex
	keys map[string]string // hash of the issuer → hash of its keys
}

const jwt = "apiserver_authentication_jwt_authenticator_"

func (i *issuers) open(m *Metrics) {
	i.server, i.keys = m.server, map[string]string{}
	i.took = m.times(jwt+"latency_seconds", "Latency of jwt authentication operations in seconds. This is the time spent authenticating a token for cache miss only (i.e. when the token is not found in the cache).",
		[]float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}, "result", "jwt_issuer_hash")
	i.fetched = m.gauges(jwt+"jwks_fetch_last_timestamp_seconds", "Timestamp of the last successful or failed JWKS fetch split by result, api server identity and jwt issuer for the JWT authenticator.",
		"result", "jwt_issuer_hash", "apiserver_id_hash")
	i.info = prometheus.NewDesc(jwt+"jwks_fetch_last_key_set_info", "Information about the last JWKS fetched by the JWT authenticator with hash as label, split by api server identity and jwt issuer.",
		[]string{"jwt_issuer_hash", "apiserver_id_hash", "hash"}, nil)
	register(m, i)
}

// Describe implements prometheus.Collector.
func (i *issuers) Describe(ch chan<- *prometheus.Desc) { ch <- i.info }

// Collect implements prometheus.Collector.
func (i *issuers) Collect(ch chan<- prometheus.Metric) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for issuer, keys := range i.keys {
		ch <- prometheus.MustNewConstMetric(i.info, prometheus.GaugeValue, 1, issuer, i.server, keys)
	}
}

// Issuer is what is counted of one issuer.
type Issuer struct {
	of   *issuers
	hash string
	good prometheus.Observer
	bad  prometheus.Observer
}

// Issuer with a URL.
func (m *Metrics) Issuer(url string) *Issuer {
	hash := Hash(url)
	return &Issuer{&m.issuers, hash, m.issuers.took.WithLabelValues("success", hash), m.issuers.took.WithLabelValues("failure", hash)}
}

// Authenticated counts a token that was looked at.
func (i *Issuer) Authenticated(err error, took time.Duration) {
	if err != nil {
		i.bad.Observe(took.Seconds())
		return
	}
	i.good.Observe(took.Seconds())
}

// Fetched notes that the issuer was asked for its keys; keys are what it has answered.
// Of nil it notes nothing.
func (i *Issuer) Fetched(keys []byte, err error) {
	if i == nil {
		return
	}
	if err != nil {
		i.of.fetched.WithLabelValues("failure", i.hash, i.of.server).SetToCurrentTime()
		return
	}
	i.of.fetched.WithLabelValues("success", i.hash, i.of.server).SetToCurrentTime()
	i.of.mu.Lock()
	defer i.of.mu.Unlock()
	i.of.keys[i.hash] = Hash(string(keys))
}

// Gone forgets the keys of an issuer that is not believed any more.
func (i *Issuer) Gone() {
	for _, result := range []string{"success", "failure"} {
		i.of.fetched.DeleteLabelValues(result, i.hash, i.of.server)
	}
	i.of.mu.Lock()
	defer i.of.mu.Unlock()
	delete(i.of.keys, i.hash)
}
