package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/proa-dev/proa/internal/apiserver/auth/webhooktest"
)

// issuer of tokens, with a key of its own.
type issuer struct {
	*httptest.Server
	key *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	i.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/keys" {
			json.NewEncoder(w).Encode(map[string]string{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
			return
		}
		raw, _ := key.PublicKey.Bytes()
		enc := base64.RawURLEncoding.EncodeToString
		json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{{"kty": "EC", "kid": "k", "crv": "P-256", "x": enc(raw[1:33]), "y": enc(raw[33:])}}})
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) token(user string) string {
	t := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": i.URL, "aud": "proa", "sub": user, "groups": []string{"staff"}, "exp": time.Now().Add(time.Hour).Unix()})
	t.Header["kid"] = "k"
	text, _ := t.SignedString(i.key)
	return text
}

// started is a control plane that runs until the test ends.
func started(t *testing.T, change func(dir string, s *Server)) (dir string, admin *rest.Config) {
	t.Helper()
	dir = t.TempDir()
	auth, audit := DefaultAuth(), DefaultAudit()
	s := &Server{BindAddress: "127.0.0.1", Auth: &auth, Audit: &audit}
	change(dir, s)
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{DataDir: dir, Server: s, Log: slog.New(slog.DiscardHandler), Ready: func(k string) { ready <- k }})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case kubeconfig := <-ready:
		c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			t.Fatal(err)
		}
		return dir, c
	case err := <-done:
		done <- nil
		t.Fatal(err)
	}
	return "", nil
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestAuth is everything at once: who may come by what, what they may do by whose
// word, and what is written down of it.
func TestAuth(t *testing.T) {
	i, hook := newIssuer(t), webhooktest.New(t)
	hook.Say(200, `{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","status":{"allowed":true,"reason":"the hook said so"}}`)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw})
	var authz string
	rbacAlone := "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n- {type: Node, name: node}\n- {type: RBAC, name: rbac}\n"
	dir, admin := started(t, func(dir string, s *Server) {
		at := func(name string) string { return filepath.Join(dir, name) }
		s.Auth.TokenFile = file(t, at("tokens.csv"), "filetoken,fil,7,\"staff,other\"\n")
		s.Auth.ServiceAccounts.Issuers = []string{"https://tokens.example", "https://kubernetes.default.svc.cluster.local"}
		text, _ := json.Marshal(map[string]any{
			"apiVersion": "apiserver.config.k8s.io/v1beta1", "kind": "AuthenticationConfiguration",
			"anonymous": map[string]any{"enabled": true, "conditions": []map[string]string{{"path": "/livez"}, {"path": "/openid/v1/jwks"}}},
			"jwt": []any{map[string]any{
				"issuer":              map[string]any{"url": i.URL, "certificateAuthority": string(ca), "audiences": []string{"proa"}},
				"claimMappings":       map[string]any{"username": map[string]any{"expression": "'corp:' + claims.sub"}, "groups": map[string]any{"claim": "groups", "prefix": "corp:"}},
				"userValidationRules": []map[string]string{{"expression": "user.username != 'corp:eve'", "message": "not her"}},
			}},
		})
		s.Auth.ConfigFile = file(t, at("authn.json"), string(text))
		authz = file(t, at("authz.yaml"), rbacAlone+"- type: Webhook\n  name: hook\n  webhook:\n    timeout: 3s\n    unauthorizedTTL: 1s\n    subjectAccessReviewVersion: v1\n    matchConditionSubjectAccessReviewVersion: v1\n    failurePolicy: Deny\n    connectionInfo: {type: KubeConfigFile, kubeConfigFile: "+hook.Kubeconfig("/authorize")+"}\n    matchConditions:\n    - expression: \"'corp:staff' in request.groups\"\n")
		s.Auth.Authorization.ConfigFile = authz
		s.Audit.PolicyFile = file(t, at("audit.yaml"), "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: RequestResponse, resources: [{group: \"\", resources: [configmaps]}]}, {level: Metadata}]\n")
		s.Audit.Log.Path = at("audit.log")
	})
	ctx := t.Context()
	as := func(change func(*rest.Config)) *kubernetes.Clientset {
		c := rest.AnonymousClientConfig(admin)
		change(c)
		return kubernetes.NewForConfigOrDie(c)
	}
	bearer := func(token string) *kubernetes.Clientset { return as(func(c *rest.Config) { c.BearerToken = token }) }
	who := func(c *kubernetes.Clientset) (authenticationv1.UserInfo, error) {
		r, err := c.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			return authenticationv1.UserInfo{}, err
		}
		return r.Status.UserInfo, nil
	}
	root := kubernetes.NewForConfigOrDie(admin)
	account, err := root.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "bot"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := root.CoreV1().ServiceAccounts("default").CreateToken(ctx, "bot", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil || issued.UID != account.UID {
		t.Fatal(issued, err)
	}
	for name, c := range map[string]struct {
		client *kubernetes.Clientset
		want   string // "" = refused
		group  string
	}{
		"a token of the issuer":      {bearer(i.token("ann")), "corp:ann", "corp:staff"},
		"one that a rule refuses":    {bearer(i.token("eve")), "", ""},
		"a token of the file":        {bearer("filetoken"), "fil", "other"},
		"a service account's token":  {bearer(issued.Status.Token), "system:serviceaccount:default:bot", "system:serviceaccounts"},
		"a made-up token":            {bearer("x"), "", ""},
		"nothing":                    {as(func(*rest.Config) {}), "", ""},
		"the owner":                  {root, "kubernetes-admin", "system:masters"},
		"a proxy for somebody":       {as(frontProxy(t, dir, "bob", "friends")), "bob", "friends"},
		"the owner as somebody else": {kubernetes.NewForConfigOrDie(impersonating(admin, "zed")), "zed", "system:authenticated"},
	} {
		u, err := who(c.client)
		switch {
		case c.want == "" && !apierrors.IsUnauthorized(err):
			t.Errorf("%s: %+v, %v", name, u, err)
		case c.want != "" && (err != nil || u.Username != c.want || !slices.Contains(u.Groups, c.group) || !slices.Contains(u.Groups, "system:authenticated")):
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
	for path, want := range map[string]bool{"/livez": true, "/openid/v1/jwks": false, "/version": false} { // the second may be asked, but not by nobody
		err := as(func(*rest.Config) {}).Discovery().RESTClient().Get().AbsPath(path).Do(ctx).Error()
		if (err == nil) != want || path == "/openid/v1/jwks" && !apierrors.IsForbidden(err) || path == "/version" && !apierrors.IsUnauthorized(err) {
			t.Errorf("nobody at %s: %v", path, err)
		}
	}
	doc, err := bearer(issued.Status.Token).Discovery().RESTClient().Get().AbsPath("/.well-known/openid-configuration").DoRaw(ctx)
	if err != nil || !strings.Contains(string(doc), `"issuer":"https://tokens.example"`) {
		t.Errorf("%s, %v", doc, err)
	}

	ann := bearer(i.token("ann"))
	list := func() error {
		_, err := ann.CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{LabelSelector: "a=b"})
		return err
	}
	if err := list(); err != nil {
		t.Errorf("the hook lets ann: %v", err)
	}
	if _, err := bearer("filetoken").CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("the hook is not asked about fil: %v", err)
	}
	rules, err := ann.AuthorizationV1().SelfSubjectRulesReviews().Create(ctx, &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "default"}}, metav1.CreateOptions{})
	if err != nil || !rules.Status.Incomplete {
		t.Errorf("%+v, %v", rules, err)
	}
	file(t, authz, rbacAlone)
	for start := time.Now(); !apierrors.IsForbidden(list()); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			t.Fatal("the hook is asked still")
		}
	}
	log, err := os.ReadFile(filepath.Join(dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"user":{"username":"corp:ann","groups":["corp:staff","system:authenticated"]`, `"authorization.k8s.io/reason":"the hook said so"`, `"kind":"ConfigMapList"`,
		`"impersonatedUser":{"username":"zed"`, `"authentication.kubernetes.io/issued-credential-id":"JTI=`, `"reason":"Unauthorized"`,
	} {
		if !strings.Contains(string(log), want) {
			t.Errorf("no %s in the audit log", want)
		}
	}
	if strings.Contains(string(log), "filetoken") || strings.Contains(string(log), issued.Status.Token) {
		t.Error("a token is in the audit log")
	}
}

func impersonating(c *rest.Config, user string) *rest.Config {
	c = rest.CopyConfig(c)
	c.Impersonate.UserName = user
	return c
}

// frontProxy shows the cluster's own proxy certificate, and asks for somebody.
func frontProxy(t *testing.T, dir, user, group string) func(*rest.Config) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "pki", "front-proxy-client.crt"), filepath.Join(dir, "pki", "front-proxy-client.key"))
	if err != nil {
		t.Fatal(err)
	}
	return func(c *rest.Config) {
		c.CertData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
		c.KeyFile = filepath.Join(dir, "pki", "front-proxy-client.key")
		c.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTrip(func(r *http.Request) (*http.Response, error) {
				r = r.Clone(r.Context())
				r.Header.Set("X-Remote-User", user)
				r.Header.Set("X-Remote-Group", group)
				return next.RoundTrip(r)
			})
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestLegacyTokenIsTracked: the day on which a token in a Secret was used is
// written to the Secret.
func TestLegacyTokenIsTracked(t *testing.T) {
	_, admin := started(t, func(string, *Server) {})
	ctx, root := t.Context(), kubernetes.NewForConfigOrDie(admin)
	if _, err := root.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "bot"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := root.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "tok", Annotations: map[string]string{corev1.ServiceAccountNameKey: "bot"}}, Type: corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	secret := func() *corev1.Secret {
		s, err := root.CoreV1().Secrets("default").Get(ctx, "tok", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for start := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Since(start) > 20*time.Second {
				t.Fatal("never: " + what)
			}
		}
	}
	until("the Secret holds a token", func() bool { return len(secret().Data["token"]) > 0 })
	c := rest.AnonymousClientConfig(admin)
	c.BearerToken = string(secret().Data["token"])
	if _, err := kubernetes.NewForConfigOrDie(c).AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := secret().Labels["kubernetes.io/legacy-token-last-used"]; got != time.Now().UTC().Format("2006-01-02") {
		t.Errorf("got %q", got)
	}
	until("it is said since when", func() bool {
		m, err := root.CoreV1().ConfigMaps("kube-system").Get(ctx, "kube-apiserver-legacy-service-account-token-tracking", metav1.GetOptions{})
		return err == nil && m.Data["since"] != ""
	})
}
