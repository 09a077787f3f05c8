package cluster

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cluster/pki"
)

// certificates of a server, all made and kept in DATA-DIR/pki.
type certificates struct {
	ca         *pki.Authority // signs everybody in the cluster
	frontProxy *pki.Authority // signs whom aggregated APIs believe
	accounts   crypto.Signer  // signs service-account tokens

	serving     *pki.Leaf // the API
	admin       *pki.Leaf // the owner of the cluster
	kubelets    *pki.Leaf // the API server as a client of kubelets
	proxyClient *pki.Leaf // the API server as a client of aggregated APIs
}

func (c *Config) openCertificates() (*certificates, error) {
	x := &certificates{}
	var err error
	if x.ca, err = pki.OpenAuthority(c.pki(""), "ca", "kubernetes-ca"); err != nil {
		return nil, err
	}
	if x.frontProxy, err = pki.OpenAuthority(c.pki(""), "front-proxy-ca", "front-proxy-ca"); err != nil {
		return nil, err
	}
	if x.accounts, err = pki.OpenKey(c.pki("sa.key")); err != nil {
		return nil, err
	}
	if x.serving, err = x.ca.Leaf(c.pki("apiserver"), c.servingProfile()); err != nil {
		return nil, err
	}
	admin := pki.Profile{CommonName: "kubernetes-admin", Organization: []string{request.Masters}, Client: true}
	if x.admin, err = x.ca.Leaf(c.pki("admin"), admin); err != nil {
		return nil, err
	}
	kubelets := pki.Profile{CommonName: "kube-apiserver-kubelet-client", Organization: []string{request.Masters}, Client: true}
	if x.kubelets, err = x.ca.Leaf(c.pki("apiserver-kubelet-client"), kubelets); err != nil {
		return nil, err
	}
	front := pki.Profile{CommonName: frontProxyName, Client: true}
	x.proxyClient, err = x.frontProxy.Leaf(c.pki("front-proxy-client"), front)
	return x, err
}

// servingProfile holds every name and address by which the API is called.
func (c *Config) servingProfile() pki.Profile {
	s := c.Server
	p := pki.Profile{CommonName: "kube-apiserver", Server: true}
	p.DNS = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + s.ClusterDomain}
	add := func(text string) {
		if ip := net.ParseIP(text); ip != nil {
			p.IPs = append(p.IPs, ip)
		} else {
			p.DNS = append(p.DNS, text)
		}
	}
	add("127.0.0.1")
	add("::1")
	add(s.AdvertiseAddress.String())
	for _, r := range s.ServiceCIDRs {
		add(nth(r, 1).String())
	}
	if ip, err := netip.ParseAddr(s.BindAddress); err == nil && !ip.IsUnspecified() {
		add(ip.String())
	}
	if host, err := os.Hostname(); err == nil {
		add(host)
	}
	for _, name := range s.TLSNames {
		add(name)
	}
	return p
}

// run renews what is due until ctx ends.
func (x *certificates) run(ctx context.Context, log *slog.Logger) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range []*pki.Leaf{x.serving, x.admin, x.kubelets, x.proxyClient} {
		g.Go(func() error { return l.Run(ctx, log) })
	}
	return g.Wait()
}

// tls of the API's listener. Clients may show a certificate; whether it is good
// is for authentication to say, so that a bad one gets a Status and not a
// broken connection.
func (x *certificates) tls(clients *x509.CertPool) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: x.serving.Serve,
		ClientAuth:     tls.RequestClientCert,
		ClientCAs:      clients,
		NextProtos:     []string{"h2", "http/1.1"},
	}
}

// toKubelets is how the API server calls kubelets.
func (x *certificates) toKubelets() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x.ca.Pool(), GetClientCertificate: x.kubelets.Dial}
}
