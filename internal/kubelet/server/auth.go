package server

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"

	"github.com/proa-dev/proa/internal/client"
)

// How long answers of the API server hold.
const (
	holdAllowed = 5 * time.Minute
	holdDenied  = 30 * time.Second
	holdToken   = 2 * time.Minute
	maxHeld     = 1000
)

type authorizer struct {
	tokens  client.Client[*authv1.TokenReview]
	reviews client.Client[*authzv1.SubjectAccessReview]
	node    string

	mu    sync.Mutex
	users map[[32]byte]held[authv1.UserInfo]
	may   map[string]held[string]
}

type held[T any] struct {
	value T
	until time.Time
}

func newAuthorizer(conn client.Conn, node string) *authorizer {
	return &authorizer{
		tokens: client.For[*authv1.TokenReview](conn), reviews: client.For[*authzv1.SubjectAccessReview](conn), node: node,
		users: map[[32]byte]held[authv1.UserInfo]{}, may: map[string]held[string]{},
	}
}

// authenticated lets requests through of those who are known and may.
func (s *server) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, ok, err := s.user(r)
		if err != nil || !ok {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		denied, err := s.may.check(r.Context(), user, verb(r.Method), subresources(r.URL.Path))
		if err != nil {
			http.Error(w, fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=nodes): %v", user.Username, verb(r.Method), err), http.StatusInternalServerError)
			return
		}
		if denied != "" {
			http.Error(w, denied, http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *server) user(r *http.Request) (authv1.UserInfo, bool, error) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && s.ClientCAs != nil {
		certs := r.TLS.PeerCertificates
		o := x509.VerifyOptions{Roots: s.ClientCAs(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, Intermediates: x509.NewCertPool()}
		for _, c := range certs[1:] {
			o.Intermediates.AddCert(c)
		}
		if _, err := certs[0].Verify(o); err == nil {
			return authv1.UserInfo{Username: certs[0].Subject.CommonName, Groups: append(certs[0].Subject.Organization, "system:authenticated")}, true, nil
		}
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" {
		return authv1.UserInfo{}, false, nil
	}
	return s.may.review(r.Context(), token)
}

func (a *authorizer) review(ctx context.Context, token string) (authv1.UserInfo, bool, error) {
	key := sha256.Sum256([]byte(token))
	a.mu.Lock()
	h, ok := a.users[key]
	a.mu.Unlock()
	if ok && time.Now().Before(h.until) {
		return h.value, true, nil
	}
	t, err := a.tokens.Create(ctx, &authv1.TokenReview{Spec: authv1.TokenReviewSpec{Token: token}})
	if err != nil || !t.Status.Authenticated {
		return authv1.UserInfo{}, false, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.users) > maxHeld {
		clear(a.users)
	}
	a.users[key] = held[authv1.UserInfo]{t.Status.User, time.Now().Add(holdToken)}
	return t.Status.User, true, nil
}

func verb(method string) string {
	switch method {
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	}
	return "get"
}

// subresources of the node, any of which a path needs (KEP-2862).
func subresources(path string) []string {
	is := func(root string) bool { return path == root || strings.HasPrefix(path, root+"/") }
	switch {
	case is("/stats"):
		return []string{"stats"}
	case is("/metrics"):
		return []string{"metrics"}
	case is("/logs"):
		return []string{"log"}
	case is("/pods"), is("/runningpods"):
		return []string{"pods", "proxy"}
	case is("/healthz"):
		return []string{"healthz", "proxy"}
	case is("/configz"):
		return []string{"configz", "proxy"}
	}
	return []string{"proxy"}
}

// check what the API server says. denied is "" or why not.
func (a *authorizer) check(ctx context.Context, u authv1.UserInfo, verb string, subs []string) (denied string, err error) {
	for _, sub := range subs {
		if denied, err = a.one(ctx, u, verb, sub); err != nil || denied == "" {
			return denied, err
		}
	}
	return denied, nil
}

func (a *authorizer) one(ctx context.Context, u authv1.UserInfo, verb, sub string) (string, error) {
	key := fmt.Sprintf("%q %q %s %s", u.Username, u.Groups, verb, sub)
	a.mu.Lock()
	h, ok := a.may[key]
	a.mu.Unlock()
	if ok && time.Now().Before(h.until) {
		return h.value, nil
	}
	r := &authzv1.SubjectAccessReview{Spec: authzv1.SubjectAccessReviewSpec{
		User: u.Username, UID: u.UID, Groups: u.Groups,
		ResourceAttributes: &authzv1.ResourceAttributes{Verb: verb, Version: "v1", Resource: "nodes", Subresource: sub, Name: a.node},
	}}
	for k, v := range u.Extra {
		if r.Spec.Extra == nil {
			r.Spec.Extra = map[string]authzv1.ExtraValue{}
		}
		r.Spec.Extra[k] = authzv1.ExtraValue(v)
	}
	r, err := a.reviews.Create(ctx, r)
	if err != nil {
		return "", err
	}
	h = held[string]{"", time.Now().Add(holdAllowed)}
	if !r.Status.Allowed {
		h = held[string]{fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=[%s])\n", u.Username, verb, sub), time.Now().Add(holdDenied)}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.may) > maxHeld {
		clear(a.may)
	}
	a.may[key] = h
	return h.value, nil
}
