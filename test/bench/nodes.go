package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/proa-dev/proa/test/bench/figure"
	"github.com/proa-dev/proa/test/bench/load"
	"github.com/proa-dev/proa/test/bench/node"
	"github.com/proa-dev/proa/test/bench/plane"
)

// image that pods run: a small static program that answers HTTP.
const image = "twin:1"

// node measures clusters with one node and real pods.
func (b *bench) node(ctx context.Context) error {
	if b.kubeconfig != "" {
		return b.realPods(ctx, b.kubeconfig, b.add("node", figure.Proa))
	}
	p := &node.Proa{Bin: b.bin, Below: b.dir(), Name: "bench"}
	return b.rounds("a cluster with one node", func(s figure.System) error {
		if s == figure.Upstream {
			return b.upstreamNode(ctx)
		}
		if err := b.twoNodes(ctx, p); err != nil {
			return err
		}
		return b.proaNode(ctx, p)
	})
}

func (b *bench) twoNodes(ctx context.Context, p *node.Proa) error {
	n, took, err := p.Up(ctx, 2)
	if err != nil {
		return err
	}
	b.add("node", figure.Proa)("proa up to two Ready nodes", figure.Seconds, took.Seconds())
	return n.Stop(ctx)
}

func (b *bench) proaNode(ctx context.Context, p *node.Proa) (err error) {
	add := b.add("node", figure.Proa)
	n, took, err := p.Up(ctx, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Stop(ctx)) }()
	add("proa up to a Ready node", figure.Seconds, took.Seconds())
	if _, err := p.Run(ctx, nil, "image", "import", "--kubeconfig", n.Kubeconfig, "--name", image, filepath.Join(b.bin, "twin.tar")); err != nil {
		return err
	}
	if err := b.measureNode(ctx, n, add); err != nil {
		return err
	}
	return b.kubectl(ctx, p, n.Kubeconfig, add)
}

func (b *bench) upstreamNode(ctx context.Context) (err error) {
	u := &node.Upstream{
		Control: plane.Upstream{Programs: b.upstream(), Below: b.dir(), Managers: true},
		Bin:     b.bin, Image: filepath.Join(b.bin, "twin.tar"), Name: image,
	}
	n, err := u.Up(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Stop(ctx)) }()
	return b.measureNode(ctx, n, b.add("node", figure.Upstream))
}

func (b *bench) measureNode(ctx context.Context, n *node.Node, add load.Add) error {
	err := b.idle(ctx, n.PIDs, func(mb, percent float64) {
		add("idle memory, all parts with one node, without containerd", figure.Megabytes, mb)
		add("idle CPU, all parts with one node, without containerd", figure.PercentCore, percent)
	})
	if err != nil {
		return err
	}
	return b.realPods(ctx, n.Kubeconfig, add)
}

func (b *bench) realPods(ctx context.Context, kubeconfig string, add load.Add) error {
	t, err := load.Open(kubeconfig, b.detail)
	if err != nil {
		return err
	}
	defer t.Close()
	return (&load.Pods{Image: image, One: 9, Burst: 30}).Run(ctx, t, add)
}

// kubectl measures the start of pods as its user sees it: create and wait.
func (b *bench) kubectl(ctx context.Context, p *node.Proa, kubeconfig string, add load.Add) error {
	kubectl := func(in []byte, args ...string) error {
		_, err := p.Run(ctx, in, append([]string{"kubectl", "--kubeconfig", kubeconfig}, args...)...)
		return err
	}
	for i := range 5 {
		name := fmt.Sprintf("p%d", i)
		began := time.Now()
		err := errors.Join(kubectl(manifest(name), "create", "-f", "-"), kubectl(nil, "wait", "--for=condition=Ready", "pod/"+name, "--timeout=60s"))
		if err != nil {
			return err
		}
		add("a pod, create to Ready, with kubectl", figure.Milliseconds, float64(time.Since(began).Milliseconds()))
		if err := kubectl(nil, "delete", "pod", name, "--now"); err != nil {
			return err
		}
	}
	const many = 30
	var all bytes.Buffer
	for i := range many {
		all.Write(manifest(fmt.Sprintf("b%d", i)))
	}
	began := time.Now()
	err := errors.Join(kubectl(all.Bytes(), "create", "-f", "-"), kubectl(nil, "wait", "--for=condition=Ready", "pod", "-l", "app=bench", "--timeout=120s"))
	if err != nil {
		return err
	}
	add(fmt.Sprintf("%d pods at once, with kubectl", many), figure.PerSecond, many/time.Since(began).Seconds())
	return nil
}

func manifest(name string) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"labels":{"app":"bench"}},"spec":{"terminationGracePeriodSeconds":0,"containers":[{"name":"c","image":%q,"imagePullPolicy":"IfNotPresent"}]}}`+"\n", name, image)
}
