package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"k8s.io/apiserver/pkg/apis/apiserver"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
)

// fake is an OpenID Connect issuer with keys of its own.
type fake struct {
	t      *testing.T
	server *httptest.Server
	keys   map[string]crypto.Signer // by kid

	mu        sync.Mutex
	published []string // kids
	answer    func(w http.ResponseWriter, r *http.Request) bool
	asked     map[string]*atomic.Int64 // by path
}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, keys: map[string]crypto.Signer{}, asked: map[string]*atomic.Int64{}}
	for _, path := range []string{"/.well-known/openid-configuration", "/elsewhere", "/keys"} {
		f.asked[path] = &atomic.Int64{}
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	f.keys["rsa"] = rsaKey
	for kid, curve := range map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384(), "p521": elliptic.P521(), "new": elliptic.P256(), "stranger": elliptic.P256()} {
		if f.keys[kid], err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	f.published = []string{"rsa", "p256", "p384", "p521"}
	f.server = httptest.NewTLSServer(f)
	t.Cleanup(f.server.Close)
	return f
}

func (f *fake) publish(kids ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.published = kids
}

func (f *fake) on(answer func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if n := f.asked[r.URL.Path]; n != nil {
		n.Add(1)
	}
	f.mu.Lock()
	answer, published := f.answer, f.published
	f.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration", "/elsewhere":
		json.NewEncoder(w).Encode(map[string]any{"issuer": f.server.URL, "jwks_uri": f.server.URL + "/keys"})
	case "/keys":
		set := []map[string]string{{"kty": "oct", "kid": "hmac", "k": "c2VjcmV0"}, {"kty": "RSA", "use": "enc", "kid": "enc", "n": "AQAB", "e": "AQAB"}, {"kty": "EC", "kid": "broken", "crv": "P-256", "x": "AA", "y": "AA"}}
		for _, kid := range published {
			set = append(set, jwkOf(kid, f.keys[kid].Public()))
		}
		json.NewEncoder(w).Encode(map[string]any{"keys": set})
	default:
		http.NotFound(w, r)
	}
}

func jwkOf(kid string, key any) map[string]string {
	enc := base64.RawURLEncoding.EncodeToString
	switch key := key.(type) {
	case *rsa.PublicKey:
		return map[string]string{"kty": "RSA", "kid": kid, "use": "sig", "n": enc(key.N.Bytes()), "e": enc(big.NewInt(int64(key.E)).Bytes())}
	case *ecdsa.PublicKey:
		raw, _ := key.Bytes()
		half := (len(raw) - 1) / 2
		return map[string]string{"kty": "EC", "kid": kid, "crv": key.Curve.Params().Name, "x": enc(raw[1 : 1+half]), "y": enc(raw[1+half:])}
	}
	return nil
}

// ca is the authority of the issuer's certificate, in PEM.
func (f *fake) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw}))
}

// claims of a good token, with changes; a nil value takes a claim away.
func (f *fake) claims(change map[string]any) jwt.MapClaims {
	c := jwt.MapClaims{"iss": f.server.URL, "aud": "client", "sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}
	for k, v := range change {
		c[k] = v
		if v == nil {
			delete(c, k)
		}
	}
	return c
}

// token signed by a key.
func (f *fake) token(method jwt.SigningMethod, kid string, change map[string]any) string {
	f.t.Helper()
	t := jwt.NewWithClaims(method, f.claims(change))
	if kid != "" {
		t.Header["kid"] = kid
	}
	key, named := f.keys[kid]
	if !named {
		key = f.keys["rsa"]
	}
	text, err := t.SignedString(key)
	if err != nil {
		f.t.Fatal(err)
	}
	return text
}

// spec that trusts the issuer, with changes.
func (f *fake) spec(change ...func(*apiserver.JWTAuthenticator)) apiserver.JWTAuthenticator {
	prefix := ""
	j := apiserver.JWTAuthenticator{
		Issuer:        apiserver.Issuer{URL: f.server.URL, Audiences: []string{"client"}, CertificateAuthority: f.ca()},
		ClaimMappings: apiserver.ClaimMappings{Username: apiserver.PrefixedClaimOrExpression{Claim: "sub", Prefix: &prefix}},
	}
	for _, c := range change {
		c(&j)
	}
	return j
}

func (f *fake) issuers(specs ...apiserver.JWTAuthenticator) *Issuers {
	f.t.Helper()
	s := NewIssuers(slog.New(slog.DiscardHandler), nil)
	if err := s.Set(Config{JWT: specs, Compiler: authenticationcel.NewDefaultCompiler()}); err != nil {
		f.t.Fatal(err)
	}
	return s
}
