// Package aggregation fills ClusterRoles that have an aggregationRule with the
// rules of the roles that it selects.
package aggregation

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// Controller of aggregated roles.
type Controller struct {
	queue *loop.Queue
	in    *client.Informer[*rbacv1.ClusterRole]
	roles client.Client[*rbacv1.ClusterRole]
}

// New controller. It writes through conn, whose user has to hold escalate on
// ClusterRoles: the rules that it puts together may be more than it has.
func New(in *client.Informers, conn client.Conn, log *slog.Logger) *Controller {
	c := &Controller{
		queue: loop.NewQueue("clusterroleaggregation", log),
		in:    client.Shared[*rbacv1.ClusterRole](in, client.Scope{}),
		roles: client.For[*rbacv1.ClusterRole](conn),
	}
	c.in.OnChange(func(old, now *rbacv1.ClusterRole) {
		if now != nil && now.AggregationRule != nil {
			c.queue.AddObject(now)
		}
		for _, r := range c.in.List("", nil) {
			if r.AggregationRule != nil && (old != nil && selects(r, old) || now != nil && selects(r, now)) {
				c.queue.AddObject(r)
			}
		}
	})
	return c
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	return c.queue.Run(ctx, 1, c.reconcile, c.in.Synced())
}

func (c *Controller) reconcile(ctx context.Context, name string) (time.Duration, error) {
	r, err := c.roles.Get(ctx, "", name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil || r.AggregationRule == nil {
		return 0, err
	}
	all, err := c.roles.List(ctx, "", client.ListOptions{})
	if err != nil {
		return 0, err
	}
	rules := sum(r, all)
	if equality.Semantic.DeepEqual(rules, r.Rules) {
		return 0, nil
	}
	out := r.DeepCopy()
	out.Rules = rules
	_, err = c.roles.Update(ctx, out)
	return 0, err
}

// selects says whether a role is one of those that make up an aggregated one.
func selects(r, other *rbacv1.ClusterRole) bool {
	if r.Name == other.Name {
		return false
	}
	return slices.ContainsFunc(r.AggregationRule.ClusterRoleSelectors, func(s metav1.LabelSelector) bool {
		sel, err := metav1.LabelSelectorAsSelector(&s)
		return err == nil && sel.Matches(labels.Set(other.Labels))
	})
}

// sum of the rules of the roles that r selects, in order of their names, each once.
func sum(r *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) []rbacv1.PolicyRule {
	parts := slices.DeleteFunc(slices.Clone(all), func(o *rbacv1.ClusterRole) bool { return !selects(r, o) })
	slices.SortFunc(parts, func(a, b *rbacv1.ClusterRole) int { return cmp.Compare(a.Name, b.Name) })
	var rules []rbacv1.PolicyRule
	for _, o := range parts {
		for _, rule := range o.Rules {
			if !slices.ContainsFunc(rules, func(have rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(have, rule) }) {
				rules = append(rules, rule)
			}
		}
	}
	return rules
}
