package plane

import (
	"context"
	"path/filepath"
	"time"
)

// Proa starts "proa server" without a node, from nothing, in a folder below the
// one given. It is etcd, API server, controllers and scheduler in one process.
func Proa(ctx context.Context, program, below string) (*Plane, error) {
	p, err := begin(below)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(p.dir, "data")
	p.Kubeconfig = filepath.Join(data, "admin.kubeconfig")
	began := time.Now()
	if err := p.start(program, "server", "--disable-agent", "--data-dir", data, "--bind-address", "127.0.0.1", "--secure-port", "0"); err != nil {
		return p.fail(err)
	}
	err = p.await(ctx)
	p.Ready = time.Since(began)
	return p.fail(err)
}
