package oidc

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"k8s.io/apiserver/pkg/apis/apiserver"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

func TestTokens(t *testing.T) {
	f := newFake(t)
	s := f.issuers(f.spec())
	hour := func(n time.Duration) int64 { return time.Now().Add(n).Unix() }
	for _, c := range []struct {
		name, token string
		bad         string // part of the error, "" = it is good
	}{
		{"RS256", f.token(jwt.SigningMethodRS256, "rsa", nil), ""},
		{"RS512", f.token(jwt.SigningMethodRS512, "rsa", nil), ""},
		{"PS256", f.token(jwt.SigningMethodPS256, "rsa", nil), ""},
		{"ES256", f.token(jwt.SigningMethodES256, "p256", nil), ""},
		{"ES384", f.token(jwt.SigningMethodES384, "p384", nil), ""},
		{"ES512", f.token(jwt.SigningMethodES512, "p521", nil), ""},
		{"no kid", f.token(jwt.SigningMethodRS256, "", nil), ""},
		{"one of the audiences", f.token(jwt.SigningMethodES256, "p256", map[string]any{"aud": []string{"other", "client"}}), ""},
		{"issued by a clock ahead of ours", f.token(jwt.SigningMethodES256, "p256", map[string]any{"nbf": hour(4 * time.Minute)}), ""},
		{"not good yet", f.token(jwt.SigningMethodES256, "p256", map[string]any{"nbf": hour(10 * time.Minute)}), "not good yet"},
		{"expired", f.token(jwt.SigningMethodES256, "p256", map[string]any{"exp": hour(-time.Minute)}), "expired"},
		{"without an end", f.token(jwt.SigningMethodES256, "p256", map[string]any{"exp": nil}), "expired"},
		{"other audience", f.token(jwt.SigningMethodES256, "p256", map[string]any{"aud": "vault"}), `expected audience in ["client"] got ["vault"]`},
		{"no audience", f.token(jwt.SigningMethodES256, "p256", map[string]any{"aud": nil}), "expected audience"},
		{"a key of somebody else", f.token(jwt.SigningMethodES256, "stranger", nil), "no key"},
		{"no user", f.token(jwt.SigningMethodES256, "p256", map[string]any{"sub": nil}), "claim not present"},
		{"an empty user", f.token(jwt.SigningMethodES256, "p256", map[string]any{"sub": ""}), "empty"},
		{"a user that is no text", f.token(jwt.SigningMethodES256, "p256", map[string]any{"sub": 7}), "not a string"},
	} {
		u, _, err := s.AuthenticateToken(context.Background(), c.token, nil)
		switch {
		case c.bad == "" && (err != nil || u == nil || u.Name != "ann"):
			t.Errorf("%s: got %+v, %v", c.name, u, err)
		case c.bad != "" && (err == nil || !strings.Contains(err.Error(), c.bad)):
			t.Errorf("%s: got %+v, %v", c.name, u, err)
		}
	}
}

func TestForgedTokens(t *testing.T) {
	f := newFake(t)
	s := f.issuers(f.spec())
	good := f.token(jwt.SigningMethodES256, "p256", nil)
	if _, _, err := s.AuthenticateToken(context.Background(), good, nil); err != nil {
		t.Fatal(err)
	}
	// signed with what everybody knows: the public key, as if it were a secret
	secret := jwt.NewWithClaims(jwt.SigningMethodHS256, f.claims(nil))
	secret.Header["kid"] = "rsa"
	hmac, _ := secret.SignedString([]byte("secret"))
	none, _ := jwt.NewWithClaims(jwt.SigningMethodNone, f.claims(nil)).SignedString(jwt.UnsafeAllowNoneSignatureType)
	critical := jwt.NewWithClaims(jwt.SigningMethodES256, f.claims(nil))
	critical.Header["kid"], critical.Header["crit"] = "p256", []string{"exp"}
	crit, _ := critical.SignedString(f.keys["p256"])
	parts := strings.Split(good, ".")
	other := strings.Split(f.token(jwt.SigningMethodES256, "p256", map[string]any{"sub": "root"}), ".")
	for name, token := range map[string]string{
		"hmac": hmac, "none": none, "crit": crit, "another's signature": parts[0] + "." + other[1] + "." + parts[2], "no signature": parts[0] + "." + parts[1] + ".",
	} {
		if u, _, err := s.AuthenticateToken(context.Background(), token, nil); err == nil {
			t.Errorf("%s: %+v", name, u)
		}
	}
	for _, token := range []string{"", "x", "a.b.c", good + ".x", "{}", f.token(jwt.SigningMethodES256, "p256", map[string]any{"iss": "https://other"})} {
		if u, _, err := s.AuthenticateToken(context.Background(), token, nil); u != nil || err != nil {
			t.Errorf("%q is of another sort: got %+v, %v", token, u, err)
		}
	}
}

