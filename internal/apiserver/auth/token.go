package auth

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/url"
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

// Leeway is how far the clocks of those who make and check tokens may differ.
const Leeway = time.Minute

// Keys sign and verify service-account tokens and describe themselves to OIDC
// relying parties. The first key signs; the others are still believed.
type Keys struct {
	Issuers []string // the first is in new tokens; the others are still believed
	JWKSURI string   // that relying parties are told; "" = of the address that they asked
	all     []key
}

type key struct {
	id     string
	method jwt.SigningMethod
	public crypto.PublicKey
	signer crypto.Signer // nil for keys that only verify
}

// NewKeys takes ECDSA (P-256, P-384, P-521) and RSA keys: a private one that
// signs, and further ones, private or public.
func NewKeys(issuers []string, signer crypto.Signer, others ...any) (*Keys, error) {
	k := &Keys{Issuers: issuers}
	if len(issuers) == 0 || signer == nil {
		return nil, errors.New("service accounts need an issuer and a key")
	}
	for _, one := range append([]any{signer}, others...) {
		var public crypto.PublicKey = one
		private, ok := one.(crypto.Signer)
		if ok {
			public = private.Public()
		}
		made, err := newKey(public)
		if err != nil {
			return nil, fmt.Errorf("service-account key: %w", err)
		}
		if slices.ContainsFunc(k.all, func(have key) bool { return have.id == made.id }) {
			continue
		}
		made.signer = private
		k.all = append(k.all, made)
	}
	return k, nil
}

func newKey(public crypto.PublicKey) (key, error) {
	one := key{public: public}
	switch pub := public.(type) {
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
		return one, fmt.Errorf("%T is neither RSA nor ECDSA", public)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	sum := sha256.Sum256(der)
	one.id = base64.RawURLEncoding.EncodeToString(sum[:])
	return one, err
}

func (k *Keys) sign(c *claims) (string, error) {
	t := jwt.NewWithClaims(k.all[0].method, c)
	t.Header["kid"] = k.all[0].id
	return t.SignedString(k.all[0].signer)
}

// issued reads a token, without checking it. nil = it does not say that it was issued
// here, and may be of another sort.
func (k *Keys) issued(token string) *jwt.Token {
	peek := &claims{}
	unverified, _, err := jwt.NewParser().ParseUnverified(token, peek)
	if err != nil || (peek.Issuer != legacyIssuer && !slices.Contains(k.Issuers, peek.Issuer)) {
		return nil
	}
	return unverified
}

// verify checks form, signature and times of a token that says it was issued here.
func (k *Keys) verify(token string, unverified *jwt.Token, now time.Time) (*claims, error) {
	kid, _ := unverified.Header["kid"].(string)
	parser := jwt.NewParser(jwt.WithTimeFunc(func() time.Time { return now }), jwt.WithLeeway(Leeway), jwt.WithIssuedAt())
	err := ErrBadToken
	for _, one := range k.all {
		if kid != "" && kid != one.id || unverified.Method != one.method {
			continue
		}
		c := &claims{}
		_, bad := parser.ParseWithClaims(token, c, func(*jwt.Token) (any, error) { return one.public, nil })
		switch {
		case bad == nil:
			return c, nil
		case errors.Is(bad, jwt.ErrTokenSignatureInvalid): // perhaps another key
		case errors.Is(bad, jwt.ErrTokenExpired):
			err = errors.New("service account token has expired")
		case errors.Is(bad, jwt.ErrTokenNotValidYet):
			err = errors.New("service account token is not valid yet")
		case errors.Is(bad, jwt.ErrTokenUsedBeforeIssued):
			err = errors.New("service account token is issued in the future")
		}
	}
	return nil, err
}

// Discoverable says that relying parties can find the keys by the issuer: OpenID
// Connect wants a plain https URL.
func (k *Keys) Discoverable() bool {
	u, err := url.Parse(k.Issuers[0])
	return err == nil && u.Scheme == "https" && u.RawQuery == "" && u.Fragment == ""
}

// OpenIDConfiguration is the discovery document (/.well-known/openid-configuration);
// jwksURI is used unless another one was configured.
func (k *Keys) OpenIDConfiguration(jwksURI string) []byte {
	var algs []string
	for _, one := range k.all {
		if !slices.Contains(algs, one.method.Alg()) {
			algs = append(algs, one.method.Alg())
		}
	}
	slices.Sort(algs)
	b, _ := json.Marshal(struct {
		Issuer   string   `json:"issuer"`
		JWKS     string   `json:"jwks_uri"`
		Types    []string `json:"response_types_supported"`
		Subjects []string `json:"subject_types_supported"`
		Algs     []string `json:"id_token_signing_alg_values_supported"`
	}{k.Issuers[0], cmp.Or(k.JWKSURI, jwksURI), []string{"id_token"}, []string{"public"}, algs})
	return b
}

// JWKS is the key set (/openid/v1/jwks).
func (k *Keys) JWKS() []byte {
	type jwk struct {
		Use string `json:"use"`
		Kty string `json:"kty"`
		Kid string `json:"kid"`
		Crv string `json:"crv,omitempty"`
		Alg string `json:"alg"`
		X   string `json:"x,omitempty"`
		Y   string `json:"y,omitempty"`
		N   string `json:"n,omitempty"`
		E   string `json:"e,omitempty"`
	}
	enc := base64.RawURLEncoding.EncodeToString
	keys := []jwk{}
	for _, one := range k.all {
		j := jwk{Use: "sig", Kid: one.id, Alg: one.method.Alg()}
		switch pub := one.public.(type) {
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
