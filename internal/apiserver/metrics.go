package apiserver

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/request"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// metrics under upstream's names. A request costs one look-up and a few atomic
// additions; the labels are put together when somebody asks.
type metrics struct {
	series   sync.Map // seriesKey → *series
	watchers atomic.Int64
	handler  http.Handler
	make     func(seriesKey) *series
}

type seriesKey struct {
	verb, group, version, resource, subresource, scope string
	code                                               int
}

type series struct {
	counter prometheus.Counter
	took    prometheus.Observer
}

// buckets of the duration of requests, in seconds.
var buckets = []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60}

type vectors struct {
	total *prometheus.CounterVec
	took  *prometheus.HistogramVec
}

func newMetrics(c *Config, reads, writes *limit) *metrics {
	m := &metrics{}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	v := &vectors{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_request_total", Help: "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code."},
			[]string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "apiserver_request_duration_seconds", Help: "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.", Buckets: buckets},
			[]string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"}),
	}
	reg.MustRegister(v.total, v.took)
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "apiserver_longrunning_requests", Help: "Gauge of all active long-running apiserver requests.", ConstLabels: prometheus.Labels{"verb": "WATCH", "component": "apiserver"}},
		func() float64 { return float64(m.watchers.Load()) }))
	for kind, l := range map[string]*limit{"readOnly": reads, "mutating": writes} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "apiserver_current_inflight_requests", Help: "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.", ConstLabels: prometheus.Labels{"request_kind": kind}},
			func() float64 { return float64(l.now.Load()) }))
	}
	reg.MustRegister(c.Metrics, c.Audit.Metrics())
	if c.Fairness != nil {
		reg.MustRegister(c.Fairness.Metrics())
	}
	m.handler = promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	m.make = func(k seriesKey) *series {
		return &series{
			counter: v.total.WithLabelValues(k.verb, "", k.group, k.version, k.resource, k.subresource, k.scope, "apiserver", strconv.Itoa(k.code)),
			took:    v.took.WithLabelValues(k.verb, "", k.group, k.version, k.resource, k.subresource, k.scope, "apiserver"),
		}
	}
	return m
}

func (m *metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.handler.ServeHTTP(w, r) }

func (m *metrics) watching(n int64) { m.watchers.Add(n) }

// done counts a request.
func (m *metrics) done(r *http.Request, i *request.Info, code int, took time.Duration) {
	k := seriesKey{verb: verbLabel(i, r), code: code}
	if i.IsResource && code != http.StatusNotFound { // names of resources that are not there would never end
		k.group, k.version, k.resource, k.subresource, k.scope = i.Group, i.Version, i.Resource, i.Subresource, scopeOf(i)
	}
	got, ok := m.series.Load(k)
	if !ok {
		got, _ = m.series.LoadOrStore(k, m.make(k))
	}
	s := got.(*series)
	s.counter.Inc()
	if !longRunning(i) {
		s.took.Observe(took.Seconds())
	}
}

var verbLabels = map[string]string{
	"get": "GET", "list": "LIST", "watch": "WATCH", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETECOLLECTION",
}

func verbLabel(i *request.Info, r *http.Request) string {
	if i.Verb == "patch" && r.Header.Get("Content-Type") == "application/apply-patch+yaml" {
		return "APPLY"
	}
	if v, ok := verbLabels[i.Verb]; ok {
		return v
	}
	return "other"
}

func scopeOf(i *request.Info) string {
	switch {
	case i.Name != "":
		return "resource"
	case i.Namespace != "":
		return "namespace"
	}
	return "cluster"
}

// versionsOf are the group-versions that a kind is served in.
func versionsOf(k *api.Kind) []schema.GroupVersion {
	all := []schema.GroupVersion{k.GroupVersion()}
	for i := range k.Shapes {
		all = append(all, k.Shapes[i].GroupVersion())
	}
	return all
}
