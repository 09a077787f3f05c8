package suite

import (
	"context"
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

// Run is one run of the suite.
type Run struct {
	Programs   string // folder with e2e.test, ginkgo and kubectl
	Kubeconfig string
	Results    string // folder for logs and reports
	Focus      string // regular expression of the names of tests; "" = all
	Skip       string
	Procs      int // tests at a time; those marked Serial run alone, at the end
	Timeout    time.Duration
	Ended      func(*Test) // is called when a test has ended
}

// label of the tests that belong to conformance.
const label = "Conformance"

// Select the tests that are to run, by a dry run.
func (r *Run) Select(ctx context.Context) ([]*Test, error) {
	report := filepath.Join(r.Results, "selected.json")
	args := []string{"--ginkgo.dry-run", "--ginkgo.json-report=" + report}
	for _, a := range r.selection() {
		args = append(args, "--ginkgo."+a)
	}
	cmd := exec.CommandContext(ctx, r.program("e2e.test"), args...)
	cmd.Dir = r.Results
	if out, err := cmd.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return nil, fmt.Errorf("selecting the tests: %w\n%s", err, strings.Join(lines[max(0, len(lines)-5):], "\n"))
	}
	specs, _, err := read(report)
	if err != nil {
		return nil, err
	}
	var tests []*Test
	for _, s := range specs {
		if s.State == "passed" { // what was left out is "skipped"
			tests = append(tests, &Test{Name: s.name(), State: NotRun})
		}
	}
	if len(tests) == 0 {
		return nil, errors.New("no conformance test's name matches: FOCUS and SKIP are regular expressions on whole names such as \"[sig-node] ConfigMap should …\"")
	}
	return tests, nil
}

// Run the tests and say in them how they ended. When the context ends, ginkgo is
// told to, and what ended until then is said.
func (r *Run) Run(ctx context.Context, tests []*Test) error {
	log, err := os.Create(filepath.Join(r.Results, "output.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd, stopped := r.command(ctx)
	defer stopped()
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = in, in
	err = cmd.Start()
	in.Close()
	if err != nil {
		return err
	}
	w := &watcher{tests: map[string]*Test{}, ended: r.Ended}
	for _, t := range tests {
		w.tests[t.Name] = t
	}
	err = w.watch(out, log)
	// How ginkgo left says only whether all passed, which the tests say themselves.
	if left := cmd.Wait(); left != nil && !errors.As(left, new(*exec.ExitError)) && ctx.Err() == nil {
		err = errors.Join(err, left)
	}
	report, around, missing := read(filepath.Join(r.Results, "report.json"))
	if missing != nil && ctx.Err() == nil {
		return errors.Join(err, fmt.Errorf("ginkgo left no report, see %s: %w", log.Name(), missing))
	}
	merge(tests, report)
	return errors.Join(err, broken(around))
}

// patience with an interrupted run: its tests have 30 s to clean up.
const patience = 2 * time.Minute

// command is ginkgo in a process group of its own, which is interrupted as a
// whole when the context ends: then it still writes its report. stopped is to be
// called when it has ended.
func (r *Run) command(ctx context.Context) (cmd *exec.Cmd, stopped func()) {
	args := []string{
		"--procs=" + strconv.Itoa(r.Procs), "--timeout=" + r.Timeout.String(), "--no-color", "-v",
		"--output-interceptor-mode=none", "--grace-period=30s", "--json-report=report.json", "--junit-report=junit.xml", "--output-dir=" + r.Results,
	}
	for _, a := range r.selection() {
		args = append(args, "--"+a)
	}
	args = append(args, r.program("e2e.test"), "--",
		"--kubeconfig="+r.Kubeconfig, "--provider=skeleton", "--kubectl-path="+r.program("kubectl"),
		"--disable-log-dump", "--dump-logs-on-failure=false", "--non-blocking-taints=", "--allowed-not-ready-nodes=0",
		"--prepull-images=false", "--e2e-output-dir="+filepath.Join(r.Results, "e2e"))
	cmd = exec.CommandContext(ctx, r.program("ginkgo"), args...)
	cmd.Dir = r.Results
	// Some tests call kubectl by its name.
	cmd.Env = append(os.Environ(), "PATH="+r.Programs+":"+os.Getenv("PATH"), "KUBECONFIG="+r.Kubeconfig)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	done := make(chan struct{})
	cmd.Cancel = func() error {
		go func() {
			select {
			case <-done:
			case <-time.After(patience):
				syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			}
		}()
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	}
	return cmd, func() { close(done) }
}

func (r *Run) selection() []string {
	args := []string{"label-filter=" + label}
	if r.Focus != "" {
		args = append(args, "focus="+r.Focus)
	}
	if r.Skip != "" {
		args = append(args, "skip="+r.Skip)
	}
	return args
}

func (r *Run) program(name string) string { return filepath.Join(r.Programs, name) }
