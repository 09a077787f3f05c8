package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// claims of a service-account token, as KEP-1205 lays them out.
type claims struct {
	jwt.RegisteredClaims
	Kubernetes *boundTo `json:"kubernetes.io,omitempty"`

	// The shape of tokens kept in Secrets, from before tokens were bound.
	LegacySecret    string `json:"kubernetes.io/serviceaccount/secret.name,omitempty"`
	LegacyNamespace string `json:"kubernetes.io/serviceaccount/namespace,omitempty"`
	LegacyName      string `json:"kubernetes.io/serviceaccount/service-account.name,omitempty"`
	LegacyUID       string `json:"kubernetes.io/serviceaccount/service-account.uid,omitempty"`
}

type boundTo struct {
	Namespace      string           `json:"namespace,omitempty"`
	ServiceAccount ref              `json:"serviceaccount,omitempty"`
	Pod            *ref             `json:"pod,omitempty"`
	Secret         *ref             `json:"secret,omitempty"`
	Node           *ref             `json:"node,omitempty"`
	WarnAfter      *jwt.NumericDate `json:"warnafter,omitempty"`
}

type ref struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

const legacyIssuer = "kubernetes/serviceaccount"

// Keys sign and verify service-account tokens and describe themselves to OIDC
// relying parties. The first key signs; the others are still believed.
type Keys struct {
	Issuer string
	all    []key
}

type key struct {
	id     string
	method jwt.SigningMethod
	signer crypto.Signer
}

// NewKeys takes ECDSA (P-256, P-384, P-521) and RSA private keys.
func NewKeys(issuer string, signers ...crypto.Signer) (*Keys, error) {
	k := &Keys{Issuer: issuer}
	for _, s := range signers {
		der, err := x509.MarshalPKIXPublicKey(s.Public())
		if err != nil {
			return nil, fmt.Errorf("service-account key: %w", err)
		}
		sum := sha256.Sum256(der)
		one := key{id: base64.RawURLEncoding.EncodeToString(sum[:]), signer: s}
		switch pub := s.Public().(type) {
		case *rsa.PublicKey:
			one.method = jwt.SigningMethodRS256
		case *ecdsa.PublicKey:
			switch pub.Curve.Params().BitSize {
			case 256:
				one.method = jwt.SigningMethodES256
			case 384:
				one.method = jwt.SigningMethodES384
			default:
				one.method = jwt.SigningMethodES512
			}
		default:
			return nil, fmt.Errorf("service-account key: %T is neither RSA nor ECDSA", pub)
		}
		k.all = append(k.all, one)
	}
	if len(k.all) == 0 {
		return nil, fmt.Errorf("no service-account key given")
	}
	return k, nil
}

func (k *Keys) sign(c *claims) (string, error) {
	t := jwt.NewWithClaims(k.all[0].method, c)
	t.Header["kid"] = k.all[0].id
	return t.SignedString(k.all[0].signer)
}

// parse checks form, signature and times. ok is false when the token was not
// issued here and may be of another sort.
func (k *Keys) parse(token string, now time.Time) (c *claims, ok bool, err error) {
	peek := &claims{}
	unverified, _, err := jwt.NewParser().ParseUnverified(token, peek)
	if err != nil || (peek.Issuer != k.Issuer && peek.Issuer != legacyIssuer) {
		return nil, false, nil
	}
	kid, _ := unverified.Header["kid"].(string)
	parser := jwt.NewParser(jwt.WithTimeFunc(func() time.Time { return now }), jwt.WithLeeway(10*time.Second))
	for _, one := range k.all {
		if kid != "" && kid != one.id || unverified.Method != one.method {
			continue
		}
		c := &claims{}
		if _, err = parser.ParseWithClaims(token, c, func(*jwt.Token) (any, error) { return one.signer.Public(), nil }); err == nil {
			return c, true, nil
		}
	}
	return nil, true, ErrBadToken
}

// OpenIDConfiguration is the discovery document (/.well-known/openid-configuration).
func (k *Keys) OpenIDConfiguration(jwksURI string) []byte {
	var algs []string
	for _, one := range k.all {
		if !slices.Contains(algs, one.method.Alg()) {
			algs = append(algs, one.method.Alg())
		}
	}
	b, _ := json.Marshal(map[string]any{
		"issuer": k.Issuer, "jwks_uri": jwksURI,
		"response_types_supported":              []string{"id_token"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": algs,
	})
	return b
}

// JWKS is the key set (/openid/v1/jwks).
func (k *Keys) JWKS() []byte {
	type jwk struct {
		Use string `json:"use"`
		Kty string `json:"kty"`
		Kid string `json:"kid"`
		Alg string `json:"alg"`
		Crv string `json:"crv,omitempty"`
		X   string `json:"x,omitempty"`
		Y   string `json:"y,omitempty"`
		N   string `json:"n,omitempty"`
		E   string `json:"e,omitempty"`
	}
	enc := base64.RawURLEncoding.EncodeToString
	keys := []jwk{}
	for _, one := range k.all {
		j := jwk{Use: "sig", Kid: one.id, Alg: one.method.Alg()}
		switch pub := one.signer.Public().(type) {
		case *rsa.PublicKey:
			j.Kty, j.N, j.E = "RSA", enc(pub.N.Bytes()), enc(big.NewInt(int64(pub.E)).Bytes())
		case *ecdsa.PublicKey:
			raw, err := pub.Bytes() // 4 ‖ X ‖ Y
			if err != nil {
				continue
			}
			half := (len(raw) - 1) / 2
			j.Kty, j.Crv, j.X, j.Y = "EC", pub.Curve.Params().Name, enc(raw[1:1+half]), enc(raw[1+half:])
		}
		keys = append(keys, j)
	}
	b, _ := json.Marshal(map[string]any{"keys": keys})
	return b
}

func newID() string { return uuid.NewString() }
