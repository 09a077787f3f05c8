package main

import (
	"context"
	"fmt"

	"github.com/proa-dev/proa/test/bench/figure"
	"github.com/proa-dev/proa/test/bench/load"
	"github.com/proa-dev/proa/test/bench/plane"
)

// part of the benchmark.
type part struct {
	name     string
	programs []string // of upstream that it runs
	run      func(b *bench, ctx context.Context) error
}

func parts() []part {
	control := []string{"etcd", "kube-apiserver"}
	all := append(control, "kube-controller-manager", "kube-scheduler")
	return []part{
		{"server", all, (*bench).server},
		{"node", append(all, "kubelet"), (*bench).node},
		{"api", control, (*bench).api},
		{"scale", control, (*bench).scale},
		{"sched", all, (*bench).sched},
		{"curve", nil, (*bench).curve},
		{"idle", all, (*bench).idleDeployments},
		{"micro", nil, (*bench).micro},
	}
}

func partNames() (names []string) {
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

// rounds calls f for each round and system, the systems in turn.
func (b *bench) rounds(name string, f func(s figure.System) error) error {
	for round := range b.count {
		for _, s := range b.systems {
			b.say("%s, %s, round %d of %d", name, s, round+1, b.count)
			if err := f(s); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
	}
	return nil
}

func (b *bench) add(part string, s figure.System) load.Add {
	return func(name string, unit figure.Unit, value float64) {
		b.book.Add(figure.Kind{Part: part, Name: name, Unit: unit}, s, value)
	}
}

// control starts a system's control plane. u says how upstream's; the flags are of both.
func (b *bench) control(ctx context.Context, s figure.System, u plane.Upstream) (*plane.Plane, error) {
	if s == figure.Proa {
		return plane.Proa(ctx, b.proa(), b.dir(), u.Flags...)
	}
	u.Programs, u.Below = b.upstream(), b.dir()
	r, err := u.Start(ctx)
	if err != nil {
		return nil, err
	}
	return r.Plane, nil
}

// controlAt is a control plane alone that listens at an address.
func (b *bench) controlAt(ctx context.Context, s figure.System, address string) (*plane.Plane, error) {
	return b.control(ctx, s, plane.Upstream{Flags: []string{"--bind-address=" + address}})
}

// api puts requests on the API server alone.
func (b *bench) api(ctx context.Context) error {
	run := func(kubeconfig string, add load.Add, memory func() float64) error {
		t, err := load.Open(kubeconfig, b.detail)
		if err != nil {
			return err
		}
		defer t.Close()
		return (&load.API{Pods: b.pods, Writers: 64, Watchers: 300, Memory: memory}).Run(ctx, t, add)
	}
	if b.kubeconfig != "" {
		return run(b.kubeconfig, b.add("api", figure.Proa), nil)
	}
	return b.rounds("requests to the API server", func(s figure.System) error {
		p, err := b.control(ctx, s, plane.Upstream{})
		if err != nil {
			return err
		}
		defer p.Stop()
		memory := func() float64 {
			mb, err := plane.Memory(p.PIDs()...)
			if err != nil {
				b.say("its memory: %v", err)
			}
			b.detail("memory %.0f MB", mb)
			return mb
		}
		return run(p.Kubeconfig, b.add("api", s), memory)
	})
}

// sched has pods bound, each shape on a server of its own.
func (b *bench) sched(ctx context.Context) error {
	run := func(kubeconfig string, shape load.Shape, add load.Add) error {
		t, err := load.Open(kubeconfig, b.detail)
		if err != nil {
			return err
		}
		defer t.Close()
		return (&load.Sched{Nodes: b.nodes, Pods: b.scheduled, Shape: shape}).Run(ctx, t, add)
	}
	if b.kubeconfig != "" {
		return run(b.kubeconfig, load.Bare, b.add("sched", figure.Proa))
	}
	for _, shape := range load.Shapes() {
		err := b.rounds("scheduling "+string(shape), func(s figure.System) error {
			p, err := b.control(ctx, s, plane.Upstream{Managers: true, Unthrottled: true})
			if err != nil {
				return err
			}
			defer p.Stop()
			return run(p.Kubeconfig, shape, b.add("sched", s))
		})
		if err != nil {
			return err
		}
	}
	return nil
}
