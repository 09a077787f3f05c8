package pod

import (
	"context"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/network/nftwatch"
)

// retry is how long to wait after the kernel refused something.
const retry = 5 * time.Second

// Runner keeps a Driver at what the Nodes say.
type Runner struct {
	driver *Driver
	nodes  *client.Informer[*corev1.Node]
	wake   chan struct{}
}

// NewRunner asks for its informers: make it before they run.
func NewRunner(d *Driver, inf *client.Informers) *Runner {
	r := &Runner{driver: d, nodes: client.Shared[*corev1.Node](inf, client.Scope{}), wake: make(chan struct{}, 1)}
	r.nodes.OnChange(func(_, _ *corev1.Node) {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	})
	return r
}

// Run works until ctx ends. It leaves the network standing, for pods outlive
// the program; Driver.Down takes it away.
func (r *Runner) Run(ctx context.Context) error {
	select {
	case <-r.nodes.Synced():
	case <-ctx.Done():
		return ctx.Err()
	}
	lost, err := nftwatch.Deleted(ctx, r.driver.table())
	if err != nil {
		r.driver.cfg.Log.Warn("nobody will notice if the pod network's table is removed", "error", err)
	}
	var last *Desired
	for {
		want := Decide(r.nodes.List("", nil), r.driver.cfg.Node)
		var again <-chan time.Time
		if last == nil || !reflect.DeepEqual(*last, want) {
			if err := r.driver.Set(ctx, want); err == nil {
				last = &want
			} else if ctx.Err() == nil {
				r.driver.cfg.Log.Error("the pod network is not as it should be", "error", err)
				last, again = nil, time.After(retry)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.wake:
		case <-again:
		case <-lost:
			r.driver.forget()
			last = nil
		}
	}
}
