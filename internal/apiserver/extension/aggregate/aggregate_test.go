package aggregate_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/openapi3"
	"k8s.io/client-go/rest"
	"k8s.io/kube-openapi/pkg/spec3"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver"
	"github.com/proa-dev/proa/internal/apiserver/extension/aggregate"
	"github.com/proa-dev/proa/internal/apiserver/extension/hook"
	"github.com/proa-dev/proa/internal/apiserver/inprocess"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/store"
	"github.com/proa-dev/proa/internal/store/memory"
)

// fish is an API server of others, with one kind. Its ObjectMeta is not ours.
type fish struct {
	*httptest.Server
	old  bool         // it has no OpenAPI v3
	sick atomic.Bool  // it answers nothing
	asks atomic.Int64 // for documents
}

const fishV3 = `{"openapi":"3.0.0","info":{"title":"fish","version":"v1"},"paths":{"/apis/fish.example.com/v1/carps":{"get":{"operationId":"listCarp","responses":{"200":{"description":"OK"}}}}},
 "components":{"schemas":{"com.example.fish.Carp":{"type":"object","description":"A carp is a fish.","properties":{"length":{"type":"integer","description":"in mm"}},
 "x-kubernetes-group-version-kind":[{"group":"fish.example.com","version":"v1","kind":"Carp"}]}}}}`

const fishV2 = `{"swagger":"2.0","info":{"title":"fish","version":"v1"},"paths":{
 "/apis/fish.example.com/v1/carps":{"get":{"operationId":"listCarp","parameters":[{"$ref":"#/parameters/deep"}],"responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/com.example.fish.Carp"}}}}},
 "/apis/fish.example.com/v9/pikes":{"get":{"operationId":"listPike","responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/com.example.fish.Pike"}}}}},
 "/healthz":{"get":{"responses":{"200":{"description":"OK"}}}}},
 "parameters":{"deep":{"name":"deep","in":"query","type":"boolean"}},
 "definitions":{"com.example.fish.Pike":{"type":"object"},
 "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta":{"type":"object","description":"of another release"},
 "com.example.fish.Carp":{"type":"object","description":"A carp is a fish.","properties":{"length":{"type":"integer","description":"in mm"},"metadata":{"$ref":"#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}},
 "x-kubernetes-group-version-kind":[{"group":"fish.example.com","version":"v1","kind":"Carp"}]}}}`

