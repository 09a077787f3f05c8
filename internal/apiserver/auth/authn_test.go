package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"math/big"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/apiserver/auth/metricstest"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// authority signs client certificates in tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return &authority{t, cert, key}
}

func (a *authority) pool() func() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return func() *x509.CertPool { return p }
}

func (a *authority) client(subject pkix.Name) *x509.Certificate {
	a.t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, a.key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return cert
}

// tokens that are known by a map.
type tokens map[string]string

func (m tokens) AuthenticateToken(_ context.Context, token string, audiences []string) (*request.User, []string, error) {
	switch name := m[token]; name {
	case "":
		return nil, nil, nil
	case "!":
		return nil, nil, errors.New("expired")
	default:
		return &request.User{Name: name}, audiences, nil
	}
}

func TestChain(t *testing.T) {
	ca, proxies := newAuthority(t), newAuthority(t)
	c := &Chain{
		Proxies: []*Proxy{NewProxy(proxies.pool(), "front")}, Certificates: NewCertificates(ca.pool()),
		Tokens: []TokenAuthenticator{tokens{"one": "a", "old": "!"}, tokens{"two": "b", "old": "c"}},
	}
	cert := func(a *authority, cn string) *x509.Certificate { return a.client(pkix.Name{CommonName: cn}) }
	for _, tc := range []struct {
		name    string
		cert    *x509.Certificate
		headers string
		want    string // "" = refused
	}{
		{"nothing", nil, "", request.Anonymous},
		{"a certificate", cert(ca, "ann"), "", "ann"},
		{"somebody else's certificate", cert(newAuthority(t), "ann"), "", ""},
		{"somebody else's certificate, and a good token", cert(newAuthority(t), "ann"), "Authorization: Bearer one", "a"},
		{"a certificate before a token", cert(ca, "ann"), "Authorization: Bearer one", "ann"},
		{"a token", nil, "Authorization: Bearer one", "a"},
		{"a token of the second sort", nil, "Authorization: Bearer two", "b"},
		{"a token that one sort refuses and another takes", nil, "Authorization: Bearer old", "c"},
		{"an unknown token", nil, "Authorization: Bearer three", ""},
		{"a proxy", cert(proxies, "front"), "X-Remote-User: bob", "bob"},
		{"a proxy for nobody", cert(proxies, "front"), "", ""}, // its certificate is no client's
		{"another proxy", cert(proxies, "back"), "X-Remote-User: bob", ""},
		{"no proxy at all", cert(ca, "ann"), "X-Remote-User: bob", "ann"},
		{"headers alone", nil, "X-Remote-User: bob", request.Anonymous},
	} {
		r := httptest.NewRequest("GET", "/api", nil)
		r.TLS = &tls.ConnectionState{}
		if tc.cert != nil {
			r.TLS.PeerCertificates = []*x509.Certificate{tc.cert}
		}
		if name, value, ok := strings.Cut(tc.headers, ": "); ok {
			r.Header.Set(name, value)
		}
		u, err := c.Authenticate(context.Background(), r)
		switch {
		case tc.want == "" && (u != nil || err == nil):
			t.Errorf("%s: %+v, %v", tc.name, u, err)
		case tc.want != "" && (err != nil || u == nil || u.Name != tc.want):
			t.Errorf("%s: %+v, %v", tc.name, u, err)
		case u != nil && u.InGroup(request.Authenticated) == (u.Name == request.Anonymous):
			t.Errorf("%s: in %v", tc.name, u.Groups)
		}
	}
	for path, want := range map[string]bool{"/livez": true, "/api": false, "/livez/etcd": false} {
		u, err := (&Chain{Anonymous: Anonymous{Paths: []string{"/livez"}}}).Authenticate(context.Background(), httptest.NewRequest("GET", path, nil))
		if err != nil || (u != nil) != want {
			t.Errorf("anonymous at %s: %+v, %v", path, u, err)
		}
	}
	if u, err := (&Chain{Anonymous: Anonymous{Off: true}}).Authenticate(context.Background(), httptest.NewRequest("GET", "/livez", nil)); u != nil || err != nil {
		t.Errorf("anonymous though nobody may be: %+v, %v", u, err)
	}
}

