package daemon

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func start(t *testing.T, script string) (p *Process, pidFile, log string) {
	t.Helper()
	dir := t.TempDir()
	pidFile, log = filepath.Join(dir, "x.pid"), filepath.Join(dir, "x.log")
	p, err := Start(pidFile, log, exec.Command("sh", "-c", script))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(context.Background(), 0) })
	return p, pidFile, log
}

func TestFoundAgainAndStopped(t *testing.T) {
	p, file, _ := start(t, "exec sleep 1000")
	found := Find(file)
	if found == nil || found.PID != p.PID {
		t.Fatalf("found %v, not %d", found, p.PID)
	}
	if err := StopFile(context.Background(), file, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if Find(file) != nil {
		t.Error("it is found after it was stopped")
	}
}

func TestOutputIsLogged(t *testing.T) {
	p, _, log := start(t, "echo hello; echo world >&2; sleep 0.1")
	if err := p.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(log); string(text) != "hello\nworld\n" {
		t.Errorf("log: %q", text)
	}
}

func TestStubbornProcessIsKilled(t *testing.T) {
	p, _, _ := start(t, "trap '' TERM; while :; do sleep 1000; done")
	if err := p.Stop(context.Background(), 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
}

func TestAnotherProcessOfTheSameNumberIsNotFound(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.pid")
	write := func(pid int, start string) {
		if err := os.WriteFile(file, fmt.Appendf(nil, "%d %s\n", pid, start), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(1, "0")
	if p := Find(file); p != nil {
		t.Errorf("found %v", p)
	}
	self, _ := startTime(os.Getpid())
	write(os.Getpid(), self+"0")
	if p := Find(file); p != nil {
		t.Errorf("found %v", p)
	}
	write(os.Getpid(), self)
	if Find(file) == nil {
		t.Error("this process was not found")
	}
}

func TestWaitEndsWithTheContext(t *testing.T) {
	p, _, _ := start(t, "exec sleep 1000")
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := p.Wait(ctx); err != context.Canceled {
		t.Error(err)
	}
}