func TestKeysAreFetchedWhenNeeded(t *testing.T) {
	f := newFake(t)
	s := f.issuers(f.spec())
	good := func(kid string) error {
		_, _, err := s.AuthenticateToken(context.Background(), f.token(jwt.SigningMethodES256, kid, map[string]any{"jti": kid + time.Now().String()}), nil)
		return err
	}
	if n := f.asked["/keys"].Load(); n != 0 {
		t.Errorf("nobody has shown a token, and the keys were fetched %d times", n)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := good("p256"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := f.asked["/keys"].Load(); n > 2 { // those who come while it is under way share it
		t.Errorf("20 tokens at once: the keys were fetched %d times", n)
	}
	f.publish("new")
	if err := good("new"); err != nil {
		t.Errorf("after the issuer has changed its keys: %v", err)
	}
	if err := good("p256"); err == nil {
		t.Error("a key that the issuer has taken back is good")
	}
	before := f.asked["/keys"].Load()
	for range 100 {
		good("stranger") //nolint:errcheck // it fails
	}
	if n := f.asked["/keys"].Load() - before; n > 10 {
		t.Errorf("100 made-up tokens: the issuer was asked %d times", n)
	}
	if n := f.asked["/.well-known/openid-configuration"].Load(); n != 1 {
		t.Errorf("the issuer was asked %d times where its keys are", n)
	}
}

func TestIssuerThatFails(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"rubbish": func(w http.ResponseWriter, _ *http.Request) bool { w.Write([]byte("<html>")); return true },
		"nothing": func(w http.ResponseWriter, _ *http.Request) bool { http.Error(w, "down", 503); return true },
		"another issuer": func(w http.ResponseWriter, _ *http.Request) bool {
			w.Write([]byte(`{"issuer":"https://x","jwks_uri":"https://x/keys"}`))
			return true
		},
		"no keys": func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/keys" {
				w.Write([]byte(`{"keys":[]}`))
			}
			return r.URL.Path == "/keys"
		},
		"no end": func(w http.ResponseWriter, _ *http.Request) bool {
			for range 20 {
				w.Write(make([]byte, 100<<10))
			}
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			s := f.issuers(f.spec())
			f.on(answer)
			token := f.token(jwt.SigningMethodES256, "p256", nil)
			if _, _, err := s.AuthenticateToken(context.Background(), token, nil); err == nil {
				t.Fatal("a token of an issuer that cannot be asked is good")
			}
			f.on(nil)
			if u, _, err := s.AuthenticateToken(context.Background(), token, nil); err != nil || u == nil {
				t.Errorf("once the issuer answers: %+v, %v", u, err)
			}
		})
	}
	t.Run("hangs", func(t *testing.T) {
		f := newFake(t)
		s := f.issuers(f.spec())
		release := make(chan struct{})
		f.on(func(http.ResponseWriter, *http.Request) bool { <-release; return false })
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		token := f.token(jwt.SigningMethodES256, "p256", nil)
		go func() {
			_, _, err := s.AuthenticateToken(ctx, token, nil)
			done <- err
		}()
		cancel() // the client goes away
		if err := <-done; err == nil {
			t.Error("no error")
		}
		close(release)
		if _, _, err := s.AuthenticateToken(context.Background(), token, nil); err != nil {
			t.Errorf("the next client: %v", err)
		}
	})
}

