package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-dev/proa/internal/cluster/daemon"
)

// Down ends all pods and containerd itself. It works on what a crash left too:
// a containerd that does not answer is started for it, shims without one are
// ended, mounts are undone. What is on disk stays.
func (c *Config) Down(ctx context.Context) error {
	var errs []error
	if _, err := os.Stat(filepath.Join(c.RunDir, "state")); err == nil {
		errs = append(errs, c.endPods(ctx))
	}
	errs = append(errs, daemon.StopFile(ctx, c.pidFile(), 10*time.Second))
	errs = append(errs, endShims(c.Socket()))
	errs = append(errs, Unmount(c.RunDir), Unmount(c.DataDir))
	errs = append(errs, os.RemoveAll(c.RunDir))
	return errors.Join(errs...)
}

func (c *Config) endPods(ctx context.Context) error {
	p := daemon.Find(c.pidFile())
	if p == nil {
		if _, err := os.Stat(c.configFile()); err != nil {
			return nil // it never ran
		}
		var err error
		if p, err = c.start(); err != nil {
			return err
		}
	}
	defer p.Close()
	if err := c.answers(ctx, p); err != nil {
		return err
	}
	conn, err := Dial(c.Endpoint())
	if err != nil {
		return err
	}
	defer conn.Close()
	return EndPods(ctx, cri.NewRuntimeServiceClient(conn))
}

// EndPods stops and removes every pod of a runtime, all at once: SIGKILL after
// two seconds for those that do not end.
func EndPods(ctx context.Context, rt cri.RuntimeServiceClient) error {
	running, err := rt.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{State: &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}}})
	if err != nil {
		return fmt.Errorf("the runtime's containers: %w", err)
	}
	var g errgroup.Group
	g.SetLimit(16)
	for _, container := range running.Containers {
		g.Go(func() error {
			_, err := rt.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: container.Id, Timeout: 2})
			return err
		})
	}
	err = g.Wait()
	pods, listErr := rt.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if listErr != nil {
		return errors.Join(err, listErr)
	}
	for _, pod := range pods.Items {
		g.Go(func() error {
			if _, err := rt.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod.Id}); err != nil {
				return err
			}
			_, err := rt.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod.Id})
			return err
		})
	}
	return errors.Join(err, g.Wait())
}

// endShims kills the shims that were started for a containerd's socket; with
// them go their containers.
func endShims(socket string) error {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, dir := range processes {
		pid, err := strconv.Atoi(dir.Name())
		if err != nil {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join("/proc", dir.Name(), "cmdline"))
		if err != nil {
			continue
		}
		args := strings.Split(string(cmdline), "\x00")
		if strings.HasSuffix(args[0], "containerd-shim-runc-v2") && containsPair(args, "-address", socket) {
			for _, child := range children(pid) {
				_ = unix.Kill(child, unix.SIGKILL)
			}
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return nil
}

func containsPair(args []string, flag, value string) bool {
	for i := range len(args) - 1 {
		if args[i] == flag && args[i+1] == value {
			return true
		}
	}
	return false
}

func children(pid int) (pids []int) {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, field := range strings.Fields(string(data)) {
		if child, err := strconv.Atoi(field); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// Unmount everything that is mounted at a folder or below it, the deepest first.
func Unmount(folder string) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	for i := len(lines) - 1; i >= 0; i-- { // later mounts lie on earlier ones
		fields := strings.Fields(lines[i])
		if len(fields) < 5 {
			continue
		}
		at := unescape(fields[4])
		if at == folder || strings.HasPrefix(at, folder+"/") {
			if e := unix.Unmount(at, unix.MNT_DETACH); e != nil && !errors.Is(e, unix.EINVAL) && !errors.Is(e, unix.ENOENT) {
				err = errors.Join(err, fmt.Errorf("unmount %s: %w", at, e))
			}
		}
	}
	return err
}

// unescape undoes the octal escapes of mountinfo.
func unescape(path string) string {
	if !strings.Contains(path, `\`) {
		return path
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}
