// Package daemon starts processes that outlive the one that started them, finds
// them again, waits for them and stops them. A process is known by its number
// and the time of its start, so that a number used again is never taken for it.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process that was started by Start, or found by Find.
type Process struct {
	PID   int
	start string // field 22 of /proc/PID/stat: clock ticks since the machine's boot
	fd    int    // pidfd
}

// Start runs a command in a session of its own, with its output appended to a
// log file, and writes its number and start time to a file that Find reads.
func Start(pidFile, logFile string, cmd *exec.Cmd) (*Process, error) {
	for _, f := range []string{pidFile, logFile} {
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			return nil, err
		}
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &unix.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p, err := open(cmd.Process.Pid)
	go func() { _ = cmd.Wait() }() // so that it leaves no zombie while this process lives
	if err != nil {
		return nil, fmt.Errorf("%s ended at once; see %s", filepath.Base(cmd.Path), logFile)
	}
	text := fmt.Sprintf("%d %s\n", p.PID, p.start)
	if err := os.WriteFile(pidFile+".new", []byte(text), 0o644); err != nil {
		return p, err
	}
	return p, os.Rename(pidFile+".new", pidFile)
}

// Find the process that a file names. It returns nil when there is none, or it
// has ended.
func Find(pidFile string) *Process {
	data, err := os.ReadFile(pidFile)
	if err != nil {
		return nil
	}
	number, start, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	pid, err := strconv.Atoi(number)
	if err != nil || pid < 2 {
		return nil
	}
	p, err := open(pid)
	if err != nil {
		return nil
	}
	if p.start != start {
		p.Close()
		return nil
	}
	return p
}

func open(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	start, err := startTime(pid)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &Process{PID: pid, start: start, fd: fd}, nil
}

// startTime of a process that runs; a zombie does not.
func startTime(pid int) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	text := string(data) // PID (NAME) STATE …; NAME may hold anything
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return "", errors.New("the process has ended")
	}
	return fields[19], nil
}

// Wait until the process has ended, or ctx.
func (p *Process) Wait(ctx context.Context) error {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(wake)
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		close(done)
	})
	defer func() {
		if !stop() {
			<-done // the descriptor is not closed under the writer
		}
	}()
	for {
		fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case fds[0].Revents != 0:
			return nil
		case fds[1].Revents != 0:
			return ctx.Err()
		}
	}
}

// Signal the process.
func (p *Process) Signal(s unix.Signal) error {
	err := unix.PidfdSendSignal(p.fd, s, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// Stop asks the process to end, and kills it when it has not within the grace
// time. It returns once the process has ended.
func (p *Process) Stop(ctx context.Context, grace time.Duration) error {
	if err := p.Signal(unix.SIGTERM); err != nil {
		return err
	}
	patient, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if p.Wait(patient) == nil {
		return nil
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		return err
	}
	return p.Wait(ctx)
}

// Close releases what is held of the process, which runs on.
func (p *Process) Close() { _ = unix.Close(p.fd) }

// StopFile stops the process that a file names, if there is one, and removes
// the file.
func StopFile(ctx context.Context, pidFile string, grace time.Duration) error {
	if p := Find(pidFile); p != nil {
		defer p.Close()
		if err := p.Stop(ctx, grace); err != nil {
			return err
		}
	}
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