func TestProxyHeaders(t *testing.T) {
	ca := newAuthority(t)
	p := NewProxy(ca.pool())
	p.UserHeaders = []string{"X-First", "X-Remote-User"}
	r := httptest.NewRequest("GET", "/", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{ca.client(pkix.Name{CommonName: "any"})}}
	for name, values := range map[string][]string{
		"X-Remote-User": {"bob"}, "X-Remote-Uid": {"7"}, "X-Remote-Group": {"a", "", "b"}, "X-Remote-Extra-Scopes": {"x", "y"}, "X-Remote-Extra-Example.org%2fteam": {"blue"}, "Accept": {"*/*"},
	} {
		r.Header[name] = values
	}
	u, err := p.User(r)
	want := &request.User{Name: "bob", UID: "7", Groups: []string{"a", "b"}, Extra: map[string][]string{"scopes": {"x", "y"}, "example.org/team": {"blue"}}}
	if err != nil || !reflect.DeepEqual(u, want) {
		t.Errorf("got %+v, %v", u, err)
	}
	if len(r.Header) != 1 {
		t.Errorf("headers that go on: %v", r.Header)
	}
	if u := authenticated(&request.User{Name: request.Anonymous, Groups: []string{request.Unauthenticated}}); u.InGroup(request.Authenticated) {
		t.Error("a proxy's nobody is somebody")
	}
}

func TestCertificateUID(t *testing.T) {
	ca := newAuthority(t)
	c := NewCertificates(ca.pool())
	oid := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2}
	uid := func(values ...string) []pkix.AttributeTypeAndValue {
		var all []pkix.AttributeTypeAndValue
		for _, v := range values {
			all = append(all, pkix.AttributeTypeAndValue{Type: oid, Value: v})
		}
		return all
	}
	if u, err := c.User([]*x509.Certificate{ca.client(pkix.Name{CommonName: "ann", ExtraNames: uid("u1")})}); err != nil || u.UID != "u1" {
		t.Errorf("got %+v, %v", u, err)
	}
	for _, values := range [][]string{{"u1", "u2"}, {""}} {
		if u, err := c.User([]*x509.Certificate{ca.client(pkix.Name{CommonName: "ann", ExtraNames: uid(values...)})}); err == nil {
			t.Errorf("%q: got %+v", values, u)
		}
	}
	if u, err := c.User([]*x509.Certificate{ca.client(pkix.Name{Organization: []string{"o"}})}); u != nil || err != nil {
		t.Errorf("without a name: %+v, %v", u, err)
	}
}

func TestServiceAccountIssuersAndKeys(t *testing.T) {
	w, a := build(t, &corev1.ServiceAccount{ObjectMeta: meta("ns", "sa")})
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(s *ServiceAccounts) string {
		t.Helper()
		out, err := s.Request(context.Background(), "ns", "sa", &authenticationv1.TokenRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return out.Status.Token
	}
	old := ask(a.ServiceAccounts)
	renewed, err := New(Config{Catalog: w.Catalog, Of: w.Reader, ClientCA: x509.NewCertPool, Issuers: []string{"https://new", "https://issuer"}, Signer: rsaKey, Keys: []any{a.ServiceAccounts.Keys.all[0].public}})
	if err != nil {
		t.Fatal(err)
	}
	auds := []string{"https://new", "https://issuer"}
	for name, token := range map[string]string{"of the old issuer and key": old, "new": ask(renewed.ServiceAccounts)} {
		if u, _, err := renewed.Authenticator.Token(context.Background(), token, auds); err != nil || u.Name != "system:serviceaccount:ns:sa" {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
	if _, _, err := a.Authenticator.Token(context.Background(), ask(renewed.ServiceAccounts), auds); err == nil {
		t.Error("a token of an issuer that nobody knows is good")
	}
	var doc map[string]any
	if err := json.Unmarshal(renewed.ServiceAccounts.Keys.OpenIDConfiguration("https://h/openid/v1/jwks"), &doc); err != nil || doc["issuer"] != "https://new" ||
		!reflect.DeepEqual(doc["id_token_signing_alg_values_supported"], []any{"ES256", "RS256"}) || doc["jwks_uri"] != "https://h/openid/v1/jwks" {
		t.Errorf("%v, %v", doc, err)
	}
	for issuer, want := range map[string]bool{"https://a": true, "http://a": false, "https://a?b": false, "a": false} {
		if got := (&Keys{Issuers: []string{issuer}}).Discoverable(); got != want {
			t.Errorf("%s: %v", issuer, got)
		}
	}
}

func TestTokenTimes(t *testing.T) {
	_, a := build(t, &corev1.ServiceAccount{ObjectMeta: meta("ns", "sa")})
	s := a.ServiceAccounts
	start := time.Now()
	at := start
	s.Now = func() time.Time { return at }
	out, err := s.Request(context.Background(), "ns", "sa", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](600)}})
	if err != nil {
		t.Fatal(err)
	}
	for after, want := range map[time.Duration]string{
		0: "", -50 * time.Second: "", -5 * time.Minute: "is not valid yet", 10*time.Minute + 30*time.Second: "", 12 * time.Minute: "has expired",
	} {
		at = start.Add(after)
		s.parsed.Clear()
		for range 2 { // the second time from memory
			_, _, err := a.Authenticator.Token(context.Background(), out.Status.Token, []string{"https://issuer"})
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("after %s: %v, want %q", after, err, want)
			}
		}
	}
}

