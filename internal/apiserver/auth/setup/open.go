package setup

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"

	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"

	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
)

// Setup is authentication and authorisation, built.
type Setup struct {
	*auth.Auth
	// ClientCAs are the authorities of all clients, for the TLS handshake: those
	// from the start, for it only tells clients which certificate to show.
	ClientCAs *x509.CertPool
	// ClientCA and ProxyCA are in PEM what is trusted for clients and for proxies;
	// Proxies is how those are recognised that were configured. Aggregated API
	// servers are told.
	ClientCA, ProxyCA []byte
	Proxies           ProxyConfig

	files   []*followed
	log     *slog.Logger
	metrics *metrics.Metrics // the same as those of Auth
}

// ProxyConfig is how proxies that were configured are recognised.
type ProxyConfig struct {
	Names   []string // none = any
	Options RequestHeader
}

// Own is what the cluster has of its own: certificates in PEM.
type Own struct {
	ClientCA   []byte   // of all its clients
	ProxyCA    []byte   // of its proxies
	ProxyNames []string // that those have
}

// Open what the options describe. base holds the cluster's cache, and the key and
// the issuer of its service accounts.
func Open(o Options, own Own, base auth.Config, log *slog.Logger) (*Setup, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	base.Metrics = metrics.Or(base.Metrics)
	s := &Setup{log: log, metrics: base.Metrics, ClientCAs: x509.NewCertPool()}
	clients, more, err := s.authorities("--client-ca-file", o.ClientCAFile, own.ClientCA)
	if err != nil {
		return nil, err
	}
	proxies, _, err := s.authorities("", "", own.ProxyCA)
	if err != nil {
		return nil, err
	}
	s.ClientCA, s.ProxyCA = slices.Concat(own.ClientCA, more), own.ProxyCA
	base.ClientCA = clients
	base.Proxies = append(base.Proxies, auth.NewProxy(proxies, own.ProxyNames...))
	steps := []func(*Options, Own, *auth.Config) error{s.proxies, s.accounts, s.authentication}
	for _, step := range steps {
		if err := step(&o, own, &base); err != nil {
			return nil, err
		}
	}
	if s.Auth, err = auth.New(base); err != nil {
		return nil, err
	}
	return s, s.authorization(&o.Authorization)
}

// Run follows the files until ctx ends.
func (s *Setup) Run(ctx context.Context) error { return follow(ctx, s.files, s.log) }

// follow a file that was read already. reloads nil = nobody counts them.
func (s *Setup) follow(flag, path string, data []byte, reloads *metrics.Reloads, take func([]byte) error) {
	if reloads != nil {
		reloads.Read(data)
	}
	s.files = append(s.files, &followed{flag: flag, path: path, last: data, take: take, reloads: reloads})
}

// authorities are certificates of our own and those of a file, which is followed
// and returned.
func (s *Setup) authorities(flag, path string, own []byte) (pool func() *x509.CertPool, more []byte, err error) {
	var now atomic.Pointer[x509.CertPool]
	take := func(data []byte) error {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(own)
		if data != nil {
			certs, err := cert.ParseCertsPEM(data)
			if err != nil {
				return fmt.Errorf("%w: write one or more certificates in PEM", err)
			}
			for _, c := range certs {
				pool.AddCert(c)
			}
		}
		now.Store(pool)
		return nil
	}
	s.ClientCAs.AppendCertsFromPEM(own)
	if path == "" {
		return now.Load, nil, take(nil)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", flag, err)
	}
	if err := take(data); err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w", flag, path, err)
	}
	s.ClientCAs.AppendCertsFromPEM(data)
	s.follow(flag, path, data, nil, take)
	return now.Load, data, nil
}

// proxies adds those of --requestheader-*.
func (s *Setup) proxies(o *Options, own Own, base *auth.Config) error {
	r := &o.RequestHeader
	if r.ClientCAFile == "" {
		return nil
	}
	roots, data, err := s.authorities("--requestheader-client-ca-file", r.ClientCAFile, nil)
	if err != nil {
		return err
	}
	if len(r.AllowedNames) == 0 && overlap(own.ClientCA, data) {
		return fmt.Errorf("--requestheader-client-ca-file %s holds an authority that signs all clients: name the proxies with --requestheader-allowed-names, or every client could say it were somebody else", r.ClientCAFile)
	}
	p := auth.NewProxy(roots, r.AllowedNames...)
	p.UserHeaders, p.UIDHeaders, p.GroupHeaders, p.ExtraPrefixes = r.UsernameHeaders, r.UIDHeaders, r.GroupHeaders, r.ExtraPrefixes
	base.Proxies = append(base.Proxies, p)
	s.ProxyCA = slices.Concat(s.ProxyCA, data)
	s.Proxies = ProxyConfig{Names: r.AllowedNames, Options: *r}
	return nil
}

// overlap says that two bundles have a certificate in common.
func overlap(a, b []byte) bool {
	of, _ := cert.ParseCertsPEM(a)
	in, _ := cert.ParseCertsPEM(b)
	return slices.ContainsFunc(of, func(x *x509.Certificate) bool { return slices.ContainsFunc(in, x.Equal) })
}

// accounts takes over what is said of service accounts' tokens.
func (s *Setup) accounts(o *Options, _ Own, base *auth.Config) error {
	c := &o.ServiceAccounts
	if len(c.Issuers) > 0 {
		base.Issuers = c.Issuers
	}
	base.Audiences, base.JWKSURI, base.MaxExpiration, base.Extend = o.APIAudiences, c.JWKSURI, c.MaxExpiration, c.Extend
	if c.SigningKeyFile != "" {
		key, err := keyutil.PrivateKeyFromFile(c.SigningKeyFile)
		if err != nil {
			return fmt.Errorf("--service-account-signing-key-file: %w: write an RSA or ECDSA private key in PEM", err)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return fmt.Errorf("--service-account-signing-key-file %s: a %T cannot sign", c.SigningKeyFile, key)
		}
		base.Keys = append(base.Keys, base.Signer) // what it has signed before is believed still
		base.Signer = signer
	}
	for _, file := range c.KeyFiles {
		keys, err := keyutil.PublicKeysFromFile(file)
		if err != nil {
			return fmt.Errorf("--service-account-key-file: %w: write RSA or ECDSA keys in PEM", err)
		}
		base.Keys = append(base.Keys, keys...)
	}
	return nil
}
