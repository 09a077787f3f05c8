// Package plane runs the control planes that are compared: Proa's server, and
// upstream's etcd and kube-apiserver, with its controllers and scheduler where
// they are asked for.
package plane

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a program that runs.
type Process struct {
	Name string
	PID  int
	log  string
	done chan struct{} // closed when it has ended
	cmd  *exec.Cmd
}

// Start a program with its output in DIR/NAME.log, in a process group of its
// own: an interrupt at the terminal reaches it by Stop alone.
func Start(dir, program string, args ...string) (*Process, error) {
	name := filepath.Base(program)
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{Name: name, PID: cmd.Process.Pid, log: log.Name(), done: make(chan struct{}), cmd: cmd}
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Stop the process: by SIGTERM, and by SIGKILL after ten seconds.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// Ended says with which last words a process has ended; nil = it runs.
func (p *Process) Ended() error {
	select {
	case <-p.done:
	default:
		return nil
	}
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Errorf("%s ended:\n  %s", p.Name, strings.Join(lines[max(0, len(lines)-5):], "\n  "))
}

// Memory of processes that is resident, in MB.
func Memory(pids ...int) (float64, error) { return status("VmRSS", pids) }

// Anonymous is the memory of processes that is their own, in MB: without pages of
// programs and databases, which the page cache has and takes back at need.
func Anonymous(pids ...int) (float64, error) { return status("RssAnon", pids) }

// status sums up an entry of /proc/PID/status, in MB.
func status(entry string, pids []int) (float64, error) {
	total := 0.0
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, err
		}
		_, rest, found := strings.Cut(string(text), entry+":")
		fields := strings.Fields(rest)
		if !found || len(fields) == 0 {
			return 0, fmt.Errorf("process %d has no memory: it has ended", pid)
		}
		kB, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return 0, err
		}
		total += kB * 1024 / 1e6
	}
	return total, nil
}

// Metric of a server that it tells at /metrics, in the text that get returns.
func Metric(text, name string) (float64, error) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, fmt.Errorf("there is no metric %s", name)
}

// CPU time that processes have used.
func CPU(pids ...int) (time.Duration, error) {
	const tick = time.Second / 100 // USER_HZ, which is 100 on every Linux
	var total time.Duration
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		// The name, in parentheses, may hold anything.
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 13 {
			return 0, errors.New("/proc/PID/stat is too short")
		}
		for _, f := range fields[11:13] { // utime and stime
			ticks, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, err
			}
			total += time.Duration(ticks) * tick
		}
	}
	return total, nil
}