func TestTokenRequests(t *testing.T) {
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "sa", UID: "u"}}
	pod := &corev1.Pod{ObjectMeta: meta("ns", "p"), Spec: corev1.PodSpec{ServiceAccountName: "sa"}}
	_, a := build(t, sa, pod, &corev1.Node{ObjectMeta: meta("", "n")}, &corev1.Secret{ObjectMeta: meta("ns", "s")})
	s := a.ServiceAccounts
	bound := func(kind, name string) *authenticationv1.BoundObjectReference {
		return &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: kind, Name: name}
	}
	for name, c := range map[string]struct {
		tr   authenticationv1.TokenRequest
		is   func(error) bool
		want string
	}{
		"another name":      {authenticationv1.TokenRequest{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, apierrors.IsInvalid, "must match the service account name"},
		"another namespace": {authenticationv1.TokenRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "x"}}, apierrors.IsInvalid, "must match the service account namespace"},
		"another UID":       {authenticationv1.TokenRequest{ObjectMeta: metav1.ObjectMeta{UID: "x"}}, apierrors.IsConflict, "does not match the UID of the service account (u)"},
		"too short":         {authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](599)}}, apierrors.IsInvalid, "less than 10 minutes"},
		"too long":          {authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](1<<32 + 1)}}, apierrors.IsInvalid, "larger than 2^32 seconds"},
		"no such pod":       {authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound("Pod", "none")}}, apierrors.IsNotFound, "pods"},
		"to something else": {authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound("ConfigMap", "c")}}, apierrors.IsBadRequest, "cannot bind"},
	} {
		if _, err := s.Request(context.Background(), "ns", "sa", &c.tr); err == nil || !c.is(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	claimsOf := func(spec authenticationv1.TokenRequestSpec) (*claims, *authenticationv1.TokenRequest) {
		t.Helper()
		out, err := s.Request(context.Background(), "ns", "sa", &authenticationv1.TokenRequest{Spec: spec})
		if err != nil {
			t.Fatal(err)
		}
		c := &claims{}
		if _, _, err := jwt.NewParser().ParseUnverified(out.Status.Token, c); err != nil {
			t.Fatal(err)
		}
		return c, out
	}
	life := func(c *claims) time.Duration { return c.ExpiresAt.Sub(c.IssuedAt.Time) }
	asKubelet := authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](3607), BoundObjectRef: bound("Pod", "p")}
	s.Extend = true
	if c, out := claimsOf(asKubelet); life(c) != yearLong || c.Kubernetes.WarnAfter == nil || out.UID != "u" || time.Until(out.Status.ExpirationTimestamp.Time) > 2*time.Hour {
		t.Errorf("what kubelets ask for: %s, %+v", life(c), out)
	}
	vault := asKubelet
	vault.Audiences = []string{"vault"}
	if c, _ := claimsOf(vault); life(c) > 2*time.Hour {
		t.Errorf("for somebody else: %s", life(c))
	}
	s.Extend = false
	if c, _ := claimsOf(asKubelet); life(c) > 2*time.Hour {
		t.Errorf("without extension: %s", life(c))
	}
	s.MaxExpiration = 2 * time.Hour
	var warned []string
	ctx := request.WithWarnings(context.Background(), func(text string) { warned = append(warned, text) })
	out, err := s.Request(ctx, "ns", "sa", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](100000)}})
	if err != nil || *out.Spec.ExpirationSeconds != 7200 || len(warned) != 1 || warned[0] != "requested expiration of 100000 seconds shortened to 7200 seconds" {
		t.Errorf("got %v, %v, %v", out, warned, err)
	}
	for kind, name := range map[string]string{"Secret": "s", "Node": "n"} {
		_, out := claimsOf(authenticationv1.TokenRequestSpec{BoundObjectRef: bound(kind, name)})
		u, _, err := a.Authenticator.Token(context.Background(), out.Status.Token, []string{"https://issuer"})
		if err != nil || kind == "Node" && !slices.Equal(u.Extra["authentication.kubernetes.io/node-name"], []string{"n"}) {
			t.Errorf("bound to a %s: %+v, %v", kind, u, err)
		}
	}
}

