package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/go-runc"
	"github.com/containerd/log"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// brief is for Go programs that live some milliseconds: threads for a second core
// and for collecting 4 MB of garbage cost them more than they save. The container's
// own environment comes from its specification.
var brief = []string{"GOMAXPROCS=1", "GOGC=off"}

// monitor runs the commands of runc that make or end a container within this process,
// as runc itself would: with its library, on its files. All others, and those that do
// not go as they should, a runc runs, which says what is wrong.
type monitor struct {
	runc.ProcessMonitor
	children *children
}

// Start a command. One that has been done already has no process.
func (m monitor) Start(c *exec.Cmd) (chan runc.Exit, error) {
	if m.done(c) {
		return success(), nil
	}
	c.Env = append(c.Env, brief...)
	return m.ProcessMonitor.Start(c)
}

// StartLocked is Start on one thread.
func (m monitor) StartLocked(c *exec.Cmd) (chan runc.Exit, error) {
	if m.done(c) {
		return success(), nil
	}
	c.Env = append(c.Env, brief...)
	return m.ProcessMonitor.StartLocked(c)
}

// Wait for a command.
func (m monitor) Wait(c *exec.Cmd, exits chan runc.Exit) (int, error) {
	if c.Process == nil {
		return (<-exits).Status, nil
	}
	return m.ProcessMonitor.Wait(c, exits)
}

func success() chan runc.Exit {
	exits := make(chan runc.Exit, 1)
	exits <- runc.Exit{Timestamp: time.Now()}
	return exits
}

// command is what runc is told: global flags, a verb, its flags and arguments.
type command struct {
	root, verb string
	flags      map[string]string // with their values
	args       []string
}

// parse the arguments as go-runc writes them; false when it is none of those that
// are run here.
func parse(args []string) (c command, ok bool) {
	for i := 1; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--root" && i+1 < len(args):
			i++
			c.root = args[i]
		case (arg == "--log" || arg == "--log-format") && i+1 < len(args):
			i++
		case c.verb == "" && strings.HasPrefix(arg, "-"):
			return c, false // --systemd-cgroup, --debug: as runc knows best
		case c.verb == "":
			c.verb, c.flags = arg, map[string]string{}
		case (arg == "--bundle" || arg == "--pid-file") && i+1 < len(args):
			i++
			c.flags[arg] = args[i]
		case strings.HasPrefix(arg, "-"):
			c.flags[arg] = ""
		default:
			c.args = append(c.args, arg)
		}
	}
	return c, c.root != "" && len(c.args) > 0
}

// done says whether the command was one that is run here, and succeeded.
func (m monitor) done(cmd *exec.Cmd) bool {
	c, ok := parse(cmd.Args)
	if !ok {
		return false
	}
	_, all := c.flags["--all"]
	_, force := c.flags["--force"]
	switch {
	case c.verb == "create":
		n, ok := c.creates(cmd)
		if !ok {
			return false
		}
		err := m.children.apart(n.run)
		if err != nil {
			log.L.WithError(err).WithField("container", n.id).Info("runc creates it instead")
		}
		return err == nil
	case c.verb == "start" && len(c.flags) == 0 && len(c.args) == 1:
		return start(c.root, c.args[0]) == nil
	case c.verb == "kill" && len(c.args) == 2 && (len(c.flags) == 0 || len(c.flags) == 1 && all):
		return kill(c.root, c.args[0], c.args[1]) == nil
	case c.verb == "delete" && len(c.flags) == 0 && len(c.args) == 1:
		return destroy(c.root, c.args[0]) == nil
	case c.verb == "delete" && len(c.flags) == 1 && force && len(c.args) == 1:
		return unknown(c.root, c.args[0])
	}
	return false
}

// unknown is a container that is not there, or has been deleted in order.
func unknown(root, id string) bool {
	_, err := os.Lstat(filepath.Join(root, id))
	return errors.Is(err, fs.ErrNotExist)
}

// fifo is how a created container waits: its init opens this to write a byte before
// it becomes the container's program. With the first who reads it the container is
// no longer created but running.
const fifo = "exec.fifo"

// start a created container.
func start(root, id string) error {
	path := filepath.Join(root, id, fifo)
	// Without waiting for the other side, so that it can be seen whether there is one.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 100) // ms
		switch {
		case n > 0:
			if got, err := f.Read(make([]byte, 1)); got != 1 {
				return errors.Join(err, errors.New("its init has ended"))
			}
			return os.Remove(path)
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		}
		if c, err := libcontainer.Load(root, id); err != nil || status(c) != libcontainer.Created {
			return errors.Join(err, errors.New("its init has ended"))
		}
	}
}

func status(c *libcontainer.Container) libcontainer.Status {
	s, err := c.Status()
	if err != nil {
		return -1
	}
	return s
}

// load a container of which all is known that concerns it: no hooks, which are
// processes, and no control groups of systemd.
func load(root, id string) (*libcontainer.Container, error) {
	c, err := libcontainer.Load(root, id)
	if err != nil {
		return nil, err
	}
	config := c.Config()
	for _, hooks := range config.Hooks {
		if len(hooks) > 0 {
			return nil, errors.New("it has hooks")
		}
	}
	if config.Cgroups == nil || config.Cgroups.Systemd {
		return nil, errors.New("its control groups are systemd's")
	}
	return c, nil
}

func kill(root, id, signal string) error {
	n, err := strconv.Atoi(signal)
	if err != nil {
		return err
	}
	c, err := load(root, id)
	if err != nil {
		return err
	}
	return c.Signal(syscall.Signal(n))
}

// destroy a container whose processes have ended.
func destroy(root, id string) error {
	c, err := load(root, id)
	if err != nil {
		return err
	}
	if status(c) != libcontainer.Stopped {
		return errors.New("it has not stopped")
	}
	return c.Destroy()
}