func (f *fish) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.sick.Load() {
		http.Error(w, "not now", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if strings.HasPrefix(r.URL.Path, "/openapi/") {
		f.asks.Add(1)
		if user := r.Header.Get("X-Remote-User"); user != "system:aggregator" {
			http.Error(w, user+" may not", http.StatusForbidden)
			return
		}
	}
	switch path := r.URL.Path; {
	case path == "/apis/fish.example.com/v1":
		fmt.Fprint(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"fish.example.com/v1","resources":[{"name":"carps","singularName":"carp","namespaced":false,"kind":"Carp","verbs":["list"]}]}`)
	case path == "/openapi/v3" && !f.old:
		fmt.Fprint(w, `{"paths":{"apis/fish.example.com/v1":{"serverRelativeURL":"/openapi/v3/apis/fish.example.com/v1?hash=CARP"},"version":{"serverRelativeURL":"/openapi/v3/version?hash=X"}}}`)
	case path == "/openapi/v3/apis/fish.example.com/v1" && !f.old:
		w.Header().Set("ETag", `"CARP"`)
		if r.URL.Query().Get("hash") == "OLD" {
			http.Redirect(w, r, "/openapi/v3/apis/fish.example.com/v1?hash=CARP", http.StatusMovedPermanently)
			return
		}
		fmt.Fprint(w, fishV3)
	case path == "/openapi/v2":
		w.Header().Set("ETag", `"two"`)
		if r.Header.Get("If-None-Match") == `"two"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprint(w, fishV2)
	case path == "/apis/fish.example.com/v1/carps":
		fmt.Fprintf(w, `{"user":%q}`, r.Header.Get("X-Remote-User"))
	default:
		http.NotFound(w, r)
	}
}

// start our server with the fish behind an APIService.
func start(t *testing.T, f *fish) string {
	t.Helper()
	f.Server = httptest.NewTLSServer(f)
	t.Cleanup(f.Close)
	catalog, st := kinds.Catalog(), memory.New()
	c := cache.New(cache.Config{Store: st, Catalog: catalog, Decode: func(k *api.Kind, e store.Entry) (api.Object, error) {
		return wire.DecodeStorage(k, e.Value, e.Revision)
	}})
	of := func(k *api.Kind) cache.Reader { return c.Of(k) }
	documents := openapi.New(catalog, "v1.36.3")
	a := aggregate.New(aggregate.Config{
		Catalog: catalog, Of: of, Hooks: hook.New(catalog, of), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Certificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil },
	})
	documents.SetOthers(a.Documents)
	s, err := apiserver.New(apiserver.Config{
		Catalog: catalog, Cache: c, Store: st, OpenAPI: documents, Version: version.Info{Major: "1", Minor: "36"},
		Aggregated: a.Serve, Groups: a.Groups,
	})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { c.Run(ctx); done <- struct{}{} }() //nolint:errcheck // it ends with ctx
	<-c.Ready()
	go func() { //nolint:errcheck // it ends with ctx
		a.Run(ctx, &inprocess.User{Verbs: s.Verbs(), User: &request.User{Name: "system:apiserver"}})
		done <- struct{}{}
	}()
	h := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		h.Close()
		cancel()
		<-done
		<-done
		must(t, st.Close())
	})
	u, err := url.Parse(f.URL)
	must(t, err)
	do(t, "POST", h.URL+"/api/v1/namespaces", `{"metadata":{"name":"pond"}}`)
	do(t, "POST", h.URL+"/api/v1/namespaces/pond/services", `{"metadata":{"name":"fish"},"spec":{"type":"ExternalName","externalName":"localhost"}}`)
	do(t, "POST", h.URL+"/apis/apiregistration.k8s.io/v1/apiservices", fmt.Sprintf(`{"metadata":{"name":"v1.fish.example.com"},"spec":{"group":"fish.example.com","version":"v1",
		"service":{"namespace":"pond","name":"fish","port":%s},"insecureSkipTLSVerify":true,"groupPriorityMinimum":100,"versionPriority":100}}`, u.Port()))
	until(t, "the fish are available", func() bool { return available(t, h.URL) == "True" })
	return h.URL
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, method, url, body string) []byte {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	must(t, err)
	r.Header.Set("Content-Type", "application/json")
	a, err := http.DefaultClient.Do(r)
	must(t, err)
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	must(t, err)
	if a.StatusCode > 299 {
		t.Fatalf("%s %s: %s %s", method, url, a.Status, text)
	}
	return text
}