func TestLegacyTokens(t *testing.T) {
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "sa", UID: "u"}}
	w, a := build(t, sa)
	s := a.ServiceAccounts
	var used []string
	s.LastUsed = func(_ context.Context, secret *corev1.Secret, day string) { used = append(used, secret.Name+" "+day) }
	secret := &corev1.Secret{ObjectMeta: meta("ns", "tok"), Type: corev1.SecretTypeServiceAccountToken}
	token, err := s.LegacyToken(sa, secret)
	if err != nil {
		t.Fatal(err)
	}
	var warned []string
	show := func(aud string) error {
		ctx := request.WithWarnings(context.Background(), func(text string) { warned = append(warned, text) })
		_, _, err := a.Authenticator.Token(ctx, token, []string{aud})
		return err
	}
	if show("https://issuer") == nil {
		t.Error("a token of no Secret is good")
	}
	secret.Data = map[string][]byte{"token": []byte(token)}
	w.Put(secret)
	today := time.Now().UTC().Format("2006-01-02")
	if err := show("https://issuer"); err != nil || !slices.Equal(used, []string{"tok " + today}) || warned != nil {
		t.Errorf("%v, %v, %v", err, used, warned)
	}
	if show("vault") == nil {
		t.Error("good for vault")
	}
	secret.Labels = map[string]string{LastUsedLabel: today}
	sa.Secrets = []corev1.ObjectReference{{Name: "tok"}}
	w.Put(secret, sa)
	if err := show("https://issuer"); err != nil || len(used) != 1 || len(warned) != 1 || !strings.HasPrefix(warned[0], "Use tokens from the TokenRequest API") {
		t.Errorf("one that nobody made, used again today: %v, %v, %v", err, used, warned)
	}
	secret.Labels = map[string]string{LastUsedLabel: "2001-01-01", InvalidSinceLabel: "2024-01-01"}
	w.Put(secret)
	if err := show("https://issuer"); err == nil || !strings.Contains(err.Error(), "has been marked invalid") || len(used) != 2 {
		t.Errorf("one that is not believed any more: %v, %v", err, used)
	}
	metricstest.Expect(t, a.Metrics, "serviceaccount_legacy_tokens_total 4", "serviceaccount_legacy_manual_token_uses_total 1",
		"serviceaccount_legacy_auto_token_uses_total 1", "serviceaccount_invalid_legacy_auto_token_uses_total 1", "serviceaccount_valid_tokens_total 0",
		`authentication_token_cache_request_total{status="miss"} 1`, `authentication_token_cache_request_total{status="hit"} 4`, `authentication_token_cache_fetch_total{status="ok"} 1`)
}
