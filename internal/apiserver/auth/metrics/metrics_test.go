package metrics

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/proa-dev/proa/internal/apiserver/auth/metricstest"
)

// TestRequests: users are counted by sort, outcomes by name; and a request takes no memory.
func TestRequests(t *testing.T) {
	m := New("server")
	for _, user := range []string{"ann@example.com", "bob", "system:node:a", "admin", "system:serviceaccount:kube-system:default"} {
		m.Authentication.Known(user, 3*time.Millisecond)
	}
	m.Authentication.Error.Done(time.Second)
	m.Authorization.NoOpinion.Done(0)
	m.Impersonation.Attempt("", true, 0)
	m.Impersonation.Attempt("impersonate:user-info", true, 0)
	m.Impersonation.Attempt("", false, 0)
	m.Impersonation.Check("impersonate-on:associated-node:list", true, 0)
	m.Impersonation.Check("impersonate", false, 0)
	m.Impersonation.Check("impersonate-on:serviceaccount", false, 0)
	metricstest.Expect(t, m,
		`authenticated_user_requests{username="email_id"} 1`, `authenticated_user_requests{username="other"} 2`, `authenticated_user_requests{username="admin"} 1`,
		`authenticated_user_requests{username="system:serviceaccount:kube-system:default"} 1`,
		`authentication_attempts{result="success"} 5`, `authentication_attempts{result="error"} 1`, `authentication_attempts{result="failure"} 0`,
		`authentication_duration_seconds_bucket{result="success",le="0.002"} 0`, `authentication_duration_seconds_bucket{result="success",le="0.004"} 5`,
		`authorization_attempts_total{result="no-opinion"} 1`, `authorization_duration_seconds_count{result="no-opinion"} 1`,
		`apiserver_impersonation_attempts_total{decision="allowed",mode="legacy"} 1`, `apiserver_impersonation_attempts_total{decision="allowed",mode="user-info"} 1`,
		`apiserver_impersonation_attempts_total{decision="denied",mode=""} 1`,
		`apiserver_impersonation_authorization_attempts_total{decision="allowed",mode="associated-node"} 1`,
		`apiserver_impersonation_authorization_attempts_total{decision="denied",mode="legacy"} 1`,
		`apiserver_impersonation_authorization_attempts_total{decision="denied",mode="unknown"} 1`)
	start := time.Now()
	for what, do := range map[string]func(){
		"authentication": func() { m.Authentication.Known("ann@example.com", time.Millisecond) },
		"authorization":  func() { m.Authorization.Allowed.Done(time.Millisecond) },
		"a token":        func() { m.Tokens.Hit(start) },
		"a certificate":  func() { m.CertificateExpiration.Observe(1e6) },
		"an account":     func() { m.Accounts.Valid.Inc() },
	} {
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s takes memory: %v", what, n)
		}
	}
}

// BenchmarkRequest is what is counted of every request.
func BenchmarkRequest(b *testing.B) {
	m := New("server")
	allowed, _ := m.Decisions("RBAC", "rbac")
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		m.Authentication.Known("system:serviceaccount:kube-system:deployment-controller", time.Since(start))
		start = time.Now()
		allowed.Inc()
		m.Authorization.Allowed.Done(time.Since(start))
	}
}

func TestTokens(t *testing.T) {
	m := New("server")
	m.Tokens.Hit(time.Now())
	known, fetched := m.Tokens.Miss(time.Now()), m.Tokens.Fetch()
	metricstest.Expect(t, m, `authentication_token_cache_active_fetch_count{status="blocked"} 1`, `authentication_token_cache_active_fetch_count{status="in_flight"} 1`,
		`authentication_token_cache_request_total{status="hit"} 1`, `authentication_token_cache_request_total{status="miss"} 0`)
	fetched(errors.New("bad"))
	known()
	m.Tokens.Fetch()(nil)
	metricstest.Expect(t, m, `authentication_token_cache_active_fetch_count{status="blocked"} 0`, `authentication_token_cache_active_fetch_count{status="in_flight"} 0`,
		`authentication_token_cache_request_duration_seconds_count{status="miss"} 1`, `authentication_token_cache_fetch_total{status="error"} 1`, `authentication_token_cache_fetch_total{status="ok"} 1`)
}

func TestWebhook(t *testing.T) {
	m := New("server")
	w := m.Webhook("opa")
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		ctx  context.Context
		code int
		err  error
	}{{context.Background(), 201, nil}, {context.Background(), 500, errors.New("x")}, {context.Background(), 504, errors.New("x")}, {context.Background(), 0, context.DeadlineExceeded}, {gone, 0, context.Canceled}} {
		w.Asked(c.ctx, c.code, c.err, 30*time.Millisecond)
	}
	w.FailedOpen(context.Background(), 504, errors.New("x"))
	metricstest.Expect(t, m, `apiserver_authorization_webhook_evaluations_total{name="opa",result="success"} 1`, `apiserver_authorization_webhook_evaluations_total{name="opa",result="error"} 1`,
		`apiserver_authorization_webhook_evaluations_total{name="opa",result="timeout"} 2`, `apiserver_authorization_webhook_evaluations_total{name="opa",result="canceled"} 1`,
		`apiserver_authorization_webhook_duration_seconds_bucket{name="opa",result="success",le="0.05"} 1`,
		`apiserver_authorization_webhook_evaluations_fail_open_total{name="opa",result="timeout"} 1`)
}

