package apiserver

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

func TestPaths(t *testing.T) {
	broken := errors.New("it is")
	h := newHarness(t, func(c *Config) {
		c.Checks = []Check{{Name: "mine", Do: func(context.Context) error { return broken }}}
	})
	if r := h.ok("GET", "/livez/ping", ""); string(r.body) != "ok" {
		t.Error(r)
	}
	if r := h.do("GET", "/readyz?verbose", ""); r.code != 500 || !strings.Contains(string(r.body), "[-]mine failed: reason withheld\n") || !strings.Contains(string(r.body), "[+]ping ok\n") || !strings.Contains(string(r.body), "readyz check failed") {
		t.Error(r)
	}
	if r := h.ok("GET", "/healthz?verbose&exclude=mine", ""); !strings.Contains(string(r.body), "healthz check passed") {
		t.Error(r)
	}
	if r := h.ok("GET", "/version", ""); r.at("gitVersion") != "v1.36.3" {
		t.Error(r)
	}
	if r := h.ok("GET", "/metrics", ""); !strings.Contains(string(r.body), `apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="namespaces",scope="cluster",subresource="",verb="POST",version="v1"} 1`) {
		t.Errorf("%.2000s", r.body)
	}
	if r := h.ok("GET", "/", ""); !strings.Contains(string(r.body), `"/apis/apps/v1"`) {
		t.Error(r)
	}
	if r := h.do("GET", "/nothing", ""); r.code != 404 {
		t.Error(r)
	}
	h.ok("GET", "/openapi/v3", "")
}

func TestDiscovery(t *testing.T) {
	h := newHarness(t)
	if r := h.ok("GET", "/api", ""); r.at("kind") != "APIVersions" || r.at("versions", 0) != "v1" {
		t.Error(r)
	}
	if r := h.ok("GET", "/apis/apps", ""); r.at("kind") != "APIGroup" || r.at("preferredVersion", "groupVersion") != "apps/v1" {
		t.Error(r)
	}
	if r := h.ok("GET", "/apis/autoscaling", ""); r.at("preferredVersion", "version") != "v2" {
		t.Error(r)
	}
	r := h.ok("GET", "/api/v1", "")
	body := string(r.body)
	for _, want := range []string{`"name":"pods"`, `"name":"pods/eviction"`, `"kind":"Eviction"`, `"shortNames":["po"]`} {
		if !strings.Contains(body, want) {
			t.Errorf("/api/v1 lacks %s", want)
		}
	}
	accept := "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
	all := h.ok("GET", "/apis", "", accept)
	if all.at("kind") != "APIGroupDiscoveryList" || all.at("items", 0, "metadata", "name") != "apps" || all.header.Get("Content-Type") != "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList" {
		t.Errorf("%.300s", all.body)
	}
	if again := h.do("GET", "/apis", "", accept, "If-None-Match: "+all.header.Get("ETag")); again.code != http.StatusNotModified {
		t.Errorf("%d", again.code)
	}
	if r := h.do("GET", "/apis/none/v1", ""); r.code != 404 {
		t.Error(r)
	}
}

type nobody struct{}

func (nobody) Authorize(_ context.Context, u *request.User, a auth.Attributes) (auth.Decision, string, error) {
	if a.Verb == "create" && a.Resource == "namespaces" {
		return auth.Allow, "", nil
	}
	return auth.NoOpinion, "", nil
}

func TestForbidden(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.Authorizer = nobody{} })
	h.fails(403, "Forbidden", `pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "default"`, "GET", podsPath, "")
	h.fails(403, "Forbidden", `deployments.apps "d" is forbidden: User "system:anonymous" cannot get resource "deployments/scale" in API group "apps" in the namespace "default"`, "GET", deploys+"/d/scale", "")
	h.fails(403, "Forbidden", `forbidden: User "system:anonymous" cannot get path "/metrics"`, "GET", "/metrics", "")
}

func TestTooManyAtOnce(t *testing.T) {
	h := newHarness(t)
	h.server.writes.max = 0
	r := h.do("POST", cms, cm("a", ""))
	if r.code != 429 || r.header.Get("Retry-After") != "1" {
		t.Error(r)
	}
}
