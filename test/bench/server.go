package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/proa-dev/proa/test/bench/figure"
	"github.com/proa-dev/proa/test/bench/plane"
)

// server measures a control plane that nobody uses: ready after its start, idle
// memory and CPU, and the size of the programs.
func (b *bench) server(ctx context.Context) error {
	err := b.rounds("a control plane by itself", func(s figure.System) error {
		p, err := b.control(ctx, s, plane.Upstream{Managers: true})
		if err != nil {
			return err
		}
		defer p.Stop()
		add := b.add("server", s)
		add("server ready after a start from nothing", figure.Seconds, p.Ready.Seconds())
		return b.idle(ctx, p.PIDs(), func(mb, percent float64) {
			add("control plane, idle memory", figure.Megabytes, mb)
			add("control plane, idle CPU", figure.PercentCore, percent)
		})
	})
	if err != nil {
		return err
	}
	for _, s := range b.systems {
		if err := b.sizes(s); err != nil {
			return err
		}
	}
	return nil
}

// How long an idle system settles and is then looked at.
const (
	settle = 20 * time.Second
	look   = 60 * time.Second
)

// idle waits until a system has settled and measures what it costs.
func (b *bench) idle(ctx context.Context, pids []int, measured func(mb, percent float64)) error {
	if err := sleep(ctx, settle); err != nil {
		return err
	}
	before, err := plane.CPU(pids...)
	if err != nil {
		return err
	}
	if err := sleep(ctx, look); err != nil {
		return err
	}
	after, err1 := plane.CPU(pids...)
	mb, err2 := plane.Memory(pids...)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	percent := 100 * (after - before).Seconds() / look.Seconds()
	b.detail("idle: %.0f MB, %.2f %% of a core", mb, percent)
	measured(mb, percent)
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// sizes of the programs that make a cluster with one node.
func (b *bench) sizes(s figure.System) error {
	files := []string{b.proa()}
	if s == figure.Upstream {
		files = nil
		for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"} {
			files = append(files, filepath.Join(b.upstream(), name))
		}
	}
	total := 0.0
	for _, f := range files {
		info, err := os.Stat(f)
		if errors.Is(err, os.ErrNotExist) && s == figure.Upstream {
			b.say("the size of upstream's programs is not known: %s was not built", filepath.Base(f))
			return nil
		}
		if err != nil {
			return err
		}
		total += float64(info.Size()) / 1e6
	}
	b.add("server", s)("programs of control plane and node", figure.Megabytes, total)
	return nil
}
