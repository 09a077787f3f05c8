// Package oidc authenticates the tokens of OpenID Connect issuers, as an
// AuthenticationConfiguration describes them (KEP-3331). An issuer is first
// asked for its keys when a token of it comes, and again when a token names a key
// that is not known; nothing runs in between, and nothing waits for an issuer at
// the start.
//
// Groups may be a distributed claim (OpenID Connect Core 5.6.2): then they are
// fetched from where the token says.
package oidc

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"

	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// Algorithms by which tokens may be signed at all.
var Algorithms = []string{"ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"}

// Issuers authenticates the tokens of all issuers that are configured. They can be
// exchanged while requests are served.
type Issuers struct {
	now atomic.Pointer[[]*issuer]
	log *slog.Logger
	// tokens that were good a moment ago
	seen    *cache.LRUExpireCache
	metrics *metrics.Metrics
}

// Config of an exchange.
type Config struct {
	JWT        []apiserver.JWTAuthenticator // valid ones
	Algorithms []string                     // nil = all
	Compiler   authenticationcel.Compiler
	// Disallowed are issuers that nobody may pretend to be: our own.
	Disallowed []string
	Now        func() time.Time // nil = time.Now
}

// NewIssuers without any. m nil = nobody reads metrics.
func NewIssuers(log *slog.Logger, m *metrics.Metrics) *Issuers {
	s := &Issuers{log: log, seen: cache.NewLRUExpireCache(4096), metrics: metrics.Or(m)}
	s.now.Store(&[]*issuer{})
	return s
}

// Set exchanges the issuers. One that is reached as before keeps its keys.
func (s *Issuers) Set(c Config) error {
	if len(c.Algorithms) == 0 {
		c.Algorithms = Algorithms
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	before := *s.now.Load()
	var all []*issuer
	for n := range c.JWT {
		i, err := newIssuer(&c.JWT[n], c, s.log, s.metrics)
		if err != nil {
			return err
		}
		if k := slices.IndexFunc(before, func(old *issuer) bool { return old.keys.same(i.keys) }); k >= 0 {
			i.keys = before[k].keys
		}
		all = append(all, i)
	}
	s.now.Store(&all)
	for _, old := range before {
		if !slices.ContainsFunc(all, func(i *issuer) bool { return i.keys == old.keys }) {
			old.keys.client.CloseIdleConnections()
		}
		if !slices.ContainsFunc(all, func(i *issuer) bool { return i.url == old.url }) {
			old.keys.metrics.Gone()
		}
	}
	s.seen.RemoveAll(func(any) bool { return true })
	return nil
}

// good tokens are believed for a moment without looking at them again.
const good = 10 * time.Second

type remembered struct {
	user *request.User
	of   *issuer
	end  time.Time
}

// AuthenticateToken implements auth.TokenAuthenticator. Audiences are not asked
// for: an issuer's tokens are meant for clients of its own.
func (s *Issuers) AuthenticateToken(ctx context.Context, token string, _ []string) (*request.User, []string, error) {
	all := *s.now.Load()
	if len(all) == 0 {
		return nil, nil, nil
	}
	start, sum := time.Now(), sha256.Sum256([]byte(token))
	if v, ok := s.seen.Get(sum); ok {
		r := v.(remembered)
		if slices.Contains(all, r.of) && !r.of.now().After(r.end) {
			s.metrics.Tokens.Hit(start)
			return r.user, nil, nil
		}
	}
	name, ok := issuerOf(token)
	if !ok {
		return nil, nil, nil
	}
	for _, i := range all {
		if i.url != name {
			continue
		}
		known, fetched := s.metrics.Tokens.Miss(start), s.metrics.Tokens.Fetch()
		u, end, err := i.authenticate(ctx, token)
		fetched(err)
		known()
		i.keys.metrics.Authenticated(err, time.Since(start))
		if err != nil {
			return nil, nil, fmt.Errorf("oidc: %w", err)
		}
		s.seen.Add(sum, remembered{u, i, end}, good)
		return u, nil, nil
	}
	return nil, nil, nil
}

// issuerOf reads who a token says has issued it; nothing is checked yet.
func issuerOf(token string) (string, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", false
	}
	var c struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(payload, &c) != nil {
		return "", false
	}
	if c.Issuer == "accounts.google.com" { // as Google writes it sometimes
		return "https://accounts.google.com", true
	}
	return c.Issuer, true
}

