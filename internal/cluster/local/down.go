package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/proa-dev/proa/internal/cluster"
	"github.com/proa-dev/proa/internal/cluster/containerd"
	"github.com/proa-dev/proa/internal/cluster/daemon"
)

// Down stops a cluster: server, agents, containers and all they have set up in
// the kernel. Its objects, images and volumes stay on disk for the next Up.
func (s *Spec) Down(ctx context.Context, program, runtimeDir string, say func(string)) error {
	var errs []error
	try := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	for i := s.Nodes; i >= 1; i-- {
		file, dir := s.agentPID(i), s.nodeDir(i)
		if i == 1 {
			file, dir = s.serverPID(), s.DataDir
		}
		say("stopping node " + s.NodeName(i))
		try("stop "+s.NodeName(i), daemon.StopFile(ctx, file, 20*time.Second))
		try("end the containers of "+s.NodeName(i), endContainers(ctx, dir, runtimeDir))
		if i > 1 {
			try("remove the namespaces of "+s.NodeName(i), s.removeNode(i))
		}
		try("remove the cgroups of "+s.NodeName(i), removeCgroups(s.cgroup(i)))
	}
	try("remove the pod network", cluster.RemoveNetwork(ctx, s.Name, s.DataDir, s.serviceRange(), s.podRange()))
	try("remove the bridge", s.removeBridge(ctx))
	try("unmount", containerd.Unmount(s.DataDir))
	return errors.Join(errs...)
}

func endContainers(ctx context.Context, dir, runtimeDir string) error {
	c := cluster.Containerd(dir, cluster.RunDir(dir))
	c.Log = slog.New(slog.DiscardHandler)
	var err error
	if c.Binaries, err = containerd.FindBinaries(runtimeDir); err != nil {
		return err
	}
	return c.Down(ctx)
}

// Delete stops a cluster and removes all that is left of it.
func (s *Spec) Delete(ctx context.Context, program, runtimeDir string, say func(string)) error {
	if err := s.Down(ctx, program, runtimeDir, say); err != nil {
		return err
	}
	if err := unmerge(s.Context()); err != nil {
		return fmt.Errorf("the kubeconfig: %w", err)
	}
	if err := os.RemoveAll(s.DataDir); err != nil {
		return err
	}
	if err := os.Remove(record(s.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, dir := range []string{records(), Root, "/run/proa"} { // those that are empty now
		_ = os.Remove(dir)
	}
	return nil
}

// removeCgroups takes a control group and those below it away, in every
// hierarchy. Their processes have ended.
func removeCgroups(name string) error {
	dirs, err := filepath.Glob("/sys/fs/cgroup/*" + name)
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range append(dirs, "/sys/fs/cgroup"+name) {
		errs = append(errs, removeTree(dir))
	}
	return errors.Join(errs...)
}

// removeTree of folders, the deepest first; the files in cgroups cannot be removed.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeTree(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, rmdir(dir))
}

// rmdir a control group. The kernel takes a moment to let go of processes that
// have ended, and says so with EBUSY.
func rmdir(dir string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) || time.Now().After(deadline) {
			return err
		}
		<-time.After(10 * time.Millisecond)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
