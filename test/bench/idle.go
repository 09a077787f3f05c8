package main

import (
	"context"
	"errors"

	"github.com/proa-dev/proa/test/bench/figure"
	"github.com/proa-dev/proa/test/bench/load"
	"github.com/proa-dev/proa/test/bench/plane"
)

// idleDeployments measures what Deployments cost that have all their pods: the CPU of a control
// plane with nodes that renew their leases, without and with them.
func (b *bench) idleDeployments(ctx context.Context) error {
	return b.rounds("a control plane with nothing to do", func(s figure.System) (err error) {
		p, err := b.control(ctx, s, plane.Upstream{Managers: true})
		if err != nil {
			return err
		}
		defer p.Stop()
		t, err := load.Open(p.Kubeconfig, b.detail)
		if err != nil {
			return err
		}
		defer t.Close()
		l := &load.Idle{Nodes: 10, Deployments: 1000}
		stop, err := l.MakeNodes(ctx, t)
		if stop != nil {
			defer stop()
		}
		if err != nil {
			return err
		}
		add, pids := b.add("idle", s), p.PIDs()
		before := 0.0
		err = b.idle(ctx, pids, func(_, percent float64) { before = percent })
		if err := errors.Join(err, l.Fill(ctx, t)); err != nil {
			return err
		}
		return b.idle(ctx, pids, func(_, percent float64) {
			add("idle CPU with 10 nodes", figure.PercentCore, before)
			add("idle CPU with 10 nodes and 1,000 Deployments", figure.PercentCore, percent)
		})
	})
}
