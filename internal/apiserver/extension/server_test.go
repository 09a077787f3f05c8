package extension_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"
	"sigs.k8s.io/yaml"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver"
	"github.com/proa-dev/proa/internal/apiserver/extension"
	"github.com/proa-dev/proa/internal/apiserver/extension/hook"
	"github.com/proa-dev/proa/internal/apiserver/inprocess"
	"github.com/proa-dev/proa/internal/apiserver/managedfields"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/store"
	"github.com/proa-dev/proa/internal/store/memory"
)

// server is an API server with custom resources, on a store in memory.
type server struct {
	t     *testing.T
	http  *httptest.Server
	store *memory.Store
}

func start(t *testing.T) *server { return startWith(t, time.Minute) }

// startWith gives conversion webhooks some time.
func startWith(t *testing.T, within time.Duration) *server {
	t.Helper()
	catalog, st := kinds.Catalog(), memory.New()
	c := cache.New(cache.Config{Store: st, Catalog: catalog, Decode: func(k *api.Kind, e store.Entry) (api.Object, error) {
		return wire.DecodeStorage(k, e.Value, e.Revision)
	}})
	documents := openapi.New(catalog, "v1.36.3")
	hooks := hook.New(catalog, func(k *api.Kind) cache.Reader { return c.Of(k) })
	custom := extension.New(extension.Config{Catalog: catalog, Cache: c, OpenAPI: documents, Hooks: hooks, ConvertWithin: within, Log: slogTo(t)})
	s, err := apiserver.New(apiserver.Config{
		Catalog: catalog, Cache: c, Store: st, OpenAPI: documents, Version: version.Info{Major: "1", Minor: "36"},
		Fields: managedfields.New(catalog, &openapi.Types{}, custom.TypeConverter),
	})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { c.Run(ctx); done <- struct{}{} }() //nolint:errcheck // it ends with ctx
	<-c.Ready()
	must(t, custom.Start(ctx, &inprocess.User{Verbs: s.Verbs(), User: &request.User{Name: "system:apiserver"}}))
	go func() { custom.Run(ctx); done <- struct{}{} }() //nolint:errcheck // it ends with ctx
	h := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		h.CloseClientConnections()
		h.Close()
		cancel()
		<-done
		<-done
		must(t, st.Close())
	})
	srv := &server{t, h, st}
	srv.ok("POST", "/api/v1/namespaces", `{"metadata":{"name":"x"}}`)
	return srv
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type object = map[string]any

// do a request with a body of YAML or JSON; headers as "Name: value".
func (s *server) do(method, path, body string, headers ...string) (int, object, http.Header) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.http.URL+path, strings.NewReader(body))
	must(s.t, err)
	r.Header.Set("Content-Type", "application/yaml")
	r.Header.Set("User-Agent", "tester/1.0")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	a, err := http.DefaultClient.Do(r)
	must(s.t, err)
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	must(s.t, err)
	out := object{}
	if err := json.Unmarshal(text, &out); err != nil && string(text) != "404 page not found\n" {
		s.t.Fatalf("%s %s: %d %s", method, path, a.StatusCode, text)
	}
	return a.StatusCode, out, a.Header
}

func (s *server) ok(method, path, body string, headers ...string) object {
	s.t.Helper()
	code, out, _ := s.do(method, path, body, headers...)
	if code > 299 {
		s.t.Fatalf("%s %s: %d %v", method, path, code, out["message"])
	}
	return out
}

// fails is a request that is refused with words.
func (s *server) fails(want int, words, method, path, body string, headers ...string) {
	s.t.Helper()
	code, out, _ := s.do(method, path, body, headers...)
	message, _ := out["message"].(string)
	if code != want || out["kind"] != "Status" || !strings.Contains(message, words) {
		s.t.Errorf("%s %s:\n got %d %v\nwant %d …%s…", method, path, code, out, want, words)
	}
}

// define a kind, and wait until it is served.
func (s *server) define(text string) {
	s.t.Helper()
	var d struct {
		Metadata struct{ Name string }
		Spec     struct {
			Group string
			Names struct{ Plural string }
		}
	}
	must(s.t, yaml.Unmarshal([]byte(text), &d))
	s.ok("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", text)
	s.until("it is served", func() bool {
		code, _, _ := s.do("GET", "/apis/"+d.Spec.Group+"/v1/"+d.Spec.Names.Plural, "")
		return code == 200
	})
}

// until something is so.
func (s *server) until(what string, ok func() bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	for tick := time.NewTicker(2 * time.Millisecond); !ok(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// names of what a list holds.
func (s *server) names(path string) string {
	s.t.Helper()
	var all []string
	items, _ := s.ok("GET", path, "")["items"].([]any)
	for _, item := range items {
		all = append(all, fmt.Sprint(at(item, "metadata", "name")))
	}
	return strings.Join(all, " ")
}

// at walks into JSON.
func at(v any, path ...string) any {
	for _, p := range path {
		m, _ := v.(object)
		v = m[p]
	}
	return v
}

// events of a watch, "TYPE name" each.
type events struct {
	t    *testing.T
	body io.Closer
	next *json.Decoder
}

func (s *server) watch(path string, headers ...string) *events {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), "GET", s.http.URL+path, nil)
	must(s.t, err)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	a, err := http.DefaultClient.Do(r)
	must(s.t, err)
	if a.StatusCode != 200 {
		text, _ := io.ReadAll(a.Body)
		s.t.Fatalf("watch %s: %d %s", path, a.StatusCode, text)
	}
	s.t.Cleanup(func() { a.Body.Close() })
	return &events{s.t, a.Body, json.NewDecoder(bufio.NewReader(a.Body))}
}

// expect an event, and return its object.
func (e *events) expect(want string) object {
	e.t.Helper()
	var got struct {
		Type   string
		Object object
	}
	if err := e.next.Decode(&got); err != nil {
		e.t.Fatalf("waited for %q: %v", want, err)
	}
	name := at(got.Object, "metadata", "name")
	if got.Object["kind"] == "Status" {
		name = got.Object["message"]
	}
	if said := fmt.Sprint(got.Type, " ", name); !strings.HasPrefix(said, want) {
		e.t.Fatalf("got %q, want %q", said, want)
	}
	return got.Object
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	must(t, err)
	return text
}

func raw(text string) runtime.RawExtension { return runtime.RawExtension{Raw: []byte(text)} }
