package auth

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

// Proxy is an authenticating proxy: it shows a certificate of its own, and says
// in headers for whom it asks (--requestheader-*).
type Proxy struct {
	Certificates *Certificates // trusts the authority of the proxies
	Names        []string      // common names that a proxy may have; none = any
	// Headers that name the user, the UID and the groups, and the prefixes of those
	// that hold extra values.
	UserHeaders, UIDHeaders, GroupHeaders, ExtraPrefixes []string
}

// NewProxy that is trusted by a certificate of roots, with the usual headers.
func NewProxy(roots func() *x509.CertPool, names ...string) *Proxy {
	return &Proxy{
		Certificates: NewCertificates(roots), Names: names,
		UserHeaders: []string{"X-Remote-User"}, UIDHeaders: []string{"X-Remote-Uid"},
		GroupHeaders: []string{"X-Remote-Group"}, ExtraPrefixes: []string{"X-Remote-Extra-"},
	}
}

// User that a proxy asks for: nil, nil when the request names nobody. The headers
// are taken out of the request.
func (p *Proxy) User(r *http.Request) (*request.User, error) {
	u := &request.User{Name: first(r.Header, p.UserHeaders)}
	if u.Name == "" {
		return nil, nil
	}
	chain := r.TLS.PeerCertificates
	if err := p.Certificates.Check(chain); err != nil {
		return nil, err
	}
	if cn := chain[0].Subject.CommonName; len(p.Names) > 0 && !slices.Contains(p.Names, cn) {
		return nil, fmt.Errorf("x509: subject with cn=%s is not in the allowed list", cn)
	}
	u.UID = first(r.Header, p.UIDHeaders)
	for _, name := range p.GroupHeaders {
		for _, g := range r.Header.Values(name) {
			if g != "" {
				u.Groups = append(u.Groups, g)
			}
		}
	}
	u.Extra = map[string][]string{}
	for _, prefix := range p.ExtraPrefixes {
		for name, values := range r.Header {
			if key, ok := cutPrefixFold(name, prefix); ok {
				key = extraKey(key)
				u.Extra[key] = append(u.Extra[key], values...)
				delete(r.Header, name)
			}
		}
	}
	for _, names := range [][]string{p.UserHeaders, p.UIDHeaders, p.GroupHeaders} {
		for _, name := range names {
			r.Header.Del(name)
		}
	}
	return u, nil
}

func first(h http.Header, names []string) string {
	for _, name := range names {
		if v := h.Get(name); v != "" {
			return v
		}
	}
	return ""
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):], true
	}
	return "", false
}

// extraKey of what follows the prefix of a header: lower case, and unescaped
// where it can be.
func extraKey(escaped string) string {
	escaped = strings.ToLower(escaped)
	if key, err := url.PathUnescape(escaped); err == nil {
		return key
	}
	return escaped
}
