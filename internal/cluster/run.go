package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Run what the Config wants until ctx ends or a part of it fails. Containers,
// and what is set up in the kernel for them, stay when it returns.
func Run(ctx context.Context, c Config) error {
	if err := c.complete(); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(c.DataDir, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if c.Server == nil {
		m, err := c.join(ctx)
		if err != nil {
			return err
		}
		return c.runAgent(ctx, m)
	}
	s, err := c.openServer(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	return s.run(ctx)
}

// errStop ends a group whose start failed.
var errStop = errors.New("stop")

// stopped ends what runs in a group because of an error, which it returns.
func stopped(g *errgroup.Group, err error) error {
	g.Go(func() error { return errStop })
	_ = g.Wait()
	return err
}

// wait for a group. That parent has ended is how a run is meant to end.
func wait(g *errgroup.Group, parent context.Context) error {
	err := g.Wait()
	if parent.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// lock the data folder, so that no two processes write to it.
func lock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another proa uses %s: stop it, or choose another folder with --data-dir", filepath.Dir(file))
	}
	return func() { _ = f.Close() }, nil
}
