package plane

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

// Proa starts "proa server" without a node, from nothing, in a folder below the
// one given. It is etcd, API server, controllers and scheduler in one process. Of
// flags that are given twice the last counts.
func Proa(ctx context.Context, program, below string, flags ...string) (*Plane, error) {
	p, err := begin(below)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(p.dir, "data")
	p.Kubeconfig = filepath.Join(data, "admin.kubeconfig")
	began := time.Now()
	args := []string{"server", "--disable-agent", "--data-dir", data, "--bind-address", "127.0.0.1", "--secure-port", "0"}
	if err := p.start(program, append(args, flags...)...); err != nil {
		return p.fail(err)
	}
	err = p.await(ctx)
	p.Ready = time.Since(began)
	return p.fail(err)
}

// Again ends Proa's server and starts it anew with the data that it has; Ready is
// how long that took.
func (p *Plane) Again(ctx context.Context) error {
	old := p.parts[0]
	old.Stop()
	p.parts = nil
	// What is in it is of the server that was; the new one writes it when it is ready.
	if err := os.Remove(p.Kubeconfig); err != nil {
		return err
	}
	began := time.Now()
	if err := p.start(old.cmd.Path, old.cmd.Args[1:]...); err != nil {
		return err
	}
	err := p.await(ctx)
	p.Ready = time.Since(began)
	return err
}
