package auth

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// Counted is an authoriser whose decisions are counted, by its type and name in the
// configuration. It lists rules if z does.
func Counted(z Authorizer, m *metrics.Metrics, sort, name string) Authorizer {
	c := &counted{Authorizer: z}
	c.allowed, c.denied = m.Decisions(sort, name)
	if l, ok := z.(RuleLister); ok {
		return &countedLister{c, l}
	}
	return c
}

type counted struct {
	Authorizer
	allowed, denied prometheus.Counter
}

// Authorize implements Authorizer.
func (c *counted) Authorize(ctx context.Context, u *request.User, a Attributes) (Decision, string, error) {
	d, why, err := c.Authorizer.Authorize(ctx, u, a)
	switch d {
	case Allow:
		c.allowed.Inc()
	case Deny:
		c.denied.Inc()
	}
	return d, why, err
}

type countedLister struct {
	*counted
	RuleLister
}
