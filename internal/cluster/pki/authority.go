// Package pki keeps the certificates and keys of a cluster: its authorities,
// the certificates they sign (which renew themselves while they are in use),
// kubeconfig files, and the tokens by which nodes join.
//
// Keys are ECDSA P-256. Everything lives in one folder, keys readable by their
// owner alone, and each file is written whole or not at all.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	// Life of the certificates that an authority signs.
	Life = 365 * 24 * time.Hour
	// backdate covers clocks that are a little late.
	backdate = 5 * time.Minute
)

// Authority signs certificates.
type Authority struct {
	Cert *x509.Certificate
	PEM  []byte // the certificate
	key  crypto.Signer
}

// Profile is what a certificate says.
type Profile struct {
	CommonName   string
	Organization []string
	DNS          []string
	IPs          []net.IP
	Server       bool // good for serving
	Client       bool // good for being a client
}

// OpenAuthority reads DIR/NAME.crt and DIR/NAME.key, or makes a new authority
// of that common name and writes both.
func OpenAuthority(dir, name, commonName string) (*Authority, error) {
	crt, key := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	pair, err := readPair(crt, key)
	if err == nil {
		return pair.authority()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return newAuthority(crt, key, commonName)
}

func newAuthority(crtFile, keyFile, commonName string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber:          big.NewInt(0),
		Subject:               pkix.Name{CommonName: commonName},
		DNSNames:              []string{commonName},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &Authority{Cert: cert, PEM: certPEM(der), key: key}
	return a, writePair(crtFile, keyFile, a.PEM, key)
}

// Pool that holds this authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Cert)
	return pool
}

// Key of the authority, for those who sign certificates by themselves.
func (a *Authority) Key() crypto.Signer { return a.key }

// Hash names the authority's public key: sha256 of its SubjectPublicKeyInfo in
// hex, as kubeadm's --discovery-token-ca-cert-hash has it.
func (a *Authority) Hash() string { return hashKey(a.Cert) }

func hashKey(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Sign makes a certificate for a public key, in PEM, the authority's own
// certificate behind it, so that a peer that knows the authority only by its
// hash can check it.
func (a *Authority) Sign(public crypto.PublicKey, p Profile) ([]byte, error) {
	now := time.Now()
	t := &x509.Certificate{
		Subject:     pkix.Name{CommonName: p.CommonName, Organization: p.Organization},
		DNSNames:    p.DNS,
		IPAddresses: p.IPs,
		NotBefore:   now.Add(-backdate),
		NotAfter:    now.Add(Life),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	if p.Server {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if p.Client {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	cert, err := a.SignCertificate(t, public)
	if err != nil {
		return nil, err
	}
	return append(cert, a.PEM...), nil
}

// SignCertificate makes a certificate that says what t does, in PEM. It gets a
// serial number and does not outlive the authority.
func (a *Authority) SignCertificate(t *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	t.SerialNumber, t.NotAfter = serial, earlier(t.NotAfter, a.Cert.NotAfter)
	der, err := x509.CreateCertificate(rand.Reader, t, a.Cert, public, a.key)
	if err != nil {
		return nil, err
	}
	return certPEM(der), nil
}

// SignRequest signs a certificate request in PEM. Only its key is taken from
// it; what the certificate says is the profile.
func (a *Authority) SignRequest(request []byte, p Profile) ([]byte, error) {
	block, _ := pem.Decode(request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("not a certificate request in PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the certificate request: %w", err)
	}
	return a.Sign(csr.PublicKey, p)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// OpenKey reads a private key in PEM, or makes one and writes it: the key that
// signs service-account tokens.
func OpenKey(file string) (crypto.Signer, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		data, err := keyPEM(key)
		if err != nil {
			return nil, err
		}
		return key, WriteFile(file, data, 0o600)
	}
	if err != nil {
		return nil, err
	}
	return parseKey(file, data)
}

func parseKey(file string, data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key in PEM", file)
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T, which cannot sign", file, key)
	}
	return signer, nil
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	if ec, ok := key.(*ecdsa.PrivateKey); ok {
		der, err := x509.MarshalECPrivateKey(ec)
		return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// pair is a certificate file and its key file, read.
type pair struct {
	certs []*x509.Certificate
	pem   []byte
	key   crypto.Signer
}

func readPair(crtFile, keyFile string) (*pair, error) {
	crt, err := os.ReadFile(crtFile)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(keyFile, data)
	if err != nil {
		return nil, err
	}
	certs, err := ParseCerts(crt)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", crtFile, err)
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(certs[0].PublicKey) {
		return nil, fmt.Errorf("%s is not the key of %s", keyFile, crtFile)
	}
	return &pair{certs, crt, key}, nil
}

func (p *pair) authority() (*Authority, error) {
	if !p.certs[0].IsCA {
		return nil, fmt.Errorf("the certificate of %q is no certificate authority", p.certs[0].Subject.CommonName)
	}
	return &Authority{Cert: p.certs[0], PEM: p.pem, key: p.key}, nil
}

// ParseCerts reads certificates in PEM; at least one.
func ParseCerts(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	return certs, nil
}

// writePair writes the key first: a certificate without its key would be kept.
func writePair(crtFile, keyFile string, crt []byte, key crypto.Signer) error {
	data, err := keyPEM(key)
	if err != nil {
		return err
	}
	if err := WriteFile(keyFile, data, 0o600); err != nil {
		return err
	}
	return WriteFile(crtFile, crt, 0o644)
}

// WriteFile replaces a file in one step, so that a reader sees the old content
// or the new. It makes the folder. Nothing is written when the content is the
// same already.
func WriteFile(name string, data []byte, mode fs.FileMode) error {
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it was renamed
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
