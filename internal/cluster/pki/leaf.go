package pki

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// Issue has a certificate request (PEM) signed and returns the certificate,
// with those above it behind it. An authority at hand does it, or a server.
type Issue func(ctx context.Context, request []byte) ([]byte, error)

// Leaf is a certificate in use, kept in two files. Run renews it when a third
// of its life is left; connections made after that use the new one.
type Leaf struct {
	crtFile, keyFile string
	profile          Profile
	issue            Issue
	renewed          func()
	now              atomic.Pointer[tls.Certificate]
}

// OpenLeaf reads PREFIX.crt and PREFIX.key if they are good for the profile, were
// signed by one of the authorities in roots and are not due for renewal, or has
// a new certificate issued.
func OpenLeaf(ctx context.Context, prefix string, roots *x509.CertPool, p Profile, issue Issue) (*Leaf, error) {
	l := &Leaf{crtFile: prefix + ".crt", keyFile: prefix + ".key", profile: p, issue: issue}
	if pair, err := readPair(l.crtFile, l.keyFile); err == nil {
		if p.fits(pair.certs[0], roots) && time.Now().Before(renewal(pair.certs[0])) {
			l.use(pair)
			return l, nil
		}
	}
	return l, l.renew(ctx)
}

// Leaf of an authority at hand.
func (a *Authority) Leaf(prefix string, p Profile) (*Leaf, error) {
	issue := func(_ context.Context, request []byte) ([]byte, error) { return a.SignRequest(request, p) }
	return OpenLeaf(context.Background(), prefix, a.Pool(), p, issue)
}

// Files that hold the certificate and the key.
func (l *Leaf) Files() (crt, key string) { return l.crtFile, l.keyFile }

// Certificate as it is now.
func (l *Leaf) Certificate() *tls.Certificate { return l.now.Load() }

// Serve is a tls.Config.GetCertificate.
func (l *Leaf) Serve(*tls.ClientHelloInfo) (*tls.Certificate, error) { return l.now.Load(), nil }

// Dial is a tls.Config.GetClientCertificate.
func (l *Leaf) Dial(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return l.now.Load(), nil }

// OnRenew is called each time Run has renewed the certificate. Set it before.
func (l *Leaf) OnRenew(f func()) { l.renewed = f }

// Run renews the certificate in time until ctx ends. An issuer that fails is
// asked again every hour.
func (l *Leaf) Run(ctx context.Context, log *slog.Logger) error {
	const again = time.Hour
	for {
		wait := max(time.Until(renewal(l.now.Load().Leaf)), 0)
		// The clock of a machine that slept does not count: look at least once a day.
		if !sleep(ctx, min(wait, 24*time.Hour)) {
			return nil
		}
		if time.Now().Before(renewal(l.now.Load().Leaf)) {
			continue
		}
		if err := l.renew(ctx); err != nil {
			log.Error("a certificate could not be renewed", "file", l.crtFile, "until", l.now.Load().Leaf.NotAfter, "err", err)
			if !sleep(ctx, again) {
				return nil
			}
			continue
		}
		if l.renewed != nil {
			l.renewed()
		}
		log.Info("certificate renewed", "file", l.crtFile, "until", l.now.Load().Leaf.NotAfter)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (l *Leaf) renew(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: l.profile.CommonName, Organization: l.profile.Organization},
		DNSNames:    l.profile.DNS,
		IPAddresses: l.profile.IPs,
	}, key)
	if err != nil {
		return err
	}
	crt, err := l.issue(ctx, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	if err != nil {
		return err
	}
	certs, err := ParseCerts(crt)
	if err != nil {
		return err
	}
	if err := writePair(l.crtFile, l.keyFile, crt, key); err != nil {
		return err
	}
	l.use(&pair{certs, crt, key})
	return nil
}

func (l *Leaf) use(p *pair) {
	c := &tls.Certificate{PrivateKey: p.key, Leaf: p.certs[0]}
	for _, cert := range p.certs {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	l.now.Store(c)
}

// renewal is when two thirds of a certificate's life are over.
func renewal(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) * 2 / 3)
}

// fits says whether a certificate says all that the profile wants.
func (p Profile) fits(c *x509.Certificate, roots *x509.CertPool) bool {
	if c.Subject.CommonName != p.CommonName || !slices.Equal(c.Subject.Organization, p.Organization) {
		return false
	}
	for _, name := range p.DNS {
		if !slices.Contains(c.DNSNames, name) {
			return false
		}
	}
	for _, ip := range p.IPs {
		if !slices.ContainsFunc(c.IPAddresses, ip.Equal) {
			return false
		}
	}
	_, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

// ClientTLS is a TLS client configuration from files: an authority ("" = the
// system's) and a client certificate ("" = none).
func ClientTLS(authority, crt, key string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if authority != "" {
		data, err := os.ReadFile(authority)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s holds no certificate", authority)
		}
	}
	if crt != "" {
		pair, err := tls.LoadX509KeyPair(crt, key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
