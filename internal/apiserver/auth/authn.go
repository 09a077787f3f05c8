package auth

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/textproto"
	"strings"
	"unicode/utf8"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

// ErrBadToken is all that a client learns about a token that is not good.
var ErrBadToken = errors.New("invalid bearer token")

// TokenAuthenticator knows one sort of bearer token. It returns nil, nil for a
// token that is of another sort. audiences is what the token must be meant for;
// the answer names those of them that it is.
type TokenAuthenticator interface {
	AuthenticateToken(token string, audiences []string) (*request.User, []string, error)
}

// Chain asks for a client certificate first, then for a bearer token, and lets
// those who show neither in as system:anonymous, whom RBAC then lets see no more
// than health and version.
type Chain struct {
	Certificates *Certificates
	Tokens       []TokenAuthenticator
	Audiences    []string // of this API server
}

// Authenticate implements Authenticator.
func (c *Chain) Authenticate(r *http.Request) (*request.User, error) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && c.Certificates != nil {
		u, err := c.Certificates.User(r.TLS.PeerCertificates)
		if u != nil || err != nil {
			return u, err
		}
	}
	token, sent := bearerToken(r)
	if !sent {
		return &request.User{Name: request.Anonymous, Groups: []string{request.Unauthenticated}}, nil
	}
	u, _, err := c.Token(token, c.Audiences)
	return u, err
}

// Token asks every sort of token in turn; ErrBadToken if none knows it.
func (c *Chain) Token(token string, audiences []string) (*request.User, []string, error) {
	for _, t := range c.Tokens {
		u, auds, err := t.AuthenticateToken(token, audiences)
		if err != nil {
			return nil, nil, err
		}
		if u != nil {
			u.Groups = append(u.Groups, request.Authenticated)
			return u, auds, nil
		}
	}
	return nil, nil, ErrBadToken
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
