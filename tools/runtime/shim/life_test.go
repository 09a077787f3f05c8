package main

import (
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/sys/reaper"
	"github.com/containerd/go-runc"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// inside is the variable that says what this program does in the test's containers.
const inside = "SHIM_TEST_INSIDE"

// TestMain is also what becomes a container, and what runs in it.
func TestMain(m *testing.M) {
	switch os.Getenv(inside) {
	case "sleep":
		for {
			unix.Pause()
		}
	case "facts":
		os.Stdout.WriteString(facts())
		os.Exit(7)
	}
	if len(os.Args) > 1 && os.Args[1] == "init" {
		libcontainer.Init()
	}
	os.Exit(m.Run())
}

// facts about the process that only its creator can bring about, a line each.
func facts() string {
	var out strings.Builder
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		for _, key := range []string{"Seccomp:", "CapEff:", "CapBnd:", "NoNewPrivs:", "Groups:", "Uid:", "NSpid:"} {
			if value, ok := strings.CutPrefix(line, key); ok {
				fmt.Fprintln(&out, key, strings.Join(strings.Fields(value), " "))
			}
		}
	}
	open, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range open {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
			fmt.Fprintln(&out, "fd:", to)
		}
	}
	score, _ := os.ReadFile("/proc/self/oom_score_adj")
	fmt.Fprintln(&out, "oom:", strings.TrimSpace(string(score)))
	masked, err := os.ReadFile("/proc/version")
	fmt.Fprintln(&out, "masked:", len(masked) == 0 && err == nil)
	fmt.Fprintln(&out, "mkdir:", unix.Mkdir("/new", 0o755))
	var limit unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit)
	fmt.Fprintln(&out, "memlock:", limit.Cur)
	host, _ := os.Hostname()
	fmt.Fprintln(&out, "host:", host)
	return out.String()
}

// ours is a monitor under which nothing may be left for a process to do.
type ours struct{}

func (ours) Start(c *exec.Cmd) (chan runc.Exit, error) {
	return nil, fmt.Errorf("runs %v", c.Args)
}
func (o ours) StartLocked(c *exec.Cmd) (chan runc.Exit, error) { return o.Start(c) }
func (o ours) Wait(*exec.Cmd, chan runc.Exit) (int, error)     { return 0, errors.New("waits") }

// stage is where containers live in a test, with nobody but this process to run them.
type stage struct {
	*testing.T
	*runc.Runc
	exits chan runc.Exit
}

