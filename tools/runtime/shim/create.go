package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// creation is what "runc create" is told, and by its process: where the container's
// program reads and writes.
type creation struct {
	root, id, bundle, pidFile string
	noPivot, noNewKeyring     bool
	stdio                     *exec.Cmd
}

// creates reads the command; false when it is told anything unknown here.
func (c command) creates(stdio *exec.Cmd) (n creation, ok bool) {
	if len(c.args) != 1 || len(stdio.ExtraFiles) > 0 {
		return n, false
	}
	n = creation{root: c.root, id: c.args[0], stdio: stdio}
	for flag, value := range c.flags {
		switch flag {
		case "--bundle":
			n.bundle = value
		case "--pid-file":
			n.pidFile = value
		case "--no-pivot":
			n.noPivot = true
		case "--no-new-keyring":
			n.noNewKeyring = true
		default: // a terminal's --console-socket, --pidfd-socket, --preserve-fds
			return n, false
		}
	}
	return n, filepath.IsAbs(n.root) && filepath.IsAbs(n.bundle) && filepath.IsAbs(n.pidFile)
}

// run creates the container: its init waits to be started. After an error nothing of
// it is left.
func (n creation) run() error {
	spec, err := n.spec()
	if err != nil {
		return err
	}
	if what := unusual(spec); what != "" {
		return errors.New("it has " + what)
	}
	config, err := n.config(spec)
	if err != nil {
		return err
	}
	process := program(spec.Process)
	process.Stdin, process.Stdout, process.Stderr = n.stdio.Stdin, n.stdio.Stdout, n.stdio.Stderr
	defer keepLimit()()
	container, err := libcontainer.Create(n.root, n.id, config)
	if err != nil {
		return err
	}
	if err := container.Start(process); err != nil {
		return errors.Join(err, container.Destroy())
	}
	if err := n.writePid(process); err != nil {
		process.Signal(unix.SIGKILL)
		process.Wait()
		return errors.Join(err, container.Destroy())
	}
	return nil
}

func (n creation) spec() (*specs.Spec, error) {
	f, err := os.Open(filepath.Join(n.bundle, "config.json"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var spec specs.Spec
	return &spec, json.NewDecoder(f).Decode(&spec)
}

// config is the specification as the library knows it, and for which this process's
// working directory is the bundle.
func (n creation) config(spec *specs.Spec) (*configs.Config, error) {
	if !filepath.IsAbs(spec.Root.Path) {
		spec.Root.Path = filepath.Join(n.bundle, spec.Root.Path)
	}
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName: n.id, Spec: spec, NoPivotRoot: n.noPivot, NoNewKeyring: n.noNewKeyring,
	})
	if err != nil {
		return nil, err
	}
	if last := len(config.Labels) - 1; last >= 0 {
		config.Labels[last] = "bundle=" + n.bundle
	}
	return config, nil
}

// unusual says what a container has that only runc itself may handle: what runs
// further programs, what depends on the process that creates it, what is wrong.
func unusual(s *specs.Spec) string {
	switch p := s.Process; {
	case os.Geteuid() != 0:
		return "an owner who is not root"
	case s.Root == nil || s.Linux == nil || p == nil || len(p.Args) == 0 || !filepath.IsAbs(p.Cwd):
		return "no root, no program, or no folder to run it in"
	case p.Terminal || p.ConsoleSize != nil:
		return "a terminal"
	case p.SelinuxLabel != "" || s.Linux.MountLabel != "":
		return "labels of SELinux"
	case len(p.Rlimits) > 0 || p.Scheduler != nil || p.IOPriority != nil || p.ExecCPUAffinity != nil:
		return "limits or priorities of its own"
	case s.Hooks != nil:
		return "hooks"
	case len(s.Linux.UIDMappings) > 0 || len(s.Linux.GIDMappings) > 0:
		return "users of its own"
	case s.Linux.Seccomp != nil && s.Linux.Seccomp.ListenerPath != "":
		return "a listener for its system calls"
	case s.Linux.IntelRdt != nil || len(s.Linux.NetDevices) > 0:
		return "devices of its own"
	}
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == specs.UserNamespace {
			return "users of its own"
		}
	}
	for _, m := range s.Mounts {
		bind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
		if bind && !filepath.IsAbs(m.Source) || len(m.UIDMappings) > 0 || len(m.GIDMappings) > 0 {
			return "an unusual mount at " + m.Destination
		}
	}
	return ""
}

// program of the container, as the library knows it.
func program(p *specs.Process) *libcontainer.Process {
	process := &libcontainer.Process{
		Init: true, Args: p.Args, Env: p.Env, Cwd: p.Cwd,
		UID: int(p.User.UID), GID: int(p.User.GID),
		NoNewPrivileges: &p.NoNewPrivileges, AppArmorProfile: p.ApparmorProfile,
		LogLevel: "4", // info
	}
	for _, gid := range p.User.AdditionalGids {
		process.AdditionalGroups = append(process.AdditionalGroups, int(gid))
	}
	if c := p.Capabilities; c != nil {
		process.Capabilities = &configs.Capabilities{
			Bounding: c.Bounding, Effective: c.Effective, Inheritable: c.Inheritable,
			Permitted: c.Permitted, Ambient: c.Ambient,
		}
	}
	return process
}

// keepLimit returns what sets back a limit that the library lifts for itself when it
// loads a control group's device filter: the pod's next container would inherit it.
func keepLimit() func() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) != nil {
		return func() {}
	}
	return func() { unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit) }
}

// writePid so that nobody sees half of it.
func (n creation) writePid(process *libcontainer.Process) error {
	pid, err := process.Pid()
	if err != nil {
		return err
	}
	temporary := filepath.Join(filepath.Dir(n.pidFile), "."+filepath.Base(n.pidFile))
	if err := os.WriteFile(temporary, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return fmt.Errorf("pid file: %w", err)
	}
	return os.Rename(temporary, n.pidFile)
}
