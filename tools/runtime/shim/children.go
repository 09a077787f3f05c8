package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/containerd/containerd/v2/pkg/sys/reaper"
	"github.com/containerd/log"
)

// children sees to it that either somebody waits for the ends of certain children, or
// the reaper for those of all: the library that creates a container forks thrice and
// waits for the first two, and would not find those that were reaped already.
type children struct{ turn chan struct{} }

func newChildren() *children { return &children{make(chan struct{}, 1)} }

// patience is for how long the two wait for each other. A creation that takes longer
// hangs at a mount, long after its forks, and nobody else's end may wait for it.
const patience = time.Second

var errBusy = errors.New("another container of the pod is being created")

// apart runs a function during which nothing is reaped, for patience long.
func (c *children) apart(do func() error) error {
	select {
	case c.turn <- struct{}{}:
	case <-time.After(patience):
		return errBusy
	}
	defer func() { <-c.turn }()
	return do()
}

// reap children whenever one has ended, until the context ends.
func (c *children) reap(ctx context.Context, ended <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
		}
		ours := true
		select {
		case c.turn <- struct{}{}:
		case <-time.After(patience):
			ours = false
		}
		if err := reaper.Reap(); err != nil {
			log.G(ctx).WithError(err).Error("reap exit status")
		}
		if ours {
			<-c.turn
		}
	}
}
