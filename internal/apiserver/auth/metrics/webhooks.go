package metrics

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// webhooks that are asked whether a user may do something.
type webhooks struct {
	asked    outcomes
	failOpen *prometheus.CounterVec
}

func (w *webhooks) open(m *Metrics) {
	const name = "apiserver_authorization_webhook_"
	w.asked = outcomes{
		m.counters(name+"evaluations_total", "Round-trips to authorization webhooks.", "name", "result"),
		m.times(name+"duration_seconds", "Request latency in seconds.", nil, "name", "result"),
	}
	w.failOpen = m.counters(name+"evaluations_fail_open_total", "NoOpinion results due to webhook timeout or error.", "name", "result")
}

// Webhook is what is counted of one webhook that decides.
type Webhook struct {
	m     *Metrics
	name  string
	asked lazily[string, *Outcome]
}

// Webhook by the name that its configuration has for it.
func (m *Metrics) Webhook(name string) *Webhook {
	w := &Webhook{m: m, name: name}
	w.asked.open = func(result string) *Outcome {
		o := m.webhooks.asked.of(name, result)
		return &o
	}
	return w
}

// Asked counts one call; code is what was answered, 0 = nothing was.
func (w *Webhook) Asked(ctx context.Context, code int, err error, took time.Duration) {
	w.asked.of(resultOf(ctx, code, err)).Done(took)
}

// FailedOpen counts a decision that was left to others because the webhook could not
// be asked; the code and the error are those of the last call.
func (w *Webhook) FailedOpen(ctx context.Context, code int, err error) {
	w.m.webhooks.failOpen.WithLabelValues(w.name, resultOf(ctx, code, err)).Inc()
}

// resultOf a call: success, canceled, timeout or error.
func resultOf(ctx context.Context, code int, err error) string {
	switch {
	case err == nil:
		return "success"
	case ctx.Err() != nil:
		return "canceled"
	case utilnet.IsTimeout(err), errors.Is(err, context.DeadlineExceeded), apierrors.IsTimeout(err), code == http.StatusGatewayTimeout:
		return "timeout"
	}
	return "error"
}

// Matches are the conditions that say which requests a webhook is asked about. It
// is a cel.MatcherMetrics.
type Matches struct {
	failed, excluded *prometheus.CounterVec
	took             *prometheus.HistogramVec
}

func newMatches(m *Metrics) *Matches {
	const name = "apiserver_authorization_match_condition_"
	return &Matches{
		failed:   m.counters(name+"evaluation_errors_total", "Total number of errors when an authorization webhook encounters a match condition error split by authorizer type and name.", "type", "name"),
		excluded: m.counters(name+"exclusions_total", "Total number of exclusions when an authorization webhook is skipped because match conditions exclude it.", "type", "name"),
		took: m.times(name+"evaluation_seconds", "Authorization match condition evaluation time in seconds, split by authorizer type and name.",
			[]float64{0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25}, "type", "name"),
	}
}

// Matches of all webhooks.
func (m *Metrics) Matches() *Matches { return m.matches }

// RecordAuthorizationMatchConditionEvaluation implements cel.MatcherMetrics.
func (c *Matches) RecordAuthorizationMatchConditionEvaluation(_ context.Context, sort, name string, took time.Duration) {
	c.took.WithLabelValues(sort, name).Observe(took.Seconds())
}

// RecordAuthorizationMatchConditionEvaluationFailure implements cel.MatcherMetrics.
func (c *Matches) RecordAuthorizationMatchConditionEvaluationFailure(_ context.Context, sort, name string) {
	c.failed.WithLabelValues(sort, name).Inc()
}

// RecordAuthorizationMatchConditionExclusion implements cel.MatcherMetrics.
func (c *Matches) RecordAuthorizationMatchConditionExclusion(_ context.Context, sort, name string) {
	c.excluded.WithLabelValues(sort, name).Inc()
}
