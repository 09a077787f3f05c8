package setup

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
	"github.com/proa-dev/proa/internal/apiserver/auth/metricstest"
	"github.com/proa-dev/proa/internal/apiserver/auth/webhooktest"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache/cachetest"
)

// log of a test, that can be read while it is written.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.buf.String(), text)
}

func open(t *testing.T, o Options) (*Setup, *log, error) {
	t.Helper()
	w := cachetest.New(t,
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "r"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "r"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}}})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	l := &log{}
	s, err := Open(o, Own{}, auth.Config{Catalog: w.Catalog, Of: w.Reader, Signer: key, Issuers: []string{"https://own"}}, slog.New(slog.NewTextHandler(l, nil)))
	return s, l, err
}

// file with a text in a folder of its own.
func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.yaml")
	write(t, name, text)
	return name
}

// write a file whole, as editors and mounts do: beside, then in its place.
func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

const (
	authnHead = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"
	authzHead = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n"
)

func TestBadAuthenticationConfig(t *testing.T) {
	issuer := "jwt:\n- issuer: {url: https://i.example, audiences: [c]}\n  claimMappings: {username: {claim: sub, prefix: ''}}\n"
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", `write apiVersion: apiserver.config.k8s.io/v1 and kind: AuthenticationConfiguration`},
		{"another kind", authzHead, `kind "AuthorizationConfiguration" are no AuthenticationConfiguration: write`},
		{"a version there is not", "apiVersion: apiserver.config.k8s.io/v7\nkind: AuthenticationConfiguration\n", `"apiserver.config.k8s.io/v7" has no AuthenticationConfiguration: write apiVersion: apiserver.config.k8s.io/v1`},
		{"no YAML", "a: [", "YAML"},
		{"a typing mistake", authnHead + strings.Replace(issuer, "audiences", "audience", 1), `unknown field "jwt[0].issuer.audience"`},
		{"twice", authnHead + "jwt: []\njwt: []\n", `"jwt" already set`},
		{"no issuer", authnHead + strings.Replace(issuer, "https://i.example", "''", 1), `jwt[0].issuer.url: Required value: write the issuer as the tokens' iss says it, such as https://issuer.example.com`},
		{"plain http", authnHead + strings.Replace(issuer, "https://", "http://", 1), `jwt[0].issuer.url: Invalid value: "http://i.example": URL scheme must be https`},
		{"our own issuer", authnHead + strings.Replace(issuer, "https://i.example", "https://own", 1), `jwt[0].issuer.url: Invalid value: "https://own": URL must not overlap with disallowed issuers: [https://own]`},
		{"no audiences", authnHead + strings.Replace(issuer, "[c]", "[]", 1), `jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required`},
		{"audiences and no policy", authnHead + strings.Replace(issuer, "[c]", "[c, d]", 1), `audienceMatchPolicy must be MatchAny for multiple audiences`},
		{"no prefix", authnHead + strings.Replace(issuer, ", prefix: ''", "", 1), `jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set`},
		{"bad CA", authnHead + strings.Replace(issuer, "audiences:", "certificateAuthority: x, audiences:", 1), `jwt[0].issuer.certificateAuthority: Invalid value: "<omitted>"`},
		{"bad expression", authnHead + strings.Replace(issuer, "claim: sub, prefix: ''", "expression: 'claims.'", 1), `jwt[0].claimMappings.username.expression: Invalid value: "claims.": compilation failed`},
		{"a rule that is no truth", authnHead + issuer + "  claimValidationRules: [{expression: '1'}]\n", `jwt[0].claimValidationRules[0].expression: Invalid value: "1": must evaluate to bool`},
		{"an egress selector", authnHead + strings.Replace(issuer, "audiences:", "egressSelectorType: cluster, audiences:", 1), "egress"},
		{"the same issuer twice", authnHead + issuer + strings.TrimPrefix(issuer, "jwt:\n"), `jwt[1].issuer.url: Duplicate value`},
		{"nobody, on conditions", authnHead + "anonymous: {enabled: false, conditions: [{path: /x}]}\n", `anonymous.conditions: Invalid value`},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := Defaults()
			o.ConfigFile = file(t, c.text)
			_, _, err := open(t, o)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "--authentication-config "+o.ConfigFile+": ") {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestBadAuthorizationConfig(t *testing.T) {
	hook := webhooktest.New(t).Kubeconfig("/")
	webhook := "authorizers:\n- type: Webhook\n  name: w\n  webhook:\n    timeout: 3s\n    authorizedTTL: 5m\n    unauthorizedTTL: 30s\n    subjectAccessReviewVersion: v1\n    matchConditionSubjectAccessReviewVersion: v1\n    failurePolicy: Deny\n    connectionInfo: {type: KubeConfigFile, kubeConfigFile: " + hook + "}\n"
	without := func(line string) string {
		var kept []string
		for _, l := range strings.Split(webhook, "\n") {
			if !strings.Contains(l, line) {
				kept = append(kept, l)
			}
		}
		return strings.Join(kept, "\n")
	}
	notAKubeconfig := file(t, "apiVersion: v1\nkind: Config\n")
	for _, c := range []struct{ name, text, want string }{
		{"nobody decides", "", `authorizers: Required value: at least one authorization mode must be defined`},
		{"a type there is not", "authorizers: [{type: Nodes, name: node}]\n", `authorizers[0].type: Unsupported value: "Nodes": supported values: "ABAC", "AlwaysAllow"`},
		{"twice", "authorizers: [{type: RBAC, name: rbac}, {type: RBAC, name: rbac}]\n", `authorizers[1].type: Duplicate value: "RBAC"`},
		{"another name", "authorizers: [{type: RBAC, name: roles}]\n", `authorizers[0].name: Invalid value: "roles": an authorizer of type RBAC is called rbac`},
		{"no name", "authorizers: [{type: RBAC}]\n", `authorizers[0].name: Required value: write`},
		{"ABAC without a file", "authorizers: [{type: ABAC, name: abac}]\n", `authorizers[0].type: ABAC needs a file: name it with --authorization-policy-file`},
		{"no webhook", "authorizers: [{type: Webhook, name: w}]\n", `authorizers[0].webhook: Required value: required when type=Webhook`},
		{"no timeout", without("timeout"), `authorizers[0].webhook.timeout: Required value: write such as 3s; 30s at most`},
		{"a long timeout", strings.Replace(webhook, "timeout: 3s", "timeout: 3m", 1), `authorizers[0].webhook.timeout: Invalid value: "3m0s": must be > 0s and <= 30s`},
		{"no failure policy", without("failurePolicy"), `authorizers[0].webhook.failurePolicy: Required value: write NoOpinion, or Deny`},
		{"a failure policy there is not", strings.Replace(webhook, "Deny", "Allow", 1), `authorizers[0].webhook.failurePolicy: Unsupported value: "Allow": supported values: "NoOpinion", "Deny"`},
		{"no version", without("  subjectAccessReviewVersion"), `authorizers[0].webhook.subjectAccessReviewVersion: Required value: write v1`},
		{"no connection", without("connectionInfo"), `authorizers[0].webhook.connectionInfo.type: Required value: write KubeConfigFile`},
		{"of itself", strings.Replace(webhook, "{type: KubeConfigFile, kubeConfigFile: "+hook+"}", "{type: InClusterConfig}", 1), `authorizers[0].webhook.connectionInfo.type: InClusterConfig is not for the API server itself: write KubeConfigFile`},
		{"no such file", strings.Replace(webhook, hook, "/none", 1), `authorizers[0].webhook.connectionInfo.kubeConfigFile: Invalid value: "/none": error loading file`},
		{"an empty kubeconfig", strings.Replace(webhook, hook, notAKubeconfig, 1), `write a cluster whose server is the service's URL`},
		{"bad expression", webhook + "    matchConditions: [{expression: 'request.usr == \"a\"'}]\n", `authorizers[0].webhook.matchConditions[0].expression: Invalid value`},
		{"a typing mistake", strings.Replace(webhook, "timeout:", "timout:", 1), `unknown field "authorizers[0].webhook.timout"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := Defaults()
			o.Authorization.ConfigFile = file(t, authzHead+c.text)
			_, _, err := open(t, o)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "--authorization-config "+o.Authorization.ConfigFile+": ") {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestBadFlags(t *testing.T) {
	config := file(t, authnHead)
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"half an issuer": {func(o *Options) { o.OIDC.Said, o.OIDC.IssuerURL = true, "https://i" }, "give --oidc-issuer-url and --oidc-client-id together"},
		"file and flags": {func(o *Options) { o.ConfigFile, o.OIDC.Said = config, true }, "--authentication-config and --oidc-* exclude each other"},
		"plain http":     {func(o *Options) { o.OIDC.IssuerURL, o.OIDC.ClientID = "http://i", "c" }, "URL scheme must be https"},
		"an algorithm": {func(o *Options) {
			o.OIDC.IssuerURL, o.OIDC.ClientID, o.OIDC.SigningAlgs = "https://i", "c", []string{"HS256"}
		}, `--oidc-signing-algs "HS256": write one or more of [ES256`},
		"anonymous twice": {func(o *Options) {
			o.ConfigFile, o.AnonymousSaid = file(t, authnHead+"anonymous: {enabled: true}\n"), true
		}, "--anonymous-auth says it already"},
		"no mode":              {func(o *Options) { o.Authorization.Modes = nil }, "--authorization-mode is empty: write one or more of AlwaysAllow"},
		"a mode there is not":  {func(o *Options) { o.Authorization.Modes = []string{"rbac"} }, `--authorization-mode "rbac" is none`},
		"a mode twice":         {func(o *Options) { o.Authorization.Modes = []string{"RBAC", "RBAC"} }, "given twice"},
		"ABAC without a file":  {func(o *Options) { o.Authorization.Modes = []string{"ABAC"} }, "name it with --authorization-policy-file"},
		"a file without ABAC":  {func(o *Options) { o.Authorization.PolicyFile = config }, "means nothing without --authorization-mode ABAC"},
		"webhook without file": {func(o *Options) { o.Authorization.Modes = []string{"Webhook"} }, "name it with --authorization-webhook-config-file"},
		"file and modes":       {func(o *Options) { o.Authorization.ConfigFile, o.Authorization.Said = config, true }, "excludes --authorization-mode"},
		"headers without CA":   {func(o *Options) { o.RequestHeader.UsernameHeaders = []string{"X-Remote-User"} }, "means nothing without --requestheader-client-ca-file"},
		"an issuer twice":      {func(o *Options) { o.ServiceAccounts.Issuers = []string{"https://a", "https://a"} }, `--service-account-issuer "https://a" is given twice`},
		"a plain JWKS URI":     {func(o *Options) { o.ServiceAccounts.JWKSURI = "http://a" }, "write an https URL"},
		"a short life":         {func(o *Options) { o.ServiceAccounts.MaxExpiration = time.Minute }, "write 1h or more"},
		"a token file":         {func(o *Options) { o.TokenFile = file(t, "tok,ann,1\nsecret,bob\n") }, `config.yaml:2: write TOKEN,USER,UID`},
		"a CA file":            {func(o *Options) { o.ClientCAFile = file(t, "x") }, "write one or more certificates in PEM"},
		"a key file":           {func(o *Options) { o.ServiceAccounts.KeyFiles = []string{file(t, "x")} }, "--service-account-key-file"},
		"a version": {func(o *Options) {
			o.TokenWebhook.ConfigFile, o.TokenWebhook.Version = webhooktest.New(t).Kubeconfig("/"), "v2"
		}, "write v1 or v1beta1"},
		"a policy": {func(o *Options) {
			o.Authorization.Modes, o.Authorization.PolicyFile = []string{"ABAC"}, file(t, "# ok\n\n{\"kind\":\"Policy\"}\n")
		}, `config.yaml:3: apiVersion "" and kind "Policy" are no policy`},
	} {
		t.Run(name, func(t *testing.T) {
			o := Defaults()
			c.change(&o)
			_, _, err := open(t, o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("a token is in an error: %v", err)
			}
		})
	}
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			t.Fatal("never: " + what)
		}
	}
}

func run(t *testing.T, s *Setup) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }() //nolint:errcheck // it ends with ctx
	t.Cleanup(func() { cancel(); <-done })
}

func TestAuthorizationReload(t *testing.T) {
	w := webhooktest.New(t)
	w.Say(200, `{"status":{"allowed":true}}`)
	rbac := authzHead + "authorizers:\n- {type: RBAC, name: rbac}\n"
	both := rbac + "- type: Webhook\n  name: w\n  webhook: {timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, connectionInfo: {type: KubeConfigFile, kubeConfigFile: " + w.Kubeconfig("/") + "}}\n"
	o := Defaults()
	o.Authorization.ConfigFile = file(t, rbac)
	s, l, err := open(t, o)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	may := func(user, resource string) bool {
		d, _, _ := s.Authorizer.Authorize(context.Background(), &request.User{Name: user}, auth.Attributes{Verb: "get", Resource: resource, IsResource: true})
		return d == auth.Allow
	}
	if !may("ann", "pods") || may("ann", "secrets") {
		t.Fatal("RBAC does not decide")
	}
	if _, incomplete, _ := s.Authorizer.RulesFor(context.Background(), &request.User{Name: "ann"}, "ns"); incomplete {
		t.Error("RBAC alone lists all")
	}
	write(t, o.Authorization.ConfigFile, both)
	until(t, "the webhook decides, too", func() bool { return may("ann", "secrets") })
	if rules, incomplete, err := s.Authorizer.RulesFor(context.Background(), &request.User{Name: "ann"}, "ns"); !incomplete || len(rules) != 1 || err == nil {
		t.Errorf("rules with a webhook: %v, %v, %v", rules, incomplete, err)
	}
	for text, why := range map[string]string{
		authzHead + "authorizers: [{type: RBAC, name: roles}]\n":                          "is called rbac",
		authzHead + "authorizers: [{type: AlwaysAllow, name: alwaysallow}]\n":             "RBAC was there when the server started and must stay",
		authzHead + "authorizers: [{type: RBAC, name: rbac}, {type: Node, name: node}]\n": "Node was not there when the server started",
		"rubbish": "write apiVersion",
	} {
		write(t, o.Authorization.ConfigFile, text)
		until(t, "the log says "+why, func() bool { return l.has(why) })
		if !may("ann", "secrets") {
			t.Fatalf("%q has changed something", text)
		}
	}
	write(t, o.Authorization.ConfigFile, rbac)
	until(t, "the webhook is gone", func() bool { return !may("bob", "secrets") })
	const config, id = "apiserver_authorization_config_controller_", `{apiserver_id_hash=""`
	until(t, "changes are counted", func() bool {
		return strings.Contains(metricstest.Text(t, s.Metrics), config+"automatic_reloads_total"+id+`,status="success"} 2`)
	})
	metricstest.Expect(t, s.Metrics, config+"automatic_reloads_total"+id+`,status="failure"} 4`, config+"last_config_info"+id+`,hash="`+metrics.Hash(rbac)+`"} 1`,
		`!apiserver_authorization_decisions_total{decision="allowed",name="w",type="Webhook"} 0`, `!apiserver_authorization_decisions_total{decision="allowed",name="rbac",type="RBAC"} 0`)
	if d, _, _ := s.Authorizer.Authorize(context.Background(), &request.User{Name: "root", Groups: []string{request.Masters}}, auth.Attributes{Verb: "get", Path: "/"}); d != auth.Allow {
		t.Error("system:masters may not")
	}
}

func TestAuthenticationReload(t *testing.T) {
	issuer := func(name string) string {
		return "jwt:\n- issuer: {url: https://" + name + ".invalid, audiences: [c]}\n  claimMappings: {username: {claim: sub, prefix: ''}}\n"
	}
	o := Defaults()
	o.ConfigFile = file(t, authnHead+"anonymous: {enabled: true, conditions: [{path: /livez}]}\n")
	s, l, err := open(t, o)
	if err != nil {
		t.Fatal(err)
	}
	if a := s.Authenticator.Anonymous; a.Off || len(a.Paths) != 1 || a.Paths[0] != "/livez" {
		t.Errorf("got %+v", a)
	}
	run(t, s)
	// a token of the issuer that nobody has signed: it is refused by name once the issuer is known
	const token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2EuaW52YWxpZCJ9.AAAA"
	known := func() bool {
		_, _, err := s.Authenticator.Token(context.Background(), token, []string{"https://own"})
		return strings.Contains(err.Error(), "oidc:")
	}
	if known() {
		t.Fatal("the issuer is known before it is configured")
	}
	anonymous := "anonymous: {enabled: true, conditions: [{path: /livez}]}\n"
	write(t, o.ConfigFile, authnHead+anonymous+issuer("a"))
	until(t, "the issuer is known", known)
	for text, why := range map[string]string{
		authnHead + issuer("b"):                         "it cannot be changed while the server runs",
		authnHead + anonymous + issuer("b") + "x: 1\n":  "unknown field",
		authnHead + anonymous + "jwt: [{issuer: {}}]\n": "jwt[0].issuer.url: Required value",
	} {
		write(t, o.ConfigFile, text)
		until(t, "the log says "+why, func() bool { return l.has(why) })
		if !known() {
			t.Fatalf("%q has changed something", text)
		}
	}
	if err := os.Remove(o.ConfigFile); err != nil {
		t.Fatal(err)
	}
	until(t, "the log says that it is gone", func() bool { return l.has("cannot be read any more") })
	if !known() {
		t.Error("a file that is gone takes the issuer with it")
	}
	write(t, o.ConfigFile, authnHead+anonymous)
	until(t, "the issuer is gone", func() bool { return !known() })
}

func TestModes(t *testing.T) {
	policy := file(t, `{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"bob","namespace":"ns","resource":"pods","apiGroup":"*","readonly":true}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"group":"ops","nonResourcePath":"/logs/*"}}
`)
	pods := auth.Attributes{Verb: "get", Namespace: "ns", Resource: "pods", IsResource: true}
	create := auth.Attributes{Verb: "create", Namespace: "ns", Resource: "pods", IsResource: true}
	logs := auth.Attributes{Verb: "delete", Path: "/logs/x"}
	for _, c := range []struct {
		modes, user, group string
		a                  auth.Attributes
		want               auth.Decision
	}{
		{"RBAC", "ann", "", pods, auth.Allow}, {"RBAC", "bob", "", pods, auth.NoOpinion},
		{"ABAC", "bob", "", pods, auth.Allow}, {"ABAC", "bob", "", create, auth.NoOpinion}, {"ABAC", "ann", "", pods, auth.NoOpinion},
		{"ABAC", "ann", "ops", logs, auth.Allow}, {"ABAC", "ann", "", logs, auth.NoOpinion},
		{"RBAC,ABAC", "ann", "", pods, auth.Allow}, {"RBAC,ABAC", "bob", "", pods, auth.Allow},
		{"AlwaysAllow", "eve", "", create, auth.Allow}, {"AlwaysDeny", "ann", "", pods, auth.NoOpinion},
		{"AlwaysDeny", "ann", request.Masters, pods, auth.Allow},
	} {
		o := Defaults()
		o.Authorization.Modes = strings.Split(c.modes, ",")
		if strings.Contains(c.modes, "ABAC") {
			o.Authorization.PolicyFile = policy
		}
		s, _, err := open(t, o)
		if err != nil {
			t.Fatal(err)
		}
		u := &request.User{Name: c.user, Groups: []string{c.group}}
		if d, _, err := s.Authorizer.Authorize(context.Background(), u, c.a); d != c.want || err != nil {
			t.Errorf("%s: %s %+v: %v, %v", c.modes, c.user, c.a, d, err)
		}
		if off := s.Authenticator.Anonymous.Off; off != (c.modes == "AlwaysAllow") {
			t.Errorf("%s: nobody may come: %v", c.modes, off)
		}
	}
}
