package node

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/proa-dev/proa/internal/cluster/containerd"
	"github.com/proa-dev/proa/internal/cluster/pki"
	"github.com/proa-dev/proa/internal/cluster/registry"
)

// serve the image of the pods and that of their sandboxes to containerd, as
// Proa's server does.
func (u *Upstream) serve(n *Node, dir string, ca *pki.Authority) (containerd.Mirror, error) {
	store, err := registry.Open(filepath.Join(dir, "images"))
	if err != nil {
		return containerd.Mirror{}, err
	}
	archive, err := os.Open(u.Image)
	if err != nil {
		return containerd.Mirror{}, err
	}
	defer archive.Close()
	if _, err := store.Import(archive, u.Name); err != nil {
		return containerd.Mirror{}, err
	}
	if err := store.AddPause(); err != nil {
		return containerd.Mirror{}, err
	}
	leaf, err := ca.Leaf(filepath.Join(dir, "registry"), pki.Profile{CommonName: "registry", Server: true, Client: true, IPs: []net.IP{{127, 0, 0, 1}}})
	if err != nil {
		return containerd.Mirror{}, err
	}
	authority := filepath.Join(dir, "registry-ca.crt")
	if err := pki.WriteFile(authority, ca.PEM, 0o644); err != nil {
		return containerd.Mirror{}, err
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: leaf.Serve})
	if err != nil {
		return containerd.Mirror{}, err
	}
	server := &http.Server{Handler: store.Mirror()}
	go func() { _ = server.Serve(l) }()
	n.stop = append(n.stop, func(context.Context) error { return server.Close() })
	crt, key := leaf.Files()
	return containerd.Mirror{URL: "https://" + l.Addr().String(), Authority: authority, Cert: crt, Key: key}, nil
}