func newStage(t *testing.T) *stage {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if self, err := elf.Open("/proc/self/exe"); err != nil {
		t.Fatal(err)
	} else {
		defer self.Close()
		if libraries, _ := self.ImportedLibraries(); len(libraries) > 0 {
			t.Skip(`needs a program without libraries: -ldflags "-extldflags -static"`)
		}
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	s := &stage{t, &runc.Runc{Root: t.TempDir(), Log: filepath.Join(t.TempDir(), "log"), LogFormat: runc.JSON, PdeathSignal: unix.SIGKILL}, reaper.Default.Subscribe()}
	ended, kids, usual := make(chan os.Signal, 1), newChildren(), runc.Monitor
	signal.Notify(ended, unix.SIGCHLD)
	go kids.reap(t.Context(), ended)
	runc.Monitor = monitor{ours{}, kids}
	t.Cleanup(func() {
		runc.Monitor = usual
		signal.Stop(ended)
		reaper.Default.Unsubscribe(s.exits)
		for _, dir := range groups(t, "") {
			unix.Rmdir(dir)
		}
	})
	return s
}

// groups of control that the test made.
func groups(t *testing.T, id string) (found []string) {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/shim-test-%d", "/sys/fs/cgroup/*/shim-test-%d"} {
		list, err := filepath.Glob(filepath.Join(fmt.Sprintf(pattern, os.Getpid()), id))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, list...)
	}
	return found
}

// spec of a container that does what it is told.
func spec(id, what string) *specs.Spec {
	return &specs.Spec{
		Version: "1.2.0", Root: &specs.Root{Path: "rootfs"}, Hostname: "guest",
		Process: &specs.Process{Args: []string{"/test"}, Env: []string{inside + "=" + what}, Cwd: "/"},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{
			CgroupsPath: fmt.Sprintf("/shim-test-%d/%s", os.Getpid(), id),
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.UTSNamespace}},
			MaskedPaths: []string{"/proc/version"},
			Resources:   &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}},
		},
	}
}

// create a container; its process, and what it writes.
func (s *stage) create(id string, spec *specs.Spec) (pid int, output io.Reader, err error) {
	s.Helper()
	dir := s.TempDir()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		s.Fatal(err)
	}
	root := filepath.Join(dir, "rootfs")
	text, _ := json.Marshal(spec)
	if err := errors.Join(os.Mkdir(root, 0o755), os.Mkdir(root+"/proc", 0o755), os.WriteFile(root+"/test", self, 0o755), os.WriteFile(dir+"/config.json", text, 0o600)); err != nil {
		s.Fatal(err)
	}
	pipes, err := runc.NewPipeIO(0, 0)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { pipes.Close() })
	pidFile := filepath.Join(dir, "pid")
	if err := s.Create(s.Context(), id, dir, &runc.CreateOpts{PidFile: pidFile, IO: pipes}); err != nil {
		return 0, nil, err
	}
	pid, err = runc.ReadPidFile(pidFile)
	return pid, pipes.Stdout(), err
}

// status that a process ended with.
func (s *stage) status(pid int) int {
	s.Helper()
	for {
		select {
		case e := <-s.exits:
			if e.Pid == pid {
				return e.Status
			}
		case <-time.After(30 * time.Second):
			s.Fatalf("the end of %d was not seen", pid)
		}
	}
}

// gone says what is left of a container.
func (s *stage) gone(id string) {
	s.Helper()
	left, _ := os.ReadDir(s.Root)
	if groups := groups(s.T, id); len(left) > 0 || len(groups) > 0 {
		s.Errorf("left of %s: %v %v", id, left, groups)
	}
}

// A container is created, started, killed and deleted without a runc.
func TestLifeWithoutRunc(t *testing.T) {
	s, ctx := newStage(t), t.Context()
	for _, kind := range []string{"runs", "waits"} {
		pid, _, err := s.create(kind, spec(kind, "sleep"))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.create(kind, spec(kind, "sleep")); err == nil {
			t.Error("a container is created twice")
		}
		if kind == "runs" {
			if err := s.Start(ctx, kind); err != nil {
				t.Fatal(err)
			}
			if c, err := libcontainer.Load(s.Root, kind); err != nil || status(c) != libcontainer.Running {
				t.Fatal(c, err)
			}
			if s.Start(ctx, kind) == nil {
				t.Error("a container that runs is started again")
			}
			if s.Delete(ctx, kind, nil) == nil {
				t.Error("a container that runs is deleted")
			}
			if err := s.Kill(ctx, kind, int(unix.SIGCONT), nil); err != nil {
				t.Error(err)
			}
		}
		if len(groups(t, kind)) == 0 {
			t.Error("the test looks for control groups in the wrong place")
		}
		if err := s.Kill(ctx, kind, int(unix.SIGKILL), &runc.KillOpts{All: true}); err != nil {
			t.Fatal(err)
		}
		if got := s.status(pid); got != 128+int(unix.SIGKILL) {
			t.Fatal(got)
		}
		if s.Start(ctx, kind) == nil {
			t.Error("a container whose init has ended is started")
		}
		if err := s.Delete(ctx, kind, nil); err != nil {
			t.Fatal(err)
		}
		s.gone(kind)
	}
}

// What a container's program finds is what its specification says.
func TestCreated(t *testing.T) {
	s := newStage(t)
	score, who := 500, spec("facts", "facts")
	who.Process.User = specs.User{UID: 0, AdditionalGids: []uint32{7, 8}}
	who.Process.NoNewPrivileges, who.Process.OOMScoreAdj = true, &score
	some := []string{"CAP_CHOWN", "CAP_KILL"}
	who.Process.Capabilities = &specs.LinuxCapabilities{Bounding: some, Effective: some, Permitted: some}
	errno := uint(unix.EDOM)
	who.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &errno},
	}}
	var limit unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit)
	for _, id := range []string{"first", "second"} {
		who.Linux.CgroupsPath = fmt.Sprintf("/shim-test-%d/%s", os.Getpid(), id)
		pid, output, err := s.create(id, who)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(output)
		if got := s.status(pid); got != 7 {
			t.Errorf("it ended with %d:\n%s", got, text)
		}
		for _, want := range []string{
			"Seccomp: 2", "NoNewPrivs: 1", "CapEff: 0000000000000021", "CapBnd: 0000000000000021", "Groups: 7 8", "Uid: 0 0 0 0",
			"NSpid: 1", "oom: 500", "masked: true", "mkdir: numerical argument out of domain", "host: guest",
			"memlock: " + strconv.FormatUint(limit.Cur, 10),
		} {
			if !strings.Contains("\n"+string(text), "\n"+want+"\n") {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
		for line := range strings.Lines(string(text)) {
			to, is := strings.CutPrefix(strings.TrimSpace(line), "fd: ")
			if is && !strings.HasPrefix(to, "pipe:") && !strings.HasPrefix(to, "/proc/") && to != "anon_inode:[eventpoll]" && to != "anon_inode:[eventfd]" {
				t.Errorf("it has %s open", to)
			}
		}
		if err := s.Delete(t.Context(), id, nil); err != nil {
			t.Fatal(err)
		}
		s.gone(id)
	}
}

// What cannot be created leaves nothing behind, so that runc can say what is wrong.
func TestNotCreated(t *testing.T) {
	s := newStage(t)
	missing := spec("missing", "")
	missing.Process.Args = []string{"nosuch"}
	mount := spec("mount", "")
	mount.Mounts = append(mount.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/nosuch", Options: []string{"bind"}})
	hooks := spec("hooks", "")
	hooks.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/bin/true"}}}
	terminal := spec("terminal", "")
	terminal.Process.Terminal = true
	for id, spec := range map[string]*specs.Spec{"missing": missing, "mount": mount, "hooks": hooks, "terminal": terminal} {
		if _, _, err := s.create(id, spec); err == nil || !strings.Contains(err.Error(), "runs [runc ") {
			t.Errorf("%s: %v", id, err)
		}
		s.gone(id)
	}
	var status unix.WaitStatus
	if pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil); err == nil {
		t.Errorf("process %d is left", pid)
	}
}
