package pki

import (
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Token lets a node join: a bootstrap token as Kubernetes knows it, and the
// hash by which the node knows the cluster's authority. As text:
// ID.SECRET.HASH, or ID.SECRET when there is no hash.
type Token struct {
	ID     string // 6 characters
	Secret string // 16 characters
	Hash   string // of the authority's key, "" = not known
}

var tokenText = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})(?:\.([0-9a-f]{64}))?$`)

// NewToken makes a random token for an authority.
func NewToken(a *Authority) Token {
	return Token{ID: random(6), Secret: random(16), Hash: a.Hash()}
}

// ParseToken reads the text of a token.
func ParseToken(text string) (Token, error) {
	m := tokenText.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return Token{}, errors.New(`not a join token: it looks like abcdef.0123456789abcdef.HASH; "proa token create" on a server prints one`)
	}
	return Token{m[1], m[2], m[3]}, nil
}

func (t Token) String() string {
	if t.Hash == "" {
		return t.Bearer()
	}
	return t.Bearer() + "." + t.Hash
}

// Bearer is the part that is sent to the server.
func (t Token) Bearer() string { return t.ID + "." + t.Secret }

// Trust is a TLS client configuration for a server at a host (name or address)
// that is known by the token's hash alone. Once a connection was made, authority
// receives the certificate of the server's authority.
func (t Token) Trust(host string, authority func(*x509.Certificate)) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // what follows verifies
		VerifyConnection: func(s tls.ConnectionState) error {
			ca, err := t.find(host, s.PeerCertificates)
			if err == nil {
				authority(ca)
			}
			return err
		},
	}
}

func (t Token) find(host string, chain []*x509.Certificate) (*x509.Certificate, error) {
	if t.Hash == "" {
		return nil, errors.New("the token does not name the cluster's authority: use the whole token as the server printed it")
	}
	for _, c := range chain {
		if subtle.ConstantTimeCompare([]byte(hashKey(c)), []byte(t.Hash)) != 1 {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(c)
		_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: host, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		return c, err
	}
	return nil, fmt.Errorf("the server at %s is not of the cluster that the token is for: its authority's key hash is not %s", host, t.Hash)
}

func random(n int) string {
	const digits = "abcdefghijklmnopqrstuvwxyz0123456789"
	text := make([]byte, n)
	for i := range text {
		text[i] = digits[uniform(len(digits))]
	}
	return string(text)
}

// uniform is a random number below n (n ≤ 256), each as likely as the others.
func uniform(n int) int {
	b := make([]byte, 1)
	for {
		rand.Read(b) // never fails
		if int(b[0]) < 256/n*n {
			return int(b[0]) % n
		}
	}
}
