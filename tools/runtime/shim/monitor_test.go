package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/go-runc"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		args string
		ok   bool
		verb string
	}{
		{"runc --root /r --log /l --log-format json start id", true, "start"},
		{"runc --root /r kill --all id 9", true, "kill"},
		{"runc --root /r --systemd-cgroup start id", false, ""},
		{"runc --root /r --debug delete id", false, ""},
		{"runc start id", false, ""},
		{"runc --root /r list", false, ""},
	} {
		if got, ok := parse(strings.Fields(c.args)); ok != c.ok || ok && (got.verb != c.verb || got.root != "/r") {
			t.Errorf("%s: %+v %v", c.args, got, ok)
		}
	}
	// The last has a fifo, but nobody who will ever open it.
	root := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(root, "id"), 0o755), unix.Mkfifo(filepath.Join(root, "id", fifo), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"runc --root /none start id", "runc --root /none delete --force id", "runc --root /none kill id 9", "runc --root /none state id", "runc --root " + root + " start id"} {
		if done(strings.Fields(args)) {
			t.Errorf("%s is said to be done", args)
		}
	}
}

// ours is a monitor under which nothing may be left for a process to do.
type ours struct{ t *testing.T }

func (o ours) Start(c *exec.Cmd) (chan runc.Exit, error) {
	return nil, fmt.Errorf("runs %v", c.Args)
}
func (o ours) StartLocked(c *exec.Cmd) (chan runc.Exit, error) { return o.Start(c) }
func (o ours) Wait(*exec.Cmd, chan runc.Exit) (int, error)     { return 0, errors.New("waits") }

// bundle of a container that sleeps.
func bundle(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	self, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "rootfs")
	if err := errors.Join(os.Mkdir(root, 0o755), os.Mkdir(root+"/proc", 0o755), os.WriteFile(root+"/test", self, 0o755)); err != nil {
		t.Fatal(err)
	}
	spec := map[string]any{
		"ociVersion": "1.2.0", "root": map[string]any{"path": "rootfs"},
		"process": map[string]any{"args": []string{"/test"}, "env": []string{sleeper + "=1"}, "cwd": "/", "user": map[string]any{}},
		"mounts":  []any{map[string]any{"destination": "/proc", "type": "proc", "source": "proc"}},
		"linux": map[string]any{
			"cgroupsPath": fmt.Sprintf("/shim-test-%d/c", os.Getpid()),
			"namespaces":  []any{map[string]any{"type": "pid"}, map[string]any{"type": "mount"}},
		},
	}
	text, _ := json.Marshal(spec)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

const sleeper = "SHIM_TEST_SLEEPS"

// TestMain is what runs in the test's containers.
func TestMain(m *testing.M) {
	if os.Getenv(sleeper) != "" {
		for {
			unix.Pause()
		}
	}
	os.Exit(m.Run())
}

// A container that runc has made is started, killed and deleted without another runc.
func TestLifeWithoutRunc(t *testing.T) {
	program, err := exec.LookPath("../../../bin/runc")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("needs root, and bin/runc of \"make tools\"")
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	dir, root, id, ctx := bundle(t, os.Args[0]), t.TempDir(), "c"+strconv.Itoa(os.Getpid()), t.Context()
	r := &runc.Runc{Command: program, Root: root, Log: filepath.Join(dir, "log"), LogFormat: runc.JSON, PdeathSignal: unix.SIGKILL}
	pidFile := filepath.Join(dir, "pid")
	create := func() int {
		t.Helper()
		usual := runc.Monitor
		defer func() { runc.Monitor = usual }()
		io, err := runc.NewNullIO()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Create(ctx, id, dir, &runc.CreateOpts{PidFile: pidFile, IO: io}); err != nil {
			t.Fatal(err)
		}
		pid, err := runc.ReadPidFile(pidFile)
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	status := func() libcontainer.Status {
		t.Helper()
		c, err := libcontainer.Load(root, id)
		if err != nil {
			t.Fatal(err)
		}
		return status(c)
	}
	groups := func() []string {
		found, _ := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/shim-test-%d/c", os.Getpid()))
		more, _ := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/shim-test-%d/c", os.Getpid()))
		return append(found, more...)
	}
	t.Cleanup(func() {
		runc.Monitor = monitor{ours{t}}.ProcessMonitor
		for _, pattern := range []string{"/sys/fs/cgroup/shim-test-%d", "/sys/fs/cgroup/*/shim-test-%d"} {
			list, _ := filepath.Glob(fmt.Sprintf(pattern, os.Getpid()))
			for _, dir := range list {
				unix.Rmdir(dir)
			}
		}
	})
	for _, kind := range []string{"runs", "is killed before it runs"} {
		pid := create()
		usual := runc.Monitor
		runc.Monitor = monitor{ours{t}}
		if kind == "runs" {
			if err := r.Start(ctx, id); err != nil {
				t.Fatal(err)
			}
			if s := status(); s != libcontainer.Running {
				t.Fatalf("%v after start", s)
			}
			if err := r.Start(ctx, id); err == nil {
				t.Error("a container that runs is started again")
			}
			if err := r.Delete(ctx, id, nil); err == nil {
				t.Error("a container that runs is deleted")
			}
			if err := r.Kill(ctx, id, int(unix.SIGCONT), nil); err != nil {
				t.Error(err)
			}
		}
		if err := r.Kill(ctx, id, int(unix.SIGKILL), &runc.KillOpts{All: true}); err != nil {
			t.Fatal(err)
		}
		var ws unix.WaitStatus
		if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil || ws.Signal() != unix.SIGKILL {
			t.Fatal(ws, err)
		}
		if err := r.Start(ctx, id); err == nil || !strings.Contains(err.Error(), "runs [") {
			t.Errorf("a container whose init has ended is started: %v", err)
		}
		if len(groups()) == 0 {
			t.Error("the test looks for control groups in the wrong place")
		}
		if err := r.Delete(ctx, id, nil); err != nil {
			t.Fatal(err)
		}
		if left := groups(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		if left, _ := os.ReadDir(root); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		runc.Monitor = usual
	}
}
