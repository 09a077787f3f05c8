package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-dev/proa/internal/apiserver/audit"
	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// byHeader believes whom the header User names.
type byHeader struct{}

func (byHeader) Authenticate(ctx context.Context, r *http.Request) (*request.User, error) {
	switch name := r.Header.Get("User"); name {
	case "nobody":
		return nil, nil
	case "bad":
		return nil, errors.New("bad credentials")
	case "old":
		audit.Annotate(ctx, "authentication.k8s.io/legacy-token", "old")
		request.Warn(ctx, "old token")
		return &request.User{Name: name}, nil
	default:
		return &request.User{Name: name}, nil
	}
}

// allButEve lets everybody do everything, but for eve.
type allButEve struct{}

func (allButEve) Authorize(_ context.Context, u *request.User, a auth.Attributes) (auth.Decision, string, error) {
	switch {
	case u.Name == "eve":
		return auth.NoOpinion, "she is eve", nil
	case u.Name == "err":
		return auth.NoOpinion, "", errors.New("no answer")
	case a.Path == "/panic":
		panic("told to")
	}
	return auth.Allow, "let", nil
}

// audited is a server that writes down what it does.
func audited(t *testing.T, rules string, change func(*audit.Options)) (*harness, func(id string) []map[string]any) {
	t.Helper()
	dir := t.TempDir()
	o := audit.Defaults()
	o.PolicyFile, o.Log.Path = filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	if err := os.WriteFile(o.PolicyFile, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\n"+rules), 0o600); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&o)
	}
	l, err := o.Open(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	h := newHarness(t, func(c *Config) { c.Audit, c.Authenticator, c.Authorizer = l, byHeader{}, allButEve{} })
	return h, func(id string) (all []map[string]any) {
		data, err := os.ReadFile(o.Log.Path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(data), "\n") {
			var e map[string]any
			if json.Unmarshal([]byte(line), &e) == nil && e["auditID"] == id {
				all = append(all, e)
			}
		}
		return all
	}
}

// dig into JSON: dig(e, "a.0.b"), or dig(e, "a|b.with.dots").
func dig(v any, path string) any {
	if of, name, ok := strings.Cut(path, "|"); ok {
		m, _ := dig(v, of).(map[string]any)
		return m[name]
	}
	for _, p := range strings.Split(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[p]
		case []any:
			var n int
			fmt.Sscan(p, &n)
			if n >= len(x) {
				return nil
			}
			v = x[n]
		default:
			return nil
		}
	}
	return v
}

