package remote

import (
	"context"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authorizationcel "k8s.io/apiserver/pkg/authorization/cel"

	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/auth/callout"
	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
	"github.com/proa-dev/proa/internal/apiserver/auth/metricstest"
	"github.com/proa-dev/proa/internal/apiserver/auth/webhooktest"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

var quiet = slog.New(slog.DiscardHandler)

func client(t *testing.T, w *webhooktest.Webhook, o callout.Options) *callout.Client {
	t.Helper()
	o.First = time.Millisecond
	c, err := callout.Open(w.Kubeconfig("/ask"), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tokens(t *testing.T, w *webhooktest.Webhook, version string, ttl time.Duration) *Tokens {
	t.Helper()
	a, err := NewTokens(TokenConfig{Client: client(t, w, callout.Options{}), Version: version, Audiences: []string{"api"}, TTL: ttl, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestTokens(t *testing.T) {
	for _, version := range []string{"v1", "v1beta1"} {
		head := `{"apiVersion":"authentication.k8s.io/` + version + `","kind":"TokenReview","status":`
		for _, c := range []struct {
			name, answer string
			code         int
			auds         []string
			want         *request.User
			got          []string
			bad          string
		}{
			{"yes", head + `{"authenticated":true,"user":{"username":"ann","uid":"1","groups":["g"],"extra":{"k":["v"]}}}}`, 200, []string{"api"},
				&request.User{Name: "ann", UID: "1", Groups: []string{"g"}, Extra: map[string][]string{"k": {"v"}}}, []string{"api"}, ""},
			{"yes, for another audience", head + `{"authenticated":true,"user":{"username":"ann"},"audiences":["vault","api"]}}`, 201, []string{"vault"}, &request.User{Name: "ann"}, []string{"vault"}, ""},
			{"yes, but for the API alone", head + `{"authenticated":true,"user":{"username":"ann"}}}`, 200, []string{"vault"}, nil, nil, ""},
			{"no", head + `{"authenticated":false}}`, 200, []string{"api"}, nil, nil, ""},
			{"no, because", head + `{"authenticated":false,"error":"too old"}}`, 200, []string{"api"}, nil, nil, "too old"},
			{"a bare status", `{"status":{"authenticated":true,"user":{"username":"ann"}}}`, 200, []string{"api"}, &request.User{Name: "ann"}, []string{"api"}, ""},
			{"rubbish", `<html>`, 200, []string{"api"}, nil, nil, "no TokenReview"},
			{"something else", `{"apiVersion":"v1","kind":"Pod"}`, 200, []string{"api"}, nil, nil, "Pod of v1"},
			{"forbidden", `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"not you","code":403}`, 403, []string{"api"}, nil, nil, "not you"},
		} {
			t.Run(version+" "+c.name, func(t *testing.T) {
				w := webhooktest.New(t)
				w.Say(c.code, c.answer)
				u, auds, err := tokens(t, w, version, 0).AuthenticateToken(context.Background(), "secret", c.auds)
				if !reflect.DeepEqual(u, c.want) || !reflect.DeepEqual(auds, c.got) || (err == nil) != (c.bad == "") || err != nil && !strings.Contains(err.Error(), c.bad) {
					t.Errorf("got %+v for %v, %v", u, auds, err)
				}
				b := w.Bodies()[0]
				spec, _ := b["spec"].(map[string]any)
				if b["apiVersion"] != "authentication.k8s.io/"+version || b["kind"] != "TokenReview" || spec["token"] != "secret" || !reflect.DeepEqual(spec["audiences"], []any{c.auds[0]}) {
					t.Errorf("sent %v", b)
				}
			})
		}
	}
	if _, err := NewTokens(TokenConfig{Version: "v2"}); err == nil || !strings.Contains(err.Error(), "v1 or v1beta1") {
		t.Errorf("a version there is not: %v", err)
	}
}

func TestTokensAreRemembered(t *testing.T) {
	w := webhooktest.New(t)
	w.Say(200, `{"status":{"authenticated":true,"user":{"username":"ann"}}}`)
	a := tokens(t, w, "v1", time.Hour)
	m := metrics.New("")
	a.tally = &m.Tokens
	ask := func(token string, auds ...string) *request.User {
		u, _, err := a.AuthenticateToken(context.Background(), token, auds)
		if err != nil {
			t.Error(err)
		}
		return u
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { ask("a", "api") })
	}
	wg.Wait()
	if n := w.Calls(); n != 1 {
		t.Errorf("20 times the same token: %d calls", n)
	}
	ask("a", "api", "vault")
	ask("b", "api")
	if n := w.Calls(); n != 3 {
		t.Errorf("another audience and another token: %d calls", n)
	}
	w.Say(200, `{"status":{"authenticated":false}}`)
	for range 2 {
		if ask("c", "api") != nil {
			t.Error("c is good")
		}
	}
	if n := w.Calls(); n != 4 {
		t.Errorf("a no is not remembered: %d calls", n)
	}
	w.Say(500, `{}`)
	for range 2 {
		if _, _, err := a.AuthenticateToken(context.Background(), "d", []string{"api"}); err == nil {
			t.Error("d is good")
		}
	}
	if n := w.Calls(); n != 4+2*5 {
		t.Errorf("five tries each, and a failure is not remembered: %d calls", n)
	}
	metricstest.Expect(t, m, `authentication_token_cache_fetch_total{status="ok"} 4`, `authentication_token_cache_fetch_total{status="error"} 2`, `authentication_token_cache_active_fetch_count{status="blocked"} 0`)
}

func TestTokenWebhookHangs(t *testing.T) {
	w := webhooktest.New(t)
	release := w.Hang()
	defer release()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	a := tokens(t, w, "v1", 0)
	go func() {
		_, _, err := a.AuthenticateToken(ctx, "a", []string{"api"})
		done <- err
	}()
	cancel()
	if err := <-done; err == nil {
		t.Error("no error for a client that went away")
	}
}

func access(t *testing.T, w *webhooktest.Webhook, change func(*AccessConfig), conditions ...string) *Access {
	t.Helper()
	c := AccessConfig{Name: "hook", Client: client(t, w, callout.Options{Timeout: 5 * time.Second}), Version: "v1", Log: quiet}
	if change != nil {
		change(&c)
	}
	if len(conditions) > 0 {
		var all []apiserver.WebhookMatchCondition
		for _, x := range conditions {
			all = append(all, apiserver.WebhookMatchCondition{Expression: x})
		}
		match, bad := validation.ValidateAndCompileMatchConditions(authorizationcel.NewDefaultCompiler(), all)
		if len(bad) > 0 {
			t.Fatal(bad)
		}
		c.Match = match
	}
	x, err := NewAccess(c)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

var (
	ann      = &request.User{Name: "ann", UID: "1", Groups: []string{"g"}, Extra: map[string][]string{"k": {"v"}}}
	listPods = auth.Attributes{Verb: "list", Namespace: "ns", Version: "v1", Resource: "pods", IsResource: true, FieldSelector: "spec.nodeName=n,status.phase!=Failed", LabelSelector: "a in (x,y),!b,c=d"}
)

func TestAccess(t *testing.T) {
	w := webhooktest.New(t)
	m := metrics.New("")
	for _, c := range []struct {
		name, answer string
		code         int
		onError      auth.Decision
		want         auth.Decision
		why, bad     string
	}{
		{"yes", `{"status":{"allowed":true,"reason":"friend"}}`, 200, auth.Deny, auth.Allow, "friend", ""},
		{"no opinion", `{"status":{"allowed":false,"reason":"who?"}}`, 200, auth.Deny, auth.NoOpinion, "who?", ""},
		{"no", `{"status":{"allowed":false,"denied":true,"reason":"foe"}}`, 200, auth.NoOpinion, auth.Deny, "foe", ""},
		{"both", `{"status":{"allowed":true,"denied":true}}`, 200, auth.NoOpinion, auth.Deny, "", "both allow and deny"},
		{"rubbish, open", `<html>`, 200, auth.NoOpinion, auth.NoOpinion, "", "no SubjectAccessReview"},
		{"rubbish, closed", `<html>`, 200, auth.Deny, auth.Deny, "", "no SubjectAccessReview"},
		{"another kind", `{"apiVersion":"authorization.k8s.io/v1beta1","kind":"SubjectAccessReview","status":{"allowed":true}}`, 200, auth.Deny, auth.Deny, "", "v1beta1"},
		{"fails, open", `{}`, 500, auth.NoOpinion, auth.NoOpinion, "", "500"},
		{"fails, closed", `{}`, 500, auth.Deny, auth.Deny, "", "500"},
	} {
		w.Say(c.code, c.answer)
		x := access(t, w, func(a *AccessConfig) { a.OnError, a.Name, a.Metrics = c.onError, "w", m })
		d, why, err := x.Authorize(context.Background(), ann, listPods)
		if d != c.want || why != c.why || (err == nil) != (c.bad == "") || err != nil && !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%s: got %v %q %v", c.name, d, why, err)
		}
	}
	metricstest.Expect(t, m, `apiserver_authorization_webhook_evaluations_total{name="w",result="success"} 4`, `apiserver_authorization_webhook_evaluations_total{name="w",result="error"} 13`,
		`apiserver_authorization_webhook_evaluations_fail_open_total{name="w",result="error"} 2`, `apiserver_authorization_webhook_duration_seconds_count{name="w",result="error"} 13`)
	spec := w.Bodies()[0]["spec"]
	want := map[string]any{
		"user": "ann", "uid": "1", "groups": []any{"g"}, "extra": map[string]any{"k": []any{"v"}},
		"resourceAttributes": map[string]any{
			"verb": "list", "namespace": "ns", "version": "v1", "resource": "pods",
			"fieldSelector": map[string]any{"requirements": []any{
				map[string]any{"key": "spec.nodeName", "operator": "In", "values": []any{"n"}}, map[string]any{"key": "status.phase", "operator": "NotIn", "values": []any{"Failed"}},
			}},
			"labelSelector": map[string]any{"requirements": []any{
				map[string]any{"key": "a", "operator": "In", "values": []any{"x", "y"}}, map[string]any{"key": "b", "operator": "DoesNotExist"}, map[string]any{"key": "c", "operator": "In", "values": []any{"d"}},
			}},
		},
	}
	if !reflect.DeepEqual(spec, want) {
		t.Errorf("sent %v", spec)
	}
	before := w.Calls()
	w.Say(200, `{"apiVersion":"authorization.k8s.io/v1beta1","kind":"SubjectAccessReview","status":{"allowed":true}}`)
	d, _, err := access(t, w, func(a *AccessConfig) { a.Version = "v1beta1" }).Authorize(context.Background(), ann, listPods)
	old, _ := w.Bodies()[before]["spec"].(map[string]any)
	if d != auth.Allow || err != nil || !reflect.DeepEqual(old["group"], []any{"g"}) || old["groups"] != nil || old["user"] != "ann" || !reflect.DeepEqual(old["resourceAttributes"], want["resourceAttributes"]) {
		t.Errorf("v1beta1: %v, %v, sent %v", d, err, old)
	}
	if _, incomplete, err := access(t, w, nil).RulesFor(context.Background(), ann, "ns"); !incomplete || err == nil {
		t.Error("a webhook lists all that it allows")
	}
}

func TestAccessIsRemembered(t *testing.T) {
	w := webhooktest.New(t)
	x := access(t, w, func(a *AccessConfig) { a.Allowed = time.Hour })
	ask := func(a auth.Attributes) auth.Decision {
		d, _, _ := x.Authorize(context.Background(), ann, a)
		return d
	}
	path := auth.Attributes{Verb: "get", Path: "/x"}
	w.Say(200, `{"status":{"allowed":true}}`)
	if ask(path) != auth.Allow || ask(path) != auth.Allow || w.Calls() != 1 {
		t.Errorf("a yes: %d calls", w.Calls())
	}
	if ask(listPods); w.Calls() != 2 {
		t.Error("another question is not asked")
	}
	long := path
	long.Path = "/" + strings.Repeat("x", 10000)
	if ask(long); ask(long) != auth.Allow || w.Calls() != 4 {
		t.Errorf("a question of 10 kB is remembered: %d calls", w.Calls())
	}
	w.Say(200, `{"status":{"allowed":false}}`)
	path.Path = "/y"
	if ask(path); ask(path) != auth.NoOpinion || w.Calls() != 6 {
		t.Errorf("a no is remembered though it must not be: %d calls", w.Calls())
	}
}

func TestAccessMatchConditions(t *testing.T) {
	w := webhooktest.New(t)
	w.Say(200, `{"status":{"allowed":true}}`)
	secrets := auth.Attributes{Verb: "get", Namespace: "ns", Version: "v1", Resource: "secrets", Name: "s", IsResource: true}
	path := auth.Attributes{Verb: "get", Path: "/x"}
	only := `has(request.resourceAttributes) && request.resourceAttributes.resource == 'secrets'`
	for _, c := range []struct {
		conditions []string
		a          auth.Attributes
		asked      bool
		want       auth.Decision
		bad        bool
	}{
		{[]string{only}, secrets, true, auth.Allow, false},
		{[]string{only}, path, false, auth.NoOpinion, false},
		{[]string{only, `!('g' in request.groups)`}, secrets, false, auth.NoOpinion, false},
		{[]string{`request.resourceAttributes.resource == 'pods'`}, path, false, auth.Deny, true}, // there are none: an error
		{[]string{`request.resourceAttributes.resource == 'pods'`, `request.user == 'bob'`}, path, false, auth.NoOpinion, false},
		{[]string{`request.resourceAttributes.?fieldSelector.requirements.orValue([]).exists(r, r.key == 'spec.nodeName')`}, listPods, true, auth.Allow, false},
	} {
		before := w.Calls()
		d, _, err := access(t, w, func(a *AccessConfig) { a.OnError = auth.Deny }, c.conditions...).Authorize(context.Background(), ann, c.a)
		if asked := w.Calls() > before; d != c.want || (err != nil) != c.bad || asked != c.asked {
			t.Errorf("%v about %+v: %v %v, asked %v", c.conditions, c.a, d, err, asked)
		}
	}
}

func TestAccessHangs(t *testing.T) {
	w := webhooktest.New(t)
	release := w.Hang()
	defer release()
	m := metrics.New("")
	x := access(t, w, func(a *AccessConfig) {
		a.OnError, a.Name, a.Metrics = auth.Deny, "w", m
		a.Client = client(t, w, callout.Options{Timeout: 50 * time.Millisecond})
	})
	start := time.Now()
	d, _, err := x.Authorize(context.Background(), ann, listPods)
	if d != auth.Deny || err == nil {
		t.Errorf("got %v, %v", d, err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("a webhook that hangs holds a request for %s", took)
	}
	metricstest.Expect(t, m, `apiserver_authorization_webhook_evaluations_total{name="w",result="timeout"} 1`, "!apiserver_authorization_webhook_evaluations_fail_open_total")
}
