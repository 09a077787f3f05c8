package oidc

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	"k8s.io/apiserver/pkg/apis/apiserver"
	certutil "k8s.io/client-go/util/cert"

	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
)

// keys of an issuer, fetched when they are needed.
type keys struct {
	issuer, discovery string // URLs
	ca                string // PEM; "" = the roots of this machine
	client            *http.Client
	log               *slog.Logger
	metrics           *metrics.Issuer // nil = nobody reads them

	mu     sync.Mutex
	jwks   string // URL, "" = not known yet
	have   []webKey
	failed error // of the last time

	fetching singleflight.Group
	// limit of how often tokens, which anybody can make up, send us to the issuer
	limit *rate.Limiter
}

// errNoKey says that no key of the issuer can have signed a token.
var errNoKey = errors.New("the issuer has no key by which the token could be signed")

// within is how long an issuer may take.
const within = 30 * time.Second

func newKeys(i *apiserver.Issuer, m *metrics.Issuer, log *slog.Logger) (*keys, error) {
	k := &keys{
		issuer: i.URL, discovery: i.DiscoveryURL, ca: i.CertificateAuthority, log: log, metrics: m,
		limit: newLimit(),
	}
	if k.discovery == "" {
		k.discovery = wellKnown(i.URL)
	}
	if i.EgressSelectorType != "" {
		return nil, fmt.Errorf("issuer.egressSelectorType %q: there is no egress selector here; leave the field out", i.EgressSelectorType)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if k.ca != "" {
		roots, err := certutil.NewPoolFromBytes([]byte(k.ca))
		if err != nil {
			return nil, fmt.Errorf("issuer.certificateAuthority: %w", err)
		}
		config.RootCAs = roots
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = config
	k.client = &http.Client{Transport: t, Timeout: within}
	return k, nil
}

// sibling are the keys of another issuer, which is reached by the same client. Its
// configuration is where OpenID Connect Discovery says.
func (k *keys) sibling(issuer string) *keys {
	if issuer == k.issuer {
		return k
	}
	return &keys{
		issuer: issuer, discovery: wellKnown(issuer), ca: k.ca, client: k.client, log: k.log.With("issuer", issuer),
		limit: newLimit(),
	}
}

func wellKnown(issuer string) string {
	return strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
}

func newLimit() *rate.Limiter { return rate.NewLimiter(rate.Every(5*time.Second), 10) }

// same says that two are of the same issuer, reached in the same way.
func (k *keys) same(o *keys) bool {
	return k.issuer == o.issuer && k.discovery == o.discovery && k.ca == o.ca
}

// find the keys that may have signed a token. They are fetched if there are none
// yet, or if fresh ones are wanted.
func (k *keys) find(ctx context.Context, kid, alg string, fresh bool) (any, error) {
	k.mu.Lock()
	have := k.have
	k.mu.Unlock()
	if fresh || have == nil {
		var err error
		if have, err = k.fetch(ctx); err != nil {
			return nil, err
		}
	}
	var fit jwt.VerificationKeySet
	for _, one := range have {
		if (kid == "" || one.id == kid) && (one.alg == "" || one.alg == alg) {
			fit.Keys = append(fit.Keys, one.public)
		}
	}
	if len(fit.Keys) == 0 {
		return nil, errNoKey
	}
	return fit, nil
}

// fetch the keys anew. Those who want them at the same time get the same; who
// comes too often gets what there is.
func (k *keys) fetch(ctx context.Context) ([]webKey, error) {
	done := k.fetching.DoChan("", func() (any, error) {
		k.mu.Lock()
		have, failed := k.have, k.failed
		k.mu.Unlock()
		if !k.limit.Allow() {
			if have == nil {
				return nil, failed
			}
			return have, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within) // it is not for one caller alone
		defer cancel()
		fresh, err := k.fresh(ctx)
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.failed = err; err != nil {
			k.jwks = "" // perhaps it has moved
			k.log.Warn("the issuer of tokens could not be asked for its keys", "err", err)
			return nil, err
		}
		k.have = fresh
		return fresh, nil
	})
	select {
	case r := <-done:
		all, _ := r.Val.([]webKey)
		return all, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fresh asks the issuer where its keys are, unless that is known, and for the keys.
func (k *keys) fresh(ctx context.Context) ([]webKey, error) {
	k.mu.Lock()
	from := k.jwks
	k.mu.Unlock()
	if from == "" {
		var doc struct {
			Issuer string `json:"issuer"`
			JWKS   string `json:"jwks_uri"`
		}
		if _, err := k.get(ctx, k.discovery, &doc); err != nil {
			return nil, err
		}
		if doc.Issuer != k.issuer {
			return nil, fmt.Errorf("%s is about the issuer %q, not %q", k.discovery, doc.Issuer, k.issuer)
		}
		if u, err := url.Parse(doc.JWKS); err != nil || u.Host == "" {
			return nil, fmt.Errorf("%s has no jwks_uri that could be used: %q", k.discovery, doc.JWKS)
		}
		from = doc.JWKS
		k.mu.Lock()
		k.jwks = from
		k.mu.Unlock()
	}
	var set struct {
		Keys []jsonKey `json:"keys"`
	}
	text, err := k.get(ctx, from, &set)
	k.metrics.Fetched(text, err)
	if err != nil {
		return nil, err
	}
	all := []webKey{}
	for _, j := range set.Keys {
		if one, err := j.key(); err == nil {
			all = append(all, one)
		} else if !errors.Is(err, errOtherUse) {
			k.log.Warn("a key of the issuer is passed over", "kid", j.ID, "err", err)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no keys that could be used", from)
	}
	return all, nil
}

// get a JSON document, and return its text, too.
func (k *keys) get(ctx context.Context, from string, into any) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	text, status, err := k.ask(r)
	switch {
	case err != nil:
		return nil, err
	case status.code != http.StatusOK:
		return nil, fmt.Errorf("%s: %s", from, status.text)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return nil, fmt.Errorf("%s: no JSON: %w", from, err)
	}
	return text, nil
}

// status of an answer: 200, "200 OK".
type status struct {
	code int
	text string
}

// most is how much an answer may hold, in bytes.
const most = 1 << 20

// ask and read what is answered, whatever its status.
func (k *keys) ask(r *http.Request) ([]byte, status, error) {
	answer, err := k.client.Do(r)
	if err != nil {
		return nil, status{}, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, most+1))
	if err == nil && len(text) > most {
		err = fmt.Errorf("more than %d bytes", most)
	}
	if err != nil {
		return nil, status{}, fmt.Errorf("%s: %w", r.URL.Redacted(), err)
	}
	return text, status{answer.StatusCode, answer.Status}, nil
}