func TestDiscoveryURL(t *testing.T) {
	f := newFake(t)
	s := f.issuers(f.spec(func(j *apiserver.JWTAuthenticator) { j.Issuer.DiscoveryURL = f.server.URL + "/elsewhere" }))
	if _, _, err := s.AuthenticateToken(context.Background(), f.token(jwt.SigningMethodES256, "p256", nil), nil); err != nil {
		t.Fatal(err)
	}
	if f.asked["/elsewhere"].Load() != 1 || f.asked["/.well-known/openid-configuration"].Load() != 0 {
		t.Error("asked at the usual place")
	}
}

func TestExchange(t *testing.T) {
	f := newFake(t)
	s := f.issuers(f.spec())
	token := f.token(jwt.SigningMethodES256, "p256", map[string]any{"role": "ops"})
	who := func() string {
		u, _, err := s.AuthenticateToken(context.Background(), token, nil)
		if err != nil || u == nil {
			return ""
		}
		return u.Name
	}
	if who() != "ann" {
		t.Fatal(who())
	}
	set := func(specs ...apiserver.JWTAuthenticator) {
		t.Helper()
		if err := s.Set(Config{JWT: specs, Compiler: authenticationcel.NewDefaultCompiler()}); err != nil {
			t.Fatal(err)
		}
	}
	set(f.spec(func(j *apiserver.JWTAuthenticator) { j.ClaimMappings.Username.Claim = "role" }))
	if who() != "ops" {
		t.Errorf("with another mapping: %q", who())
	}
	if n := f.asked["/keys"].Load(); n != 1 {
		t.Errorf("an issuer that stays was asked for its keys %d times", n)
	}
	set()
	if who() != "" {
		t.Error("an issuer that is gone is believed")
	}
	err := s.Set(Config{JWT: []apiserver.JWTAuthenticator{f.spec()}, Disallowed: []string{f.server.URL}, Compiler: authenticationcel.NewDefaultCompiler()})
	if err == nil {
		t.Error("somebody else may be our own issuer")
	}
}