// TestServers: a certificate without names is counted whether it is refused or not;
// one that is as it should be, is not.
func TestServers(t *testing.T) {
	m := New("server")
	notes := map[string]string{}
	m.Webhooks.Note = func(_ context.Context, name, value string) { notes[name] = value }
	call := func(names []string, insecure bool) {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: names, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
		der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		leaf, _ := x509.ParseCertificate(der)
		roots := x509.NewCertPool()
		roots.AddCert(leaf)
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		s.Config.ErrorLog = log.New(t.Output(), "", 0)
		s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
		s.StartTLS()
		defer s.Close()
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost", InsecureSkipVerify: insecure}}
		defer tr.CloseIdleConnections()
		if answer, err := (&http.Client{Transport: m.Webhooks.Watch(tr)}).Get(s.URL); err == nil {
			answer.Body.Close()
		} else if insecure || names != nil {
			t.Fatal(err)
		}
	}
	call([]string{"localhost"}, false)
	metricstest.Expect(t, m, "apiserver_webhooks_x509_missing_san_total 0", "apiserver_kube_aggregator_x509_missing_san_total 0")
	call(nil, false)
	metricstest.Expect(t, m, "apiserver_webhooks_x509_missing_san_total 1")
	call(nil, true)
	metricstest.Expect(t, m, "apiserver_webhooks_x509_missing_san_total 2", "apiserver_webhooks_x509_insecure_sha1_total 0")
	if notes["missing-san.invalid-cert.kubernetes.io/127.0.0.1"] == "" {
		t.Errorf("nothing is noted: %v", notes)
	}
	old := &x509.Certificate{SignatureAlgorithm: x509.SHA1WithRSA, RawIssuer: []byte("ca"), RawSubject: []byte("leaf"), Extensions: []pkix.Extension{{Id: []int{2, 5, 29, 17}}}}
	root := &x509.Certificate{SignatureAlgorithm: x509.SHA1WithRSA, RawIssuer: []byte("ca"), RawSubject: []byte("ca")}
	r := httptest.NewRequest("GET", "https://old/", nil)
	m.Aggregated.shown(r, []*x509.Certificate{old, root})
	m.Aggregated.refused(r, x509.UnknownAuthorityError{Cert: old})
	metricstest.Expect(t, m, "apiserver_kube_aggregator_x509_insecure_sha1_total 1", "apiserver_kube_aggregator_x509_missing_san_total 0")
}

func TestReloads(t *testing.T) {
	m := New("server")
	metricstest.Expect(t, m, "!apiserver_authentication_config_controller")
	id := `apiserver_id_hash="` + Hash("server") + `"`
	m.AuthorizationConfig.Read([]byte("one"))
	m.AuthorizationConfig.Changed([]byte("bad"), errors.New("bad"))
	metricstest.Expect(t, m, `apiserver_authorization_config_controller_last_config_info{`+id+`,hash="`+Hash("one")+`"} 1`,
		`apiserver_authorization_config_controller_automatic_reloads_total{`+id+`,status="failure"} 1`, "!apiserver_authentication_config_controller")
	m.AuthorizationConfig.Changed([]byte("two"), nil)
	metricstest.Expect(t, m, `apiserver_authorization_config_controller_last_config_info{`+id+`,hash="`+Hash("two")+`"} 1`,
		`apiserver_authorization_config_controller_automatic_reloads_total{`+id+`,status="success"} 1`, `!apiserver_authorization_config_controller_last_config_info{`+id+`,hash="`+Hash("one"))
}

func TestIssuer(t *testing.T) {
	m := New("server")
	i := m.Issuer("https://issuer")
	ids := `apiserver_id_hash="` + Hash("server") + `"`
	of := `jwt_issuer_hash="` + Hash("https://issuer") + `"`
	i.Authenticated(nil, time.Millisecond)
	i.Fetched([]byte("keys"), nil)
	i.Fetched(nil, errors.New("down"))
	metricstest.Expect(t, m, `apiserver_authentication_jwt_authenticator_latency_seconds_bucket{`+of+`,result="success",le="0.001"} 1`,
		`apiserver_authentication_jwt_authenticator_jwks_fetch_last_key_set_info{`+ids+`,hash="`+Hash("keys")+`",`+of+`} 1`)
	i.Gone()
	metricstest.Expect(t, m, "!apiserver_authentication_jwt_authenticator_jwks_fetch_last")
}
