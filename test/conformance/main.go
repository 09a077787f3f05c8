// Conformance runs upstream's conformance tests against Proa: it builds
// upstream's programs and the images of the tests, starts a cluster with two
// nodes, runs the suite, says how each test ended, and removes the cluster.
//
//	make conformance [FOCUS=regexp] [SKIP=regexp] [PROCS=4] [TIMEOUT=3h] [KUBECONFIG=file]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	o, err := parse(os.Args[1:])
	if err != nil {
		os.Exit(2)
	}
	ctx, stop := interrupted()
	defer stop()
	passed, err := o.run(ctx)
	switch {
	case ctx.Err() != nil: // what was interrupted has no more to say
		fmt.Fprintln(os.Stderr, "conformance: interrupted")
	case err != nil:
		fmt.Fprintln(os.Stderr, "conformance:", err)
	}
	if err != nil || !passed {
		os.Exit(1)
	}
}

// options of the command line.
type options struct {
	repo, bin   string
	build       string
	kubeconfig  string
	focus, skip string
	procs       int
	timeout     time.Duration
	name        string
	mirror      string
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("conformance", flag.ContinueOnError)
	f.StringVar(&o.repo, "repo", "../..", "folder of the repository")
	f.StringVar(&o.bin, "bin", "", "folder with proa and the runtime's programs; what is built is put below it; nothing = bin in the repository")
	f.StringVar(&o.build, "build", "", "build upstream's programs of these names, separated by commas, and do no more")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "run against this cluster instead of a new one")
	f.StringVar(&o.focus, "focus", "", "regular expression of the tests' names")
	f.StringVar(&o.skip, "skip", "", "regular expression of the names of tests that are left out")
	f.IntVar(&o.procs, "procs", 4, "tests at a time")
	f.DurationVar(&o.timeout, "timeout", 3*time.Hour, "for the whole run")
	f.StringVar(&o.name, "name", "conformance", "of the cluster")
	f.StringVar(&o.mirror, "mirror", os.Getenv("DEBIAN_MIRROR"), "Debian mirror; nothing = the one this machine uses")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if o.bin == "" {
		o.bin = filepath.Join(o.repo, "bin")
	}
	for _, path := range []*string{&o.repo, &o.bin, &o.kubeconfig} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return nil, err
		}
		*path = abs
	}
	return o, nil
}

// interrupted is a context that ends at the first signal. Later ones change
// nothing: what was started is always removed.
func interrupted() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		for range signals {
			say("stopping: the tests end, then the cluster is removed")
			cancel()
		}
	}()
	return ctx, func() { signal.Stop(signals); cancel() }
}

func say(format string, args ...any) {
	fmt.Println(strings.TrimRight("· "+fmt.Sprintf(format, args...), "\n"))
}
