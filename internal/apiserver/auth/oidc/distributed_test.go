package oidc

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"k8s.io/apiserver/pkg/apis/apiserver"
)

// TestDistributedClaims: groups that a token says are elsewhere are fetched from
// there with the token for it, and believed if their issuer has signed them.
func TestDistributedClaims(t *testing.T) {
	f, other := newFake(t), newFake(t)
	names := map[string]any{"groups": "src"}
	sources := func(source map[string]any) map[string]any { return map[string]any{"src": source} }
	endpoint := sources(map[string]any{"endpoint": f.server.URL + "/groups", "access_token": "secret"})
	signed := func(by *fake, change map[string]any) string {
		return by.token(jwt.SigningMethodES256, "p256", change)
	}
	two := map[string]any{"groups": []string{"a", "b"}}
	const expand = "oidc: could not expand distributed claims: "
	for _, c := range []struct {
		name     string
		claims   map[string]any
		answer   string // of the endpoint
		code     int
		want     []string
		bad      string
		notAsked bool
	}{
		{name: "the same issuer", answer: signed(f, two), want: []string{"g:a", "g:b"}},
		{name: "one group", answer: signed(f, map[string]any{"groups": "a"}), want: []string{"g:a"}},
		{name: "another issuer", answer: signed(other, two), want: []string{"g:a", "g:b"}},
		{name: "a status that is none of 200", answer: signed(f, two), code: 203, want: []string{"g:a", "g:b"}},
		{name: "they are in the token", claims: map[string]any{"groups": "mine"}, want: []string{"g:mine"}, notAsked: true},
		{name: "other claims are elsewhere", claims: map[string]any{"_claim_names": map[string]any{"roles": "src"}}, notAsked: true},
		{name: "they are in a token within", claims: map[string]any{"_claim_sources": sources(map[string]any{"JWT": "x.y.z"})}, notAsked: true},
		{name: "without a token to show", claims: map[string]any{"_claim_sources": sources(map[string]any{"endpoint": f.server.URL + "/open"})}, answer: signed(f, two), want: []string{"g:a", "g:b"}},
		{name: "a source that is missing", claims: map[string]any{"_claim_names": map[string]any{"groups": "none"}}, bad: "oidc: verify token: oidc: source does not exist", notAsked: true},
		{name: "no sources", claims: map[string]any{"_claim_sources": nil}, bad: "oidc: verify token: oidc: source does not exist", notAsked: true},
		{name: "no name of a source", claims: map[string]any{"_claim_names": map[string]any{"groups": ""}}, bad: "oidc: verify token: oidc: failed to obtain source from claim name", notAsked: true},
		{name: "names that are none", claims: map[string]any{"_claim_names": "src"}, bad: "oidc: verify token: oidc: failed to unmarshal claims", notAsked: true},
		{name: "the endpoint fails", code: 500, bad: expand + `while getting distributed claim "groups": error while getting distributed claim JWT: 500 Internal Server Error`},
		{name: "no token", answer: "<html>", bad: expand + "getting untrusted issuer from endpoint " + f.server.URL + `/groups failed for claim "groups"`},
		{name: "no end", answer: strings.Repeat("x", most+1), bad: "more than"},
		{name: "expired", answer: signed(f, map[string]any{"groups": "a", "exp": time.Now().Add(-time.Minute).Unix()}), bad: expand + "verify distributed claim token: token is expired (Token Expiry: "},
		{name: "for others", answer: signed(f, map[string]any{"groups": "a", "aud": "vault"}), bad: expand + `verify distributed claim token: expected audience in ["client"] got ["vault"]`},
		{name: "without the claim", answer: signed(f, nil), bad: expand + `jwt returned by distributed claim endpoint "` + f.server.URL + `/groups" did not contain claim: groups`},
		{name: "a key of nobody", answer: f.token(jwt.SigningMethodES256, "stranger", two), bad: expand + "verify distributed claim token: "},
		{name: "a key of somebody else", answer: signed(other, map[string]any{"iss": f.server.URL, "groups": "a"}), bad: expand + "verify distributed claim token: "},
		{name: "an issuer that is nowhere", answer: signed(f, map[string]any{"iss": "https://127.0.0.1:1", "groups": "a"}), bad: expand + "verify distributed claim token: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := 0
			f.on(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/groups" && r.URL.Path != "/open" {
					return false
				}
				asked++
				if got := r.Header.Get("Authorization"); r.URL.Path == "/groups" && got != "Bearer secret" || r.URL.Path == "/open" && got != "" {
					t.Errorf("shown at %s: %q", r.URL.Path, got)
				}
				if c.code != 0 {
					w.WriteHeader(c.code)
				}
				w.Write([]byte(c.answer))
				return true
			})
			all := map[string]any{"_claim_names": names, "_claim_sources": endpoint}
			for name, v := range c.claims {
				all[name] = v
			}
			prefix := "g:"
			s := f.issuers(f.spec(func(j *apiserver.JWTAuthenticator) {
				j.ClaimMappings.Groups = apiserver.PrefixedClaimOrExpression{Claim: "groups", Prefix: &prefix}
			}))
			u, _, err := s.AuthenticateToken(context.Background(), signed(f, all), nil)
			switch {
			case c.bad != "" && (err == nil || !strings.Contains(err.Error(), c.bad)):
				t.Errorf("got %+v, %v; want %s", u, err, c.bad)
			case err != nil && strings.Contains(err.Error(), "secret"):
				t.Errorf("the error tells the token: %v", err)
			case c.bad == "" && (err != nil || !slices.Equal(u.Groups, c.want)):
				t.Errorf("got %+v, %v", u, err)
			}
			if asked > 1 || (asked == 0) != c.notAsked {
				t.Errorf("the endpoint was asked %d times", asked)
			}
		})
	}
}

// TestDistributedClaimsAreRemembered: as long as the token is, and no longer than the
// claim is good; where no groups are wanted, nobody is asked.
func TestDistributedClaimsAreRemembered(t *testing.T) {
	f := newFake(t)
	now := time.Now()
	asked := 0
	f.on(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/groups" {
			return false
		}
		asked++
		w.Write([]byte(f.token(jwt.SigningMethodES256, "p256", map[string]any{"groups": "a", "exp": now.Add(time.Second).Unix()})))
		return true
	})
	token := f.token(jwt.SigningMethodES256, "p256", map[string]any{
		"_claim_names": map[string]any{"groups": "s"}, "_claim_sources": map[string]any{"s": map[string]any{"endpoint": f.server.URL + "/groups"}},
	})
	if _, _, err := f.issuers(f.spec()).AuthenticateToken(context.Background(), token, nil); err != nil || asked != 0 {
		t.Errorf("no groups wanted: asked %d times, %v", asked, err)
	}
	s := f.issuers(f.spec(func(j *apiserver.JWTAuthenticator) {
		prefix := ""
		j.ClaimMappings.Groups = apiserver.PrefixedClaimOrExpression{Claim: "groups", Prefix: &prefix}
	}))
	for range 2 {
		if u, _, err := s.AuthenticateToken(context.Background(), token, nil); err != nil || !u.InGroup("a") || asked != 1 {
			t.Errorf("%+v, %v, asked %d times", u, err, asked)
		}
	}
	for _, i := range *s.now.Load() {
		i.now = func() time.Time { return now.Add(5 * time.Second) }
	}
	if _, _, err := s.AuthenticateToken(context.Background(), token, nil); err == nil || !strings.Contains(err.Error(), "expired") || asked != 2 {
		t.Errorf("once the claim has ended: %v, asked %d times", err, asked)
	}
}
