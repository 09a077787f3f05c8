// Bench measures Proa and upstream's Kubernetes one after the other on this
// machine and prints the figures of the README.
//
//	make bench [PARTS=server,api,sched,node,micro] [COUNT=3] [SYSTEMS=proa,upstream] [OUTPUT=markdown|json] [KUBECONFIG=file]
//
// docs/benchmarks.md says what is measured and how.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/proa-dev/proa/test/bench/figure"
)

func main() {
	b, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run of the command.
type bench struct {
	repo, bin  string
	parts      []string
	systems    []figure.System
	count      int
	output     string
	kubeconfig string

	pods, maps, scheduled, nodes int // sizes of the loads

	book figure.Book
	log  io.Writer
}

func parse(args []string) (*bench, error) {
	b := &bench{log: os.Stderr}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	names := strings.Join(partNames(), ",")
	parts := f.String("parts", names, "what to measure, separated by commas")
	systems := f.String("systems", "proa,upstream", "of what, separated by commas")
	f.StringVar(&b.repo, "repo", ".", "folder of the repository")
	f.StringVar(&b.bin, "bin", "", "folder with proa and the runtime's programs; upstream's are put below it; nothing = bin in the repository")
	f.IntVar(&b.count, "count", 3, "rounds; the medians are printed")
	f.StringVar(&b.output, "o", "markdown", "markdown or json")
	f.StringVar(&b.kubeconfig, "kubeconfig", "", "put the loads of api, sched and node on this cluster instead")
	f.IntVar(&b.pods, "pods", 10000, "pods of the part api")
	f.IntVar(&b.maps, "maps", 100000, "ConfigMaps of the part scale on the largest server; the others have a tenth and a hundredth, and it has half as many pods beside")
	f.IntVar(&b.scheduled, "scheduled", 3000, "pods of the part sched")
	f.IntVar(&b.nodes, "nodes", 1000, "nodes of the part sched")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	b.parts = strings.Split(*parts, ",")
	for _, p := range b.parts {
		if !slices.Contains(partNames(), p) {
			return nil, fmt.Errorf("there is no part %q: choose of %s", p, names)
		}
	}
	for s := range strings.SplitSeq(*systems, ",") {
		if s != string(figure.Proa) && s != string(figure.Upstream) {
			return nil, fmt.Errorf("there is no system %q: choose of proa,upstream", s)
		}
		b.systems = append(b.systems, figure.System(s))
	}
	if b.output != "markdown" && b.output != "json" {
		return nil, fmt.Errorf("-o %s: choose of markdown, json", b.output)
	}
	if b.count < 1 || b.pods < 100 || b.maps < 100 {
		return nil, errors.New("-count is at least 1, -pods and -maps are at least 100")
	}
	if b.bin == "" {
		b.bin = filepath.Join(b.repo, "bin")
	}
	for _, path := range []*string{&b.repo, &b.bin, &b.kubeconfig} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return nil, err
		}
		*path = abs
	}
	return b, nil
}

// run the parts and print what they measured; also after an error what was
// measured until then.
func (b *bench) run(ctx context.Context) error {
	if err := os.MkdirAll(b.dir(), 0o755); err != nil {
		return err
	}
	if err := b.buildUpstream(ctx); err != nil {
		return err
	}
	m, err := b.machine(ctx)
	if err != nil {
		return err
	}
	b.say("load average %.2f, %d cores", m.Load, m.CPUs)
	if m.Load > 1 {
		b.say("WARNING: the machine is busy: figures of idle processes and medians mean little now")
	}
	for _, p := range parts() {
		if slices.Contains(b.parts, p.name) && err == nil {
			if err = p.run(b, ctx); err != nil {
				err = fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	return errors.Join(err, b.print(m))
}

// print the figures, and keep them as figures.md and figures.json.
func (b *bench) print(m figure.Machine) error {
	var table, all bytes.Buffer
	b.book.Markdown(&table)
	if err := b.book.JSON(&all, m); err != nil {
		return err
	}
	for name, text := range map[string][]byte{"figures.md": table.Bytes(), "figures.json": all.Bytes()} {
		if err := os.WriteFile(filepath.Join(b.dir(), name), text, 0o644); err != nil {
			return err
		}
	}
	out := &table
	switch {
	case b.output == "json":
		out = &all
	case len(b.book.Lines()) == 0:
		return nil
	}
	_, err := out.WriteTo(os.Stdout)
	return err
}

// dir for what runs: on the disk that the programs lie on.
func (b *bench) dir() string { return filepath.Join(b.bin, "bench") }

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.log, "· "+format+"\n", args...) }

// detail of a load, indented below what was said last.
func (b *bench) detail(format string, args ...any) { fmt.Fprintf(b.log, "    "+format+"\n", args...) }
