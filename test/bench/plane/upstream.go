package plane

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/proa-dev/proa/internal/cluster/pki"
)

// Upstream is how upstream's control plane is started.
type Upstream struct {
	Programs string // folder with etcd, kube-apiserver, …
	Below    string // folder for its own folder
	Managers bool   // kube-controller-manager and kube-scheduler too
	// Unthrottled gives the managers' clients a rate that they never reach:
	// their own limits of 20 and 50 requests a second would be what is measured.
	Unthrottled bool
	// Flags of kube-apiserver; of those that are given twice the last counts.
	Flags []string
}

// Running is upstream's control plane with what a node of it needs.
type Running struct {
	*Plane
	Authority *pki.Authority
	Server    string // https://…
}

// Start upstream's control plane with the settings that Proa has: TLS,
// certificates of clients, the Node and RBAC authorizers, the usual admission,
// NodeRestriction, and data that is on disk before it is acknowledged. Its
// certificates, which Proa makes at its start, are made before the clock runs.
func (u *Upstream) Start(ctx context.Context) (*Running, error) {
	p, err := begin(u.Below)
	if err != nil {
		return nil, err
	}
	r := &Running{Plane: p}
	if err := u.start(ctx, r); err != nil {
		p.Stop()
		return nil, err
	}
	return r, nil
}

func (u *Upstream) start(ctx context.Context, r *Running) error {
	ports, err := freePorts(5)
	if err != nil {
		return err
	}
	r.Server = "https://" + local(ports[0])
	if err := r.certificates(); err != nil {
		return err
	}
	etcd := "http://" + local(ports[1])
	began := time.Now()
	if err := r.Plane.start(u.program("etcd"), "--data-dir", r.file("etcd"), "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
		"--listen-peer-urls", "http://"+local(ports[2]), "--log-level", "error"); err != nil {
		return err
	}
	if err := r.Plane.start(u.program("kube-apiserver"), append(r.apiserver(etcd, ports[0]), u.Flags...)...); err != nil {
		return err
	}
	if err := r.await(ctx); err != nil {
		return err
	}
	r.Ready = time.Since(began)
	if !u.Managers {
		return nil
	}
	return u.managers(r, ports[3], ports[4])
}

func (u *Upstream) program(name string) string { return filepath.Join(u.Programs, name) }

func (r *Running) file(name string) string { return filepath.Join(r.dir, name) }

func (r *Running) apiserver(etcd string, port int) []string {
	return []string{
		"--etcd-servers=" + etcd, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
		"--client-ca-file=" + r.file("ca.crt"), "--tls-cert-file=" + r.file("api.crt"), "--tls-private-key-file=" + r.file("api.key"),
		"--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + r.file("sa.key"), "--service-account-signing-key-file=" + r.file("sa.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--kubelet-client-certificate=" + r.file("admin.crt"), "--kubelet-client-key=" + r.file("admin.key"),
	}
}

func (u *Upstream) managers(r *Running, controllers, scheduler int) error {
	args := func(name string, port int) []string {
		k := r.file(name + ".kubeconfig")
		list := []string{"--kubeconfig=" + k, "--authentication-kubeconfig=" + k, "--authorization-kubeconfig=" + k, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port)}
		if u.Unthrottled {
			list = append(list, "--kube-api-qps=5000", "--kube-api-burst=5000")
		}
		return list
	}
	if err := r.Plane.start(u.program("kube-controller-manager"), append(args("kcm", controllers),
		"--service-account-private-key-file="+r.file("sa.key"), "--root-ca-file="+r.file("ca.crt"),
		"--cluster-signing-cert-file="+r.file("ca.crt"), "--cluster-signing-key-file="+r.file("ca.key"), "--use-service-account-credentials=true",
		"--flex-volume-plugin-dir="+r.file("plugins"))...); err != nil {
		return err
	}
	return r.Plane.start(u.program("kube-scheduler"), args("scheduler", scheduler)...)
}

// certificates and kubeconfigs of all parts.
func (r *Running) certificates() (err error) {
	if r.Authority, err = pki.OpenAuthority(r.dir, "ca", "bench-ca"); err != nil {
		return err
	}
	if _, err := pki.OpenKey(r.file("sa.key")); err != nil {
		return err
	}
	server := pki.Profile{CommonName: "kube-apiserver", Server: true,
		DNS: []string{"localhost", "kubernetes", "kubernetes.default.svc"}, IPs: []net.IP{{127, 0, 0, 1}, {10, 96, 0, 1}}}
	if _, err := r.Authority.Leaf(r.file("api"), server); err != nil {
		return err
	}
	for name, user := range map[string]pki.Profile{
		"admin":     {CommonName: "admin", Organization: []string{"system:masters"}},
		"kcm":       {CommonName: "system:kube-controller-manager"},
		"scheduler": {CommonName: "system:kube-scheduler"},
	} {
		if _, err := r.User(name, user); err != nil {
			return err
		}
	}
	r.Kubeconfig = r.file("admin.kubeconfig")
	return nil
}

// User makes a client's certificate and a kubeconfig with it, and returns the
// kubeconfig's file.
func (r *Running) User(name string, p pki.Profile) (string, error) {
	p.Client = true
	leaf, err := r.Authority.Leaf(r.file(name), p)
	if err != nil {
		return "", err
	}
	k, err := pki.Kubeconfig(name, r.Server, r.Authority.PEM, leaf)
	if err != nil {
		return "", err
	}
	file := r.file(name + ".kubeconfig")
	return file, pki.WriteKubeconfig(file, k)
}
