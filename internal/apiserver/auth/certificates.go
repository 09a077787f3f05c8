package auth

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"k8s.io/utils/lru"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

// Certificates authenticates client certificates: the common name is the user,
// the organisations are the groups. A chain that was found good is remembered,
// because checking signatures costs more than most requests.
type Certificates struct {
	roots func() *x509.CertPool
	good  *lru.Cache // [32]byte of the leaf → verified
	now   func() time.Time
}

type verified struct {
	user  request.User
	pool  *x509.CertPool
	until time.Time // the chain's earliest end
}

// NewCertificates trusts what chains up to roots at the time of the request.
func NewCertificates(roots func() *x509.CertPool) *Certificates {
	return &Certificates{roots: roots, good: lru.New(1024), now: time.Now}
}

// User of a verified chain, leaf first.
func (c *Certificates) User(chain []*x509.Certificate) (*request.User, error) {
	leaf, pool, now := chain[0], c.roots(), c.now()
	sum := sha256.Sum256(leaf.Raw)
	if v, ok := c.good.Get(sum); ok {
		if v := v.(*verified); v.pool == pool && now.Before(v.until) && !now.Before(leaf.NotBefore) {
			u := v.user
			return &u, nil
		}
	}
	opt := x509.VerifyOptions{
		Roots: pool, Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, im := range chain[1:] {
		opt.Intermediates.AddCert(im)
	}
	chains, err := leaf.Verify(opt)
	if err != nil {
		return nil, fmt.Errorf("client certificate of %q: %w", leaf.Subject.CommonName, err)
	}
	if leaf.Subject.CommonName == "" {
		return nil, nil
	}
	v := &verified{pool: pool, until: leaf.NotAfter, user: request.User{
		Name:   leaf.Subject.CommonName,
		Groups: append(append([]string{}, leaf.Subject.Organization...), request.Authenticated),
		Extra:  map[string][]string{"authentication.kubernetes.io/credential-id": {"X509SHA256=" + hex.EncodeToString(sum[:])}},
	}}
	for _, cert := range chains[0] {
		if cert.NotAfter.Before(v.until) {
			v.until = cert.NotAfter
		}
	}
	c.good.Add(sum, v)
	u := v.user
	return &u, nil
}