func TestClaims(t *testing.T) {
	f := newFake(t)
	text := func(s string) *string { return &s }
	type spec = apiserver.JWTAuthenticator
	expressions := func(j *spec) {
		j.ClaimMappings.Username = apiserver.PrefixedClaimOrExpression{Expression: `"who:" + claims.sub`}
		j.ClaimMappings.Groups = apiserver.PrefixedClaimOrExpression{Expression: `claims.?roles.orValue("")`}
		j.ClaimMappings.UID = apiserver.ClaimOrExpression{Expression: `claims.?n.hasValue() ? string(int(claims.n)) : ""`}
		j.ClaimMappings.Extra = []apiserver.ExtraMapping{
			{Key: "example.org/team", ValueExpression: `claims.?example__dot__org__slash__team.orValue("")`},
			{Key: "example.org/deep", ValueExpression: `claims.?a__dot__b.c__dash__d.orValue([])`},
		}
	}
	for _, c := range []struct {
		name   string
		spec   func(*spec)
		claims map[string]any
		want   *request.User // nil = refused
		bad    string
	}{
		{"prefixes", func(j *spec) {
			j.ClaimMappings.Username.Prefix = text("oidc:")
			j.ClaimMappings.Groups = apiserver.PrefixedClaimOrExpression{Claim: "roles", Prefix: text("g:")}
			j.ClaimMappings.UID = apiserver.ClaimOrExpression{Claim: "oid"}
		}, map[string]any{"roles": []string{"a", "b"}, "oid": "7", "jti": "j"},
			&request.User{Name: "oidc:ann", UID: "7", Groups: []string{"g:a", "g:b"}, Extra: map[string][]string{"authentication.kubernetes.io/credential-id": {"JTI=j"}}}, ""},
		{"one group", func(j *spec) {
			j.ClaimMappings.Groups = apiserver.PrefixedClaimOrExpression{Claim: "roles", Prefix: text("")}
		}, map[string]any{"roles": "a"}, &request.User{Name: "ann", Groups: []string{"a"}}, ""},
		{"no groups", func(j *spec) {
			j.ClaimMappings.Groups = apiserver.PrefixedClaimOrExpression{Claim: "roles", Prefix: text("")}
		}, nil, &request.User{Name: "ann"}, ""},
		{"groups that are none", func(j *spec) {
			j.ClaimMappings.Groups = apiserver.PrefixedClaimOrExpression{Claim: "roles", Prefix: text("")}
		}, map[string]any{"roles": []any{"a", 1}}, nil, `parse groups claim "roles"`},
		{"email", func(j *spec) { j.ClaimMappings.Username.Claim = "email" }, map[string]any{"email": "a@b", "email_verified": true}, &request.User{Name: "a@b"}, ""},
		{"email of whom it may be", func(j *spec) { j.ClaimMappings.Username.Claim = "email" }, map[string]any{"email": "a@b"}, &request.User{Name: "a@b"}, ""},
		{"email not verified", func(j *spec) { j.ClaimMappings.Username.Claim = "email" }, map[string]any{"email": "a@b", "email_verified": false}, nil, "email not verified"},
		{"email verified by a word", func(j *spec) { j.ClaimMappings.Username.Claim = "email" }, map[string]any{"email": "a@b", "email_verified": "true"}, nil, "not a boolean"},
		{"required", func(j *spec) {
			j.ClaimValidationRules = []apiserver.ClaimValidationRule{{Claim: "hd", RequiredValue: "x.org"}}
		}, map[string]any{"hd": "x.org"}, &request.User{Name: "ann"}, ""},
		{"required, but another", func(j *spec) {
			j.ClaimValidationRules = []apiserver.ClaimValidationRule{{Claim: "hd", RequiredValue: "x.org"}}
		}, map[string]any{"hd": "y.org"}, nil, "required claim hd value does not match. Got = y.org, want = x.org"},
		{"required, but not there", func(j *spec) {
			j.ClaimValidationRules = []apiserver.ClaimValidationRule{{Claim: "hd", RequiredValue: "x.org"}}
		}, nil, nil, "required claim hd not present"},
		{"expressions", expressions, map[string]any{"roles": []string{"a", ""}, "n": 7, "example.org/team": "blue", "a.b": map[string]any{"c-d": []string{"x", "y"}}},
			&request.User{Name: "who:ann", UID: "7", Groups: []string{"a"}, Extra: map[string][]string{"example.org/team": {"blue"}, "example.org/deep": {"x", "y"}}}, ""},
		{"expressions about nothing", expressions, nil, &request.User{Name: "who:ann"}, ""},
		{"an expression that gives no texts", expressions, map[string]any{"roles": []any{1}}, nil, "must return a string or a list of strings"},
		{"an empty user by expression", func(j *spec) {
			j.ClaimMappings.Username = apiserver.PrefixedClaimOrExpression{Expression: "claims.nick"}
		}, map[string]any{"nick": ""}, nil, "empty username"},
		{"claim rule", func(j *spec) {
			j.ClaimValidationRules = []apiserver.ClaimValidationRule{{Expression: "claims.exp - claims.iat <= 3600", Message: "an hour at most"}}
		}, map[string]any{"iat": time.Now().Add(-time.Hour).Unix()}, nil, "failed: an hour at most"},
		{"user rule", func(j *spec) {
			j.UserValidationRules = []apiserver.UserValidationRule{{Expression: "!user.username.startsWith('system:')", Message: "reserved"}}
		}, map[string]any{"sub": "system:admin"}, nil, "failed: reserved"},
		{"user rule about groups and extra", func(j *spec) {
			expressions(j)
			j.UserValidationRules = []apiserver.UserValidationRule{{Expression: "user.groups.all(g, g != 'root') && 'example.org/team' in user.extra"}}
		}, map[string]any{"roles": []string{"a"}, "example.org/team": "blue"}, &request.User{Name: "who:ann", Groups: []string{"a"}, Extra: map[string][]string{"example.org/team": {"blue"}}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := f.issuers(f.spec(c.spec))
			u, _, err := s.AuthenticateToken(context.Background(), f.token(jwt.SigningMethodES256, "p256", c.claims), nil)
			if c.want == nil {
				if err == nil || !strings.Contains(err.Error(), c.bad) {
					t.Fatalf("got %+v, %v", u, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.want.Extra == nil {
				c.want.Extra = map[string][]string{}
			}
			if !reflect.DeepEqual(u, c.want) {
				t.Errorf("got %+v, want %+v", u, c.want)
			}
		})
	}
}
