package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// micro runs Go benchmarks of what a request goes through, in the packages that
// do it, and keeps their output for benchstat.
func (b *bench) micro(ctx context.Context) error {
	file, err := os.Create(filepath.Join(b.dir(), "micro.txt"))
	if err != nil {
		return err
	}
	defer file.Close()
	for _, m := range []struct{ what, pkg, benchmarks string }{
		{"decode and encode", "api/wire", "^Benchmark(Decode|Body)$"},
		{"default and validate", "api/core", "^Benchmark(Default|Validate|ValidateUpdate)$"},
		{"managed fields and apply", "apiserver/managedfields", "^BenchmarkPod$/^(create|status|label|apply)$/^ours$"},
		{"watch fan-out", "cache", "^BenchmarkCommit$/^watchers=(0|300)$"},
		{"get and list", "cache", "^BenchmarkSnapshotAndList10000$/^(get|list)$"},
		{"whole requests, without a network", "apiserver", "^BenchmarkRequests$"},
	} {
		b.say("benchmarks: %s", m.what)
		cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", m.benchmarks, "-benchmem", "-count", strconv.Itoa(b.count), "./internal/"+m.pkg)
		cmd.Dir = b.repo
		cmd.Stdout, cmd.Stderr = io.MultiWriter(b.log, file), b.log
		if err := cmd.Run(); err != nil {
			return err
		}
	}
	b.say("written to %s: benchstat compares two such files", file.Name())
	return nil
}