// issuer of tokens.
type issuer struct {
	url    string
	spec   *apiserver.JWTAuthenticator
	mapper authenticationcel.CELMapper
	keys   *keys
	others siblings // whose tokens hold distributed claims
	parser *jwt.Parser
	now    func() time.Time
}

func newIssuer(j *apiserver.JWTAuthenticator, c Config, log *slog.Logger, m *metrics.Metrics) (*issuer, error) {
	mapper, bad := validation.CompileAndValidateJWTAuthenticator(c.Compiler, *j, c.Disallowed)
	if len(bad) > 0 {
		return nil, field.ErrorList(bad).ToAggregate()
	}
	k, err := newKeys(&j.Issuer, m.Issuer(j.Issuer.URL), log.With("issuer", j.Issuer.URL))
	if err != nil {
		return nil, err
	}
	return &issuer{
		url: j.Issuer.URL, spec: j, mapper: mapper, keys: k, now: c.Now,
		parser: jwt.NewParser(jwt.WithValidMethods(c.Algorithms), jwt.WithoutClaimsValidation()),
	}, nil
}

// skew is how far ahead an issuer's clock may be.
const skew = 5 * time.Minute

// authenticate a token of this issuer and say until when it is good.
func (i *issuer) authenticate(ctx context.Context, token string) (*request.User, time.Time, error) {
	c, end, err := i.check(ctx, i.keys, token)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("verify token: %w", err)
	}
	if groups := i.spec.ClaimMappings.Groups.Claim; groups != "" {
		until, err := i.expand(ctx, c, groups)
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("could not expand distributed claims: %w", err)
		}
		if !until.IsZero() && until.Before(end) {
			end = until
		}
	}
	u, err := i.user(ctx, c)
	return u, end, err
}

// check that a token is signed with a key of those, is good now, and is meant for a
// client that we know. It is good until end.
func (i *issuer) check(ctx context.Context, k *keys, token string) (c claims, end time.Time, err error) {
	m, err := i.verify(ctx, k, token)
	if err != nil {
		return nil, end, err
	}
	now := i.now()
	switch e, err := m.GetExpirationTime(); {
	case err != nil:
		return nil, end, err
	case e == nil:
		return nil, end, errors.New("the token is expired: it does not say until when it is good")
	case e.Before(now):
		return nil, end, fmt.Errorf("token is expired (Token Expiry: %v)", e.Time)
	default:
		end = e.Time
	}
	if from, err := m.GetNotBefore(); err != nil || from != nil && now.Add(skew).Before(from.Time) {
		return nil, end, errors.New("the token is not good yet")
	}
	auds, err := m.GetAudience()
	if err != nil || !slices.ContainsFunc(auds, func(a string) bool { return slices.Contains(i.spec.Issuer.Audiences, a) }) {
		return nil, end, fmt.Errorf("expected audience in %q got %q", i.spec.Issuer.Audiences, auds)
	}
	_, err = claims(m).sources()
	return claims(m), end, err
}

// verify the signature. A token whose key is not known makes us ask the issuer.
func (i *issuer) verify(ctx context.Context, k *keys, token string) (jwt.MapClaims, error) {
	try := func(fresh bool) (jwt.MapClaims, error) {
		c := jwt.MapClaims{}
		_, err := i.parser.ParseWithClaims(token, c, func(t *jwt.Token) (any, error) {
			if _, ok := t.Header["crit"]; ok {
				return nil, errors.New("the token's header has critical parts that nobody understands")
			}
			kid, _ := t.Header["kid"].(string)
			return k.find(ctx, kid, t.Method.Alg(), fresh)
		})
		return c, err
	}
	c, err := try(false)
	if errors.Is(err, jwt.ErrTokenSignatureInvalid) || errors.Is(err, errNoKey) {
		c, err = try(true)
	}
	return c, err
}
