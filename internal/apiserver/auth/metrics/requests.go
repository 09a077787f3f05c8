package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Authentication of requests: how it ended.
type Authentication struct {
	Success, Failure, Error Outcome
	users                   map[string]prometheus.Counter
}

// Sorts of users: names of users have no bound, and are nobody's business.
const (
	withAddress = "email_id"
	anyOther    = "other"
)

func (a *Authentication) open(m *Metrics) {
	of := outcomes{
		m.counters("authentication_attempts", "Counter of authenticated attempts.", "result"),
		m.times("authentication_duration_seconds", "Authentication duration in seconds broken out by result.", doubling(), "result"),
	}
	a.Success, a.Failure, a.Error = of.of("success"), of.of("failure"), of.of("error")
	users := m.counters("authenticated_user_requests", "Counter of authenticated requests broken out by username.", "username")
	a.users = map[string]prometheus.Counter{}
	for _, name := range []string{withAddress, anyOther, "admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"} {
		a.users[name] = users.WithLabelValues(name)
	}
}

// Known counts a request of a user who was recognised.
func (a *Authentication) Known(user string, took time.Duration) {
	c, ok := a.users[user]
	switch {
	case ok: // an address has an @, the names that are told apart have none
	case strings.Contains(user, "@"):
		c = a.users[withAddress]
	default:
		c = a.users[anyOther]
	}
	c.Inc()
	a.Success.Done(took)
}

// Authorization of requests: what was decided.
type Authorization struct {
	Allowed, Denied, NoOpinion, Error Outcome
}

func (a *Authorization) open(m *Metrics) {
	of := outcomes{
		m.counters("authorization_attempts_total", "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.", "result"),
		m.times("authorization_duration_seconds", "Authorization duration in seconds broken out by result.", doubling(), "result"),
	}
	a.Allowed, a.Denied, a.NoOpinion, a.Error = of.of("allowed"), of.of("denied"), of.of("no-opinion"), of.of("error")
}

// Impersonation that requests ask for (KEP-5284).
type Impersonation struct {
	attempts, checks lazily[impersonation, *Outcome]
}

type impersonation struct {
	mode    string
	allowed bool
}

func (i *Impersonation) open(m *Metrics) {
	of := func(o outcomes) func(impersonation) *Outcome {
		return func(i impersonation) *Outcome {
			decision := "denied"
			if i.allowed {
				decision = "allowed"
			}
			out := o.of(i.mode, decision)
			return &out
		}
	}
	const name = "apiserver_impersonation_"
	i.attempts.open = of(outcomes{
		m.counters(name+"attempts_total", "Total number of impersonation attempts split by mode and decision.", "mode", "decision"),
		m.times(name+"attempts_duration_seconds", "Latency of impersonation attempts in seconds split by mode and decision.", doubling(), "mode", "decision"),
	})
	i.checks.open = of(outcomes{
		m.counters(name+"authorization_attempts_total", "Total number of authorization checks made by the impersonation handler split by mode and decision.", "mode", "decision"),
		m.times(name+"authorization_attempts_duration_seconds", "Latency of authorization checks made by the impersonation handler in seconds split by mode and decision.", doubling(), "mode", "decision"),
	})
}

// Attempt to impersonate. constraint is the verb that allowed it, "" for plain
// impersonation.
func (i *Impersonation) Attempt(constraint string, allowed bool, took time.Duration) {
	key := impersonation{allowed: allowed}
	switch {
	case !allowed: // no mode has worked
	case constraint == "":
		key.mode = modeOf("impersonate")
	default:
		key.mode = modeOf(constraint)
	}
	i.attempts.of(key).Done(took)
}

// Check of what somebody may do who wants to impersonate, by the verb that is asked for.
func (i *Impersonation) Check(verb string, allowed bool, took time.Duration) {
	i.checks.of(impersonation{modeOf(verb), allowed}).Done(took)
}

// modeOf a verb that is about impersonation: impersonate, impersonate:MODE or
// impersonate-on:MODE:VERB.
func modeOf(verb string) string {
	if verb == "impersonate" {
		return "legacy"
	}
	mode, ok := strings.CutPrefix(verb, "impersonate:")
	if !ok {
		if mode, ok = strings.CutPrefix(verb, "impersonate-on:"); ok {
			mode, _, ok = strings.Cut(mode, ":")
		}
	}
	switch mode {
	case "associated-node", "arbitrary-node", "serviceaccount", "user-info":
		if ok {
			return mode
		}
	}
	return "unknown"
}
