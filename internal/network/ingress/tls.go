package ingress

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"sync"
	"time"
)

// hosts are the names the certificate is for.
func (k KeyPair) hosts() ([]string, error) {
	pair, err := tls.X509KeyPair([]byte(k.Cert), []byte(k.Key))
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, err
	}
	if len(leaf.DNSNames) == 0 && leaf.Subject.CommonName != "" {
		return []string{leaf.Subject.CommonName}, nil
	}
	return leaf.DNSNames, nil
}

// keyring keeps parsed certificates, and the self-signed one for names that have none.
type keyring struct {
	mu     sync.Mutex
	parsed map[KeyPair]*tls.Certificate
	self   *tls.Certificate
}

// keep forgets what the table has no use for.
func (k *keyring) keep(t *Table) {
	k.mu.Lock()
	defer k.mu.Unlock()
	used := map[KeyPair]*tls.Certificate{}
	for _, pair := range t.Certificates {
		if c := k.parsed[pair]; c != nil {
			used[pair] = c
		}
	}
	k.parsed = used
}

func (k *keyring) get(t *Table, name string) (*tls.Certificate, error) {
	pair, ok := t.Certificate(name)
	k.mu.Lock()
	defer k.mu.Unlock()
	if !ok {
		if k.self == nil || time.Now().After(k.self.Leaf.NotAfter.Add(-24*time.Hour)) {
			self, err := selfSigned(time.Now())
			if err != nil {
				return nil, err
			}
			k.self = self
		}
		return k.self, nil
	}
	if c := k.parsed[pair]; c != nil {
		return c, nil
	}
	c, err := tls.X509KeyPair([]byte(pair.Cert), []byte(pair.Key))
	if err != nil {
		return nil, errors.New("the certificate of " + name + " cannot be used")
	}
	if k.parsed == nil {
		k.parsed = map[KeyPair]*tls.Certificate{}
	}
	k.parsed[pair] = &c
	return &c, nil
}

func selfSigned(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "Proa ingress, self-signed: no certificate for this name"},
		DNSNames:     []string{"ingress.local"},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}
