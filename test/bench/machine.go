package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-dev/proa/test/bench/figure"
)

func (b *bench) proa() string     { return filepath.Join(b.bin, "proa") }
func (b *bench) upstream() string { return filepath.Join(b.bin, "upstream") }

// needs are upstream's programs that the chosen parts run.
func (b *bench) needs() (names []string) {
	if !slices.Contains(b.systems, figure.Upstream) || b.kubeconfig != "" {
		return nil
	}
	for _, p := range parts() {
		if slices.Contains(b.parts, p.name) {
			names = append(names, p.programs...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// buildUpstream has the test module build upstream's programs that are missing.
func (b *bench) buildUpstream(ctx context.Context) error {
	names := b.needs()
	if len(names) == 0 {
		return nil
	}
	cmd := exec.CommandContext(ctx, "go", "run", ".", "--repo", b.repo, "--bin", b.bin, "--build", strings.Join(names, ","))
	cmd.Dir = filepath.Join(b.repo, "test", "conformance")
	cmd.Stdout, cmd.Stderr = b.log, b.log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building upstream's %s: %w", strings.Join(names, ", "), err)
	}
	return nil
}

// machine that measures, and what is measured.
func (b *bench) machine(ctx context.Context) (m figure.Machine, err error) {
	m = figure.Machine{CPUs: runtime.NumCPU(), Rounds: b.count}
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return m, err
	}
	if m.Load, err = strconv.ParseFloat(strings.Fields(string(text))[0], 64); err != nil {
		return m, err
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return m, err
	}
	m.Memory = float64(info.Totalram) * float64(info.Unit) / 1e6
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return m, err
	}
	m.Kernel = unix.ByteSliceToString(name.Release[:])
	if m.Proa, err = version(ctx, b.proa(), "version"); err != nil {
		return m, err
	}
	if slices.Contains(b.needs(), "kube-apiserver") {
		m.Upstream, err = version(ctx, filepath.Join(b.upstream(), "kube-apiserver"), "--version")
	}
	return m, err
}

func version(ctx context.Context, program, flag string) (string, error) {
	out, err := exec.CommandContext(ctx, program, flag).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", program, flag, err)
	}
	return strings.TrimSpace(string(out)), nil
}