func available(t *testing.T, url string) string {
	t.Helper()
	var s struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	must(t, json.Unmarshal(do(t, "GET", url+"/apis/apiregistration.k8s.io/v1/apiservices/v1.fish.example.com", ""), &s))
	for _, c := range s.Status.Conditions {
		return c.Status
	}
	return ""
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for tick := time.NewTicker(2 * time.Millisecond); !ok(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

type swagger struct {
	Paths, Definitions, Parameters map[string]json.RawMessage
}

func v2(t *testing.T, url string) (doc swagger) {
	t.Helper()
	must(t, json.Unmarshal(do(t, "GET", url+"/openapi/v2", ""), &doc))
	return doc
}

var gv = schema.GroupVersion{Group: "fish.example.com", Version: "v1"}

// explain is what "kubectl explain" does.
func explain(t *testing.T, url string) (*spec3.OpenAPI, error) {
	t.Helper()
	client, err := discovery.NewDiscoveryClientForConfig(&rest.Config{Host: url})
	must(t, err)
	return openapi3.NewRoot(client.OpenAPIV3()).GVSpec(gv)
}

func TestDocumentsOfOthers(t *testing.T) {
	for name, f := range map[string]*fish{"v3": {}, "v2 alone": {old: true}} {
		t.Run(name, func(t *testing.T) {
			url := start(t, f)
			doc, err := explain(t, url)
			must(t, err)
			carp := doc.Components.Schemas["com.example.fish.Carp"]
			if carp == nil || carp.Description != "A carp is a fish." || carp.Properties["length"].Description != "in mm" || doc.Paths.Paths["/apis/fish.example.com/v1/carps"] == nil {
				t.Errorf("explained as %+v", doc)
			}
			if len(doc.Paths.Paths) != 1 {
				t.Errorf("paths %v", doc.Paths.Paths)
			}
			two := v2(t, url)
			if two.Paths["/apis/fish.example.com/v1/carps"] == nil || two.Paths["/apis/fish.example.com/v9/pikes"] != nil || two.Paths["/healthz"] != nil || two.Paths["/api/v1/pods"] == nil {
				t.Error("the paths are not ours and those of the group and version")
			}
			if two.Definitions["com.example.fish.Pike"] != nil || two.Definitions["io.k8s.api.core.v1.Pod"] == nil || two.Parameters["deep"] == nil {
				t.Error("the definitions are not ours and those that are needed")
			}
			const meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
			if ours := string(two.Definitions[meta]); strings.Contains(ours, "another release") || !strings.Contains(string(two.Definitions[meta+"_v2"]), "another release") ||
				!strings.Contains(string(two.Definitions["com.example.fish.Carp"]), `#/definitions/`+meta+`_v2"`) {
				t.Error("two definitions of one name were taken for one")
			}
			if got := string(do(t, "GET", url+"/apis/fish.example.com/v1/carps", "")); !strings.Contains(got, "system:anonymous") {
				t.Errorf("passed on as %s", got)
			}
			before := f.asks.Load()
			v2(t, url)
			if asked := f.asks.Load() - before; asked != 1 {
				t.Errorf("a second document took %d questions", asked)
			}

			do(t, "DELETE", url+"/apis/apiregistration.k8s.io/v1/apiservices/v1.fish.example.com", "")
			until(t, "the fish are gone", func() bool { _, err := explain(t, url); return err != nil })
			if two := v2(t, url); two.Paths["/apis/fish.example.com/v1/carps"] != nil || two.Definitions["com.example.fish.Carp"] != nil {
				t.Error("v2 still has them")
			}
		})
	}
}

// A server that fails takes its own documents with it, and nothing else.
func TestASickServer(t *testing.T) {
	f := &fish{}
	url := start(t, f)
	f.sick.Store(true)
	var index struct{ Paths map[string]json.RawMessage }
	must(t, json.Unmarshal(do(t, "GET", url+"/openapi/v3", ""), &index))
	if index.Paths["apis/apps/v1"] == nil || index.Paths["apis/fish.example.com/v1"] != nil {
		t.Errorf("index %v", index.Paths)
	}
	if two := v2(t, url); two.Paths["/api/v1/namespaces/{namespace}/pods"] == nil || two.Paths["/apis/fish.example.com/v1/carps"] != nil {
		t.Error("v2 is not ours alone")
	}
	f.sick.Store(false)
	until(t, "it is well again", func() bool { _, err := explain(t, url); return err == nil })
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	a, err := client.Get(url + "/openapi/v3/apis/fish.example.com/v1?hash=OLD")
	must(t, err)
	a.Body.Close()
	if a.StatusCode != http.StatusMovedPermanently || a.Header.Get("Location") != "/openapi/v3/apis/fish.example.com/v1?hash=CARP" {
		t.Errorf("an old hash: %s, to %s", a.Status, a.Header.Get("Location"))
	}
}