func TestAuditOfRequests(t *testing.T) {
	h, of := audited(t, "rules:\n- {level: None, users: [quiet]}\n- {level: Metadata, users: [short]}\n- {level: RequestResponse}\n", nil)
	const table = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
	const short, long = "RequestReceived ResponseComplete", "RequestReceived ResponseStarted ResponseComplete"
	for _, c := range []struct {
		id, method, path, body string
		headers                []string
		stages                 string
		want                   map[string]any // of the last event
	}{
		{"create", "POST", cms, cm("a", "1"), nil, short, map[string]any{
			"level": "RequestResponse", "verb": "create", "objectRef.name": "a", "objectRef.namespace": "default", "objectRef.resource": "configmaps", "responseStatus.code": 201.0,
			"requestObject.kind": "ConfigMap", "requestObject.metadata.uid": nil, "responseObject.kind": "ConfigMap", "responseObject.data.k": "1",
			"annotations|authorization.k8s.io/decision": "allow", "annotations|authorization.k8s.io/reason": "let",
		}},
		{"short", "PUT", cms + "/a", cm("a", "2"), []string{"User: short"}, short, map[string]any{"level": "Metadata", "user.username": "short", "requestObject": nil, "responseObject": nil, "responseStatus.code": 200.0}},
		{"quiet", "PUT", cms + "/a", cm("a", "3"), []string{"User: quiet"}, "", nil},
		{"patch", "PATCH", cms + "/a", `{"data":{"x":"1"}}`, []string{"Content-Type: application/merge-patch+json"}, short, map[string]any{"verb": "patch", "requestObject.data.x": "1", "requestObject.kind": nil, "responseObject.data.x": "1"}},
		{"apply", "PATCH", cms + "/b?fieldManager=m", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n", []string{"Content-Type: application/apply-patch+yaml"}, short, map[string]any{"requestObject.kind": "ConfigMap", "responseStatus.code": 201.0}},
		{"protobuf", "GET", cms + "/a", "", []string{"Accept: application/vnd.kubernetes.protobuf"}, short, map[string]any{"responseObject.data.x": "1", "requestObject": nil}},
		{"yaml", "GET", cms + "/a", "", []string{"Accept: application/yaml"}, short, map[string]any{"responseObject.data.x": "1"}},
		{"list", "GET", cms, "", []string{"Accept: application/vnd.kubernetes.protobuf"}, short, map[string]any{"verb": "list", "responseObject.kind": "ConfigMapList", "responseObject.items.0.metadata.name": "a", "responseObject.items.1.metadata.name": "b"}},
		{"table", "GET", cms, "", []string{table}, short, map[string]any{"responseObject.kind": "Table", "responseObject.rows.0.object.metadata.name": "a"}},
		{"watch", "GET", cms + "?watch=1&timeoutSeconds=1", "", nil, long, map[string]any{"verb": "watch", "responseObject": nil, "responseStatus.code": 200.0}},
		{"missing", "GET", cms + "/none", "", nil, short, map[string]any{"responseStatus.code": 404.0, "responseStatus.reason": "NotFound", "responseStatus.details.name": "none", "responseObject.kind": "Status"}},
		{"garbled", "POST", cms, `{"metadata":`, nil, short, map[string]any{"responseStatus.code": 400.0, "requestObject": nil}},
		{"eve", "GET", cms, "", []string{"User: eve"}, short, map[string]any{"responseStatus.code": 403.0, "annotations|authorization.k8s.io/decision": "forbid", "annotations|authorization.k8s.io/reason": "she is eve"}},
		{"err", "GET", cms, "", []string{"User: err"}, short, map[string]any{"responseStatus.code": 500.0, "annotations|authorization.k8s.io/decision": nil, "annotations|authorization.k8s.io/reason": "internal error"}},
		{"bad", "GET", cms, "", []string{"User: bad"}, "ResponseStarted", map[string]any{"user.username": nil, "responseStatus.code": 401.0, "responseStatus.reason": "Unauthorized"}},
		{"nobody", "GET", cms, "", []string{"User: nobody"}, "ResponseStarted", map[string]any{"responseStatus.code": 401.0}},
		{"old", "GET", cms, "", []string{"User: old"}, short, map[string]any{"annotations|authentication.k8s.io/legacy-token": "old"}},
		{"as", "GET", cms, "", []string{"Impersonate-User: bob", "Impersonate-Group: g"}, short, map[string]any{
			"impersonatedUser.username": "bob", "impersonatedUser.groups.0": "g", "authenticationMetadata.impersonationConstraint": "impersonate:user-info", "user.username": "ann"}},
		{"deprecated", "GET", "/apis/extensions/v1beta1/namespaces/default/ingresses", "", nil, short, map[string]any{"annotations|k8s.io/deprecated": "true", "annotations|k8s.io/removed-release": "1.22"}},
		{"panic", "GET", "/panic", "", nil, "RequestReceived Panic", map[string]any{"responseStatus.code": 500.0, "responseStatus.message": "APIServer panic'd: told to", "objectRef": nil}},
		{"secret", "POST", "/api/v1/namespaces/default/secrets", `{"metadata":{"name":"s"},"stringData":{"p":"geheim"}}`, nil, short, map[string]any{"requestObject.stringData": nil, "requestObject.data.p": "Z2VoZWlt", "responseObject.data.p": "Z2VoZWlt"}},
		{"delete", "DELETE", cms + "/b", `{"propagationPolicy":"Background"}`, nil, short, map[string]any{"requestObject.kind": "DeleteOptions", "requestObject.propagationPolicy": "Background"}},
		{"bare", "DELETE", cms + "/a", "", nil, short, map[string]any{"requestObject": nil, "responseObject.status": "Success"}},
	} {
		headers := append([]string{"Audit-ID: " + c.id, "User: ann"}, c.headers...)
		if r := h.do(c.method, c.path, c.body, headers...); r.header.Get("Audit-ID") != c.id {
			t.Errorf("%s: the client is told %q", c.id, r.header.Get("Audit-ID"))
		}
		events := of(c.id)
		for start := time.Now(); len(events) < len(strings.Fields(c.stages)) && time.Since(start) < 10*time.Second; time.Sleep(time.Millisecond) {
			events = of(c.id) // the last one is written after the answer was sent
		}
		var stages []string
		for _, e := range events {
			stages = append(stages, e["stage"].(string))
		}
		if got := strings.Join(stages, " "); got != c.stages {
			t.Errorf("%s: %q, want %q", c.id, got, c.stages)
			continue
		}
		for path, want := range c.want {
			v := dig(events[len(events)-1], path)
			if v != want {
				t.Errorf("%s: %s is %v, want %v", c.id, path, v, want)
			}
		}
	}
}

func TestAuditNamesItself(t *testing.T) {
	h, of := audited(t, "rules: [{level: Metadata}]", nil)
	r := h.ok("GET", cms, "", "User: ann")
	if id := r.header.Get("Audit-ID"); id == "" || len(of(id)) == 0 {
		t.Errorf("the client is told %q", id)
	}
	plain := newHarness(t)
	if id := plain.ok("GET", cms, "").header.Get("Audit-ID"); id != "" {
		t.Errorf("nothing is written down, and the client is told %q", id)
	}
	if id := plain.ok("GET", cms, "", "Audit-ID: mine").header.Get("Audit-ID"); id != "mine" {
		t.Errorf("the client's own name: %q", id)
	}
}

func TestAuditThatFails(t *testing.T) {
	full := func(mode string) *harness {
		h, _ := audited(t, "rules: [{level: Metadata, users: [ann]}]", func(o *audit.Options) {
			o.Log.Path, o.Log.Mode, o.Log.MaxSize = "/dev/full", mode, 0
		})
		return h
	}
	full(audit.ModeBlocking).ok("GET", cms, "", "User: ann")
	full(audit.ModeStrict).fails(500, "InternalError", "failed to store audit event", "GET", cms, "", "User: ann")
}

// TestAccessIsCounted: who was known, what was decided and what was recorded is told.
func TestAccessIsCounted(t *testing.T) {
	h, _ := audited(t, "rules:\n- {level: None, users: [quiet]}\n- {level: Metadata}\n", nil)
	for user, code := range map[string]int{"ann@example.com": 200, "quiet": 200, "nobody": 401, "bad": 401, "eve": 403, "err": 500} {
		if r := h.do("GET", cms, "", "User: "+user); r.code != code {
			t.Errorf("%s: %s", user, r)
		}
	}
	h.do("GET", cms, "", "User: bob", "Impersonate-User: eve")
	text := string(h.ok("GET", "/metrics", "").body)
	for _, line := range []string{ // one request more made the namespace, and this is one
		`authentication_attempts{result="success"} 7`, `authentication_attempts{result="failure"} 1`, `authentication_attempts{result="error"} 1`,
		`authentication_duration_seconds_count{result="success"} 7`, `authenticated_user_requests{username="email_id"} 1`, `authenticated_user_requests{username="other"} 6`,
		`authorization_attempts_total{result="allowed"} 4`, `authorization_attempts_total{result="no-opinion"} 2`, `authorization_attempts_total{result="error"} 1`,
		`authorization_attempts_total{result="denied"} 0`, `authorization_duration_seconds_count{result="allowed"} 4`,
		`apiserver_impersonation_attempts_total{decision="allowed",mode="user-info"} 1`,
		`apiserver_audit_level_total{level="None"} 1`, `apiserver_audit_level_total{level="Metadata"} 8`, `apiserver_audit_requests_rejected_total 0`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("missing: %s", line)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestWarningsOfAuthentication(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.Authenticator = byHeader{} })
	if w := h.ok("GET", cms, "", "User: old").header.Get("Warning"); w != `299 - "old token"` {
		t.Errorf("got %q", w)
	}
	h.fails(401, "Unauthorized", "Unauthorized", "GET", cms, "", "User: nobody")
}

// BenchmarkAudit is what a record costs: nothing without a policy.
func BenchmarkAudit(b *testing.B) {
	for _, level := range []string{"", "None", "Metadata", "RequestResponse"} {
		b.Run(level, func(b *testing.B) {
			h := newHarness(b, func(c *Config) {
				if level == "" {
					return
				}
				o := audit.Defaults()
				o.PolicyFile, o.Log.Path = filepath.Join(b.TempDir(), "policy.yaml"), "/dev/null"
				o.Log.MaxSize = 0
				if err := os.WriteFile(o.PolicyFile, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: "+level+"}]\n"), 0o600); err != nil {
					b.Fatal(err)
				}
				l, err := o.Open(slog.New(slog.DiscardHandler))
				if err != nil {
					b.Fatal(err)
				}
				c.Audit = l
			})
			handler := h.server.Handler()
			direct(b, handler, 201, "POST", podsPath, "application/json", fmt.Sprintf(benchPod, 1, 1))
			b.ReportAllocs()
			for b.Loop() {
				direct(b, handler, 200, "GET", podsPath+"/p-000001", "", "")
			}
		})
	}
}
