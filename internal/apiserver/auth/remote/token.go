package remote

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/singleflight"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"

	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/auth/callout"
	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// Tokens asks a webhook about tokens that nobody here knows. It implements
// auth.TokenAuthenticator.
type Tokens struct {
	client    *callout.Client
	version   string
	audiences []string // of this API server
	ttl       time.Duration
	tally     *metrics.Tokens
	log       *slog.Logger

	secret [32]byte // tokens are remembered by a keyed hash
	seen   *cache.LRUExpireCache
	asking singleflight.Group
}

// TokenConfig of Tokens.
type TokenConfig struct {
	Client    *callout.Client
	Version   string        // of authentication.k8s.io: v1, v1beta1
	Audiences []string      // of this API server
	TTL       time.Duration // of answers; 0 = they are not remembered
	Log       *slog.Logger
	Metrics   *metrics.Metrics // nil = nobody reads them
}

// remembered is how many answers are kept.
const remembered = 8192

// NewTokens asks through a client.
func NewTokens(c TokenConfig) (*Tokens, error) {
	if err := known(c.Version); err != nil {
		return nil, err
	}
	t := &Tokens{client: c.Client, version: c.Version, audiences: c.Audiences, ttl: c.TTL, log: c.Log, tally: &metrics.Or(c.Metrics).Tokens, seen: cache.NewLRUExpireCache(remembered)}
	_, err := rand.Read(t.secret[:])
	return t, err
}

// verdict on a token; user nil = it is not good.
type verdict struct {
	user *request.User
	auds []string
}

// AuthenticateToken implements auth.TokenAuthenticator. Callers that ask about the
// same token at once share one call.
func (t *Tokens) AuthenticateToken(ctx context.Context, token string, audiences []string) (*request.User, []string, error) {
	start, key := time.Now(), t.key(token, audiences)
	if v, ok := t.seen.Get(key); ok {
		t.tally.Hit(start)
		return v.(verdict).user, v.(verdict).auds, nil
	}
	defer t.tally.Miss(start)()
	done := t.asking.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callout.Timeout) // it is not for one caller alone
		defer cancel()
		fetched := t.tally.Fetch()
		v, err := t.ask(ctx, token, audiences)
		fetched(err)
		if err == nil && t.ttl > 0 {
			t.seen.Add(key, v, t.ttl)
		}
		return v, err
	})
	select {
	case r := <-done:
		v, _ := r.Val.(verdict)
		return v.user, v.auds, r.Err
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

func (t *Tokens) key(token string, audiences []string) string {
	h := hmac.New(sha256.New, t.secret[:])
	json.NewEncoder(h).Encode([]any{token, audiences}) //nolint:errcheck // strings into a hash
	return string(h.Sum(nil))
}

type tokenReview struct{ authenticationv1.TokenReview }

func (r *tokenReview) got() metav1.TypeMeta { return r.TypeMeta }

func (t *Tokens) ask(ctx context.Context, token string, audiences []string) (verdict, error) {
	sent := authenticationv1.TokenReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/" + t.version, Kind: "TokenReview"},
		Spec:     authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences},
	}
	body, err := json.Marshal(&sent)
	if err != nil {
		return verdict{}, err
	}
	var review tokenReview
	answer, err := t.client.Post(ctx, body, nil)
	if err == nil {
		err = read(answer, sent.TypeMeta, &review)
	}
	if err != nil { // a mistake in the configuration, or an outage
		t.log.Error("the webhook that knows tokens could not be asked", "err", err)
		return verdict{}, err
	}
	s := review.Status
	got := s.Audiences
	if len(got) == 0 {
		got = t.audiences // an older webhook, whose tokens are for the API server
	}
	auds := auth.Common(audiences, got)
	switch {
	case len(auds) == 0 && len(audiences) > 0:
		return verdict{}, nil
	case !s.Authenticated && s.Error != "":
		return verdict{}, errors.New(s.Error)
	case !s.Authenticated:
		return verdict{}, nil
	}
	u := &request.User{Name: s.User.Username, UID: s.User.UID, Groups: s.User.Groups}
	for k, v := range s.User.Extra {
		if u.Extra == nil {
			u.Extra = map[string][]string{}
		}
		u.Extra[k] = v
	}
	return verdict{u, auds}, nil
}
