package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"unicode/utf8"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

// ErrBadToken is all that a client learns about a token that is not good.
var ErrBadToken = errors.New("invalid bearer token")

// TokenAuthenticator knows one sort of bearer token. It returns nil, nil for a
// token that is of another sort. audiences is what the token must be meant for;
// the answer names those of them that it is. The User may be shared: who changes
// it copies it.
type TokenAuthenticator interface {
	AuthenticateToken(ctx context.Context, token string, audiences []string) (*request.User, []string, error)
}

// Chain asks in turn for: the headers of an authenticating proxy, a client
// certificate, a bearer token. Whoever shows none of them comes in as
// system:anonymous, where that is allowed; RBAC then lets them see no more than
// health and version. Credentials that are bad are an error, unless there are
// good ones beside them.
type Chain struct {
	Proxies      []*Proxy
	Certificates *Certificates
	Tokens       []TokenAuthenticator
	Audiences    []string // of this API server
	Anonymous    Anonymous
}

// Anonymous says who may come without credentials; the zero value lets everybody.
type Anonymous struct {
	Off   bool
	Paths []string // to these alone; none = to all
}

func (a *Anonymous) allows(path string) bool {
	return !a.Off && (len(a.Paths) == 0 || slices.Contains(a.Paths, path))
}

// Authenticate implements Authenticator.
func (c *Chain) Authenticate(ctx context.Context, r *http.Request) (*request.User, error) {
	var failed []error
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		for _, p := range c.Proxies {
			u, err := p.User(r)
			if u != nil {
				return authenticated(u), nil
			}
			if err != nil {
				failed = append(failed, err)
			}
		}
		if c.Certificates != nil {
			u, err := c.Certificates.User(r.TLS.PeerCertificates)
			if u != nil {
				return authenticated(u), nil
			}
			if err != nil {
				failed = append(failed, err)
			}
		}
	}
	if token, sent := bearerToken(r); sent {
		u, _, err := c.Token(ctx, token, c.Audiences)
		if err == nil {
			return u, nil
		}
		failed = append(failed, err)
	}
	if len(failed) > 0 {
		return nil, utilerrors.NewAggregate(failed)
	}
	if c.Anonymous.allows(r.URL.Path) {
		return &request.User{Name: request.Anonymous, Groups: []string{request.Unauthenticated}}, nil
	}
	return nil, nil
}

// Token asks every sort of token in turn. ErrBadToken if none knows it; what
// those said that did, if none takes it.
func (c *Chain) Token(ctx context.Context, token string, audiences []string) (*request.User, []string, error) {
	var failed []error
	for _, t := range c.Tokens {
		u, auds, err := t.AuthenticateToken(ctx, token, audiences)
		if err != nil {
			failed = append(failed, err)
		} else if u != nil {
			return authenticated(u), auds, nil
		}
	}
	if len(failed) > 0 {
		return nil, nil, utilerrors.NewAggregate(failed)
	}
	return nil, nil, ErrBadToken
}

// authenticated is u in the group of all that are known.
func authenticated(u *request.User) *request.User {
	if u.Name == request.Anonymous || u.InGroup(request.Authenticated) || u.InGroup(request.Unauthenticated) {
		return u
	}
	out := *u
	out.Groups = append(slices.Clip(u.Groups), request.Authenticated)
	return &out
}

// ForAPI makes of a sort of token that knows no audiences one whose tokens are
// for this API server.
type ForAPI struct {
	TokenAuthenticator
	Audiences []string // of this API server
}

// AuthenticateToken implements TokenAuthenticator.
func (f ForAPI) AuthenticateToken(ctx context.Context, token string, audiences []string) (*request.User, []string, error) {
	both := Common(f.Audiences, audiences)
	if len(both) == 0 && len(audiences) > 0 {
		return nil, nil, nil
	}
	u, _, err := f.TokenAuthenticator.AuthenticateToken(ctx, token, audiences)
	return u, both, err
}

// Common are the audiences of a that are in b, too.
func Common(a, b []string) []string {
	var both []string
	for _, one := range a {
		if slices.Contains(b, one) {
			both = append(both, one)
		}
	}
	return both
}

const websocketToken = "base64url.bearer.authorization.k8s.io."

// bearerToken reads the Authorization header or, for browsers, which cannot set
// it on a websocket, the subprotocol that carries a token. The credential is
// taken out of the request, so that it cannot be proxied on or logged.
func bearerToken(r *http.Request) (string, bool) {
	if h := r.Header.Get("Authorization"); h != "" {
		scheme, token, _ := strings.Cut(strings.TrimSpace(h), " ")
		if token = strings.TrimSpace(token); strings.EqualFold(scheme, "bearer") && token != "" {
			r.Header.Del("Authorization")
			return token, true
		}
		return "", false
	}
	const header = "Sec-Websocket-Protocol"
	if len(r.Header[header]) == 0 || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return "", false
	}
	var token string
	var rest []string
	for _, line := range r.Header[textproto.CanonicalMIMEHeaderKey(header)] {
		for _, p := range strings.Split(line, ",") {
			p = strings.TrimSpace(p)
			enc, ok := strings.CutPrefix(p, websocketToken)
			if !ok || token != "" {
				rest = append(rest, p)
				continue
			}
			if b, err := base64.RawURLEncoding.DecodeString(enc); err == nil && utf8.Valid(b) {
				token = string(b)
			}
		}
	}
	if token == "" || len(rest) == 0 { // a server must select a protocol that was offered besides
		return "", false
	}
	r.Header.Set(header, strings.Join(rest, ","))
	return token, true
}
