package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/proa-dev/proa/test/conformance/cluster"
	"github.com/proa-dev/proa/test/conformance/images"
	"github.com/proa-dev/proa/test/conformance/report"
	"github.com/proa-dev/proa/test/conformance/suite"
	"github.com/proa-dev/proa/test/conformance/upstream"
)

// nodes of the cluster: some tests are skipped or fail with fewer.
const nodes = 2

func (o *options) upstream() string { return filepath.Join(o.bin, "upstream") }
func (o *options) dir() string      { return filepath.Join(o.bin, "conformance") }

// run does what the command line says; passed = all tests did.
func (o *options) run(ctx context.Context) (passed bool, err error) {
	b := &upstream.Builder{Source: filepath.Join(o.repo, "test", "conformance"), Out: o.upstream(), Say: say}
	if o.build != "" {
		return true, b.Build(ctx, strings.Split(o.build, ",")...)
	}
	if err := needPackages(ctx, "gcc", "libc6-dev", "make", "bzip2", "debian-archive-keyring"); err != nil {
		return false, err
	}
	if err := b.Build(ctx, upstream.Suite()...); err != nil {
		return false, err
	}
	if err := os.MkdirAll(o.dir(), 0o755); err != nil {
		return false, err
	}
	source, err := b.Folder(ctx)
	if err != nil {
		return false, err
	}
	m := &images.Maker{Dir: o.dir(), Programs: o.upstream(), Source: source, Mirror: o.mirror, Say: say}
	if err := m.Make(ctx); err != nil {
		return false, err
	}
	run, tests, err := o.choose(ctx)
	if err != nil {
		return false, err
	}
	proa := &cluster.Proa{Program: filepath.Join(o.bin, "proa"), Runtime: o.bin, Dir: o.dir()}
	return o.test(ctx, proa, b, m.Archive(), run, tests)
}

// choose the tests and make the folder of their results.
func (o *options) choose(ctx context.Context) (*suite.Run, []*suite.Test, error) {
	r := &suite.Run{
		Programs: o.upstream(), Results: filepath.Join(o.dir(), "results"),
		Focus: o.focus, Skip: o.skip, Procs: o.procs, Timeout: o.timeout,
		Ended: func(t *suite.Test) { report.Line(os.Stdout, t) },
	}
	if err := errors.Join(os.RemoveAll(r.Results), os.MkdirAll(r.Results, 0o755)); err != nil {
		return nil, nil, err
	}
	tests, err := r.Select(ctx)
	return r, tests, err
}

// test the cluster of the kubeconfig, or one that is made for it.
func (o *options) test(ctx context.Context, proa *cluster.Proa, b *upstream.Builder, archive string, r *suite.Run, tests []*suite.Test) (passed bool, err error) {
	r.Kubeconfig = o.kubeconfig
	if o.kubeconfig == "" {
		say("starting a cluster with %d nodes", nodes)
		if r.Kubeconfig, err = proa.Up(ctx, o.name, nodes); err != nil {
			return false, errors.Join(err, o.remove(ctx, proa, err))
		}
		defer func() { err = errors.Join(err, o.remove(ctx, proa, err)) }()
	}
	switch err := proa.Import(ctx, r.Kubeconfig, archive); {
	case errors.Is(err, cluster.ErrNotProa) && o.kubeconfig != "":
		say("%v: its nodes must have the images of %s", err, archive)
	case err != nil:
		return false, err
	}
	say("running %d tests, %d at a time; everything they say goes to %s", len(tests), o.procs, r.Results)
	start := time.Now()
	ran := r.Run(ctx, tests)
	if err := report.Folder(r.Results, tests); err != nil {
		return false, err
	}
	report.Summary(os.Stdout, tests)
	say("%s; results in %s", time.Since(start).Round(time.Second), r.Results)
	_, all := report.Counts(tests)
	if ran == nil && all.NotRun == 0 && o.whole() {
		ran = o.page(ctx, proa, b, tests)
	}
	return all.Passed == all.All(), errors.Join(ran, ctx.Err())
}

// whole says that this run is one that the page tells of.
func (o *options) whole() bool { return o.focus == "" && o.skip == "" && o.kubeconfig == "" }

func (o *options) page(ctx context.Context, proa *cluster.Proa, b *upstream.Builder, tests []*suite.Test) error {
	version, err := b.Version(ctx)
	if err != nil {
		return err
	}
	own, err := proa.Version(ctx)
	if err != nil {
		return err
	}
	file := filepath.Join(o.repo, "docs", "conformance.md")
	p := &report.Page{Suite: version, Proa: own, Nodes: nodes, Tests: tests}
	if err := p.Write(file); err != nil {
		return err
	}
	say("wrote %s", file)
	return nil
}

// remove the cluster, also after an interrupt; not one that somebody else made.
func (o *options) remove(ctx context.Context, proa *cluster.Proa, err error) error {
	if errors.Is(err, cluster.ErrExists) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
	defer cancel()
	return proa.Delete(ctx, o.name)
}
