// containerd-shim-runc-v2 stands between containerd and one pod's containers. It is
// containerd's own shim, put together here so that it creates, starts, kills and deletes
// containers by itself, with runc's library: the shim of upstream runs a runc of 5 to
// 20 ms for each of these, which with many pods at once is a good part of all that a
// node does. As runc does, it runs itself as "init" to become a container.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/go-runc"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	_ "github.com/opencontainers/cgroups/devices" // whose filters the library looks for
	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // which enters namespaces before Go starts
	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		libcontainer.Init() // and never returns
	}
	runtime.GOMAXPROCS(2) // not the 4 of its environment, each with memory and threads of its own
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn:   newTasks,
	})
	ourReaper := func(config *shim.Config) { config.NoReaper = true }
	shim.RunShim(context.Background(), brisk{manager.NewShimManager("io.containerd.runc.v2")}, ourReaper)
}

// brisk starts the shim that stays, or clears up, and ends: too soon for collecting garbage.
type brisk struct{ shim.Shim }

// Start a shim for a pod.
func (b brisk) Start(ctx context.Context, params *bootstrap.BootstrapParams) (*bootstrap.BootstrapResult, error) {
	debug.SetGCPercent(-1)
	return b.Shim.Start(ctx, params)
}

// Stop what is left of a container whose shim has gone: after any orderly end too.
func (b brisk) Stop(ctx context.Context, id string) (shim.StopStatus, error) {
	debug.SetGCPercent(-1)
	runc.Monitor = monitor{runc.Monitor, newChildren()}
	return b.Shim.Stop(ctx, id)
}

func newTasks(ic *plugin.InitContext) (any, error) {
	publisher, err := ic.GetByID(plugins.EventPlugin, "publisher")
	if err != nil {
		return nil, err
	}
	down, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
	if err != nil {
		return nil, err
	}
	service, err := task.NewTaskService(ic.Context, publisher.(shim.Publisher), down.(shutdown.Service))
	if err != nil {
		return nil, err
	}
	ended, children := make(chan os.Signal, 1), newChildren()
	signal.Notify(ended, unix.SIGCHLD)
	go children.reap(ic.Context, ended)
	runc.Monitor = monitor{runc.Monitor, children} // the former the service has set to its reaper
	// The package shim has set 40, with which a heap of 2 MB is collected half a dozen
	// times before the pod runs. What is free it gives back every half minute anyway.
	debug.SetGCPercent(100)
	return service, os.Setenv("GOMAXPROCS", "1") // for "init", which gets no more of the environment
}
