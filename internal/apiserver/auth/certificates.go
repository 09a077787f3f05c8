package auth

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
	// left is told for how long yet, in seconds, the certificates of users are good;
	// nil = nobody wants to know.
	left prometheus.Observer
}

type verified struct {
	user  *request.User // nil for a certificate without a common name
	pool  *x509.CertPool
	until time.Time // the chain's earliest end
}

// NewCertificates trusts what chains up to roots at the time of the request.
func NewCertificates(roots func() *x509.CertPool) *Certificates {
	return &Certificates{roots: roots, good: lru.New(1024), now: time.Now}
}

// User of a chain, leaf first; nil, nil for a good one that names nobody.
func (c *Certificates) User(chain []*x509.Certificate) (*request.User, error) {
	now := c.now()
	if c.left != nil {
		c.left.Observe(chain[0].NotAfter.Sub(now).Seconds())
	}
	v, err := c.verify(chain, now)
	if err != nil || v.user == nil {
		return nil, err
	}
	u := *v.user
	return &u, nil
}

// Check that a chain is good.
func (c *Certificates) Check(chain []*x509.Certificate) error {
	_, err := c.verify(chain, c.now())
	return err
}

func (c *Certificates) verify(chain []*x509.Certificate, now time.Time) (*verified, error) {
	leaf, pool := chain[0], c.roots()
	sum := sha256.Sum256(leaf.Raw)
	if v, ok := c.good.Get(sum); ok {
		if v := v.(*verified); v.pool == pool && now.Before(v.until) && !now.Before(leaf.NotBefore) {
			return v, nil
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
	v := &verified{pool: pool, until: leaf.NotAfter}
	for _, cert := range chains[0] {
		if cert.NotAfter.Before(v.until) {
			v.until = cert.NotAfter
		}
	}
	if leaf.Subject.CommonName != "" {
		uid, err := certificateUID(leaf)
		if err != nil {
			return nil, fmt.Errorf("client certificate of %q: %w", leaf.Subject.CommonName, err)
		}
		v.user = &request.User{
			Name: leaf.Subject.CommonName, UID: uid,
			Groups: append(append([]string{}, leaf.Subject.Organization...), request.Authenticated),
			Extra:  map[string][]string{credentialID: {"X509SHA256=" + hex.EncodeToString(sum[:])}},
		}
	}
	c.good.Add(sum, v)
	return v, nil
}

// credentialID is the extra value that tells one credential of a user from another.
const credentialID = "authentication.kubernetes.io/credential-id"

// certificateUID is the part of the subject that holds the user's UID, under the
// object identifier that Kubernetes has for it; "" when there is none.
func certificateUID(leaf *x509.Certificate) (string, error) {
	kubernetesUID := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2}
	var uid string
	found := false
	for _, part := range leaf.Subject.Names {
		if !part.Type.Equal(kubernetesUID) {
			continue
		}
		text, ok := part.Value.(string)
		switch {
		case !ok || text == "":
			return "", errors.New("the UID in the subject is no text, or an empty one")
		case found:
			return "", errors.New("the subject holds more than one UID")
		}
		uid, found = text, true
	}
	return uid, nil
}
