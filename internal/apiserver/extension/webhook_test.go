package extension_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-dev/proa/internal/store"
)

func slogTo(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// hostports are served as v1, {hostPort: "h:p"}, which is stored, and as v2,
// {host: h, port: p}: like those of upstream's conformance test.
const hostports = `
metadata: {name: hostports.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: hostports, kind: HostPort}
  conversion:
    strategy: Webhook
    webhook:
      clientConfig: {url: "URL", caBundle: "CA"}
      conversionReviewVersions: [VERSIONS]
  versions:
  - name: v1
    served: true
    storage: V1
    subresources: {status: {}, scale: {specReplicasPath: .spec.count, statusReplicasPath: .status.count}}
    selectableFields: [{jsonPath: .hostPort}]
    additionalPrinterColumns: [{name: HostPort, type: string, jsonPath: .hostPort}]
    schema: {openAPIV3Schema: {type: object, properties: {
      hostPort: {type: string}, spec: {type: object, properties: {count: {type: integer}}}, status: {type: object, properties: {count: {type: integer}}}}}}
  - name: v2
    served: true
    storage: V2
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    selectableFields: [{jsonPath: .host}, {jsonPath: .port}]
    additionalPrinterColumns: [{name: Host, type: string, jsonPath: .host}, {name: Port, type: string, jsonPath: .port}]
    schema: {openAPIV3Schema: {type: object, required: [host], properties: {
      host: {type: string, x-kubernetes-validations: [{rule: "self != 'bad'", message: no such host}]}, port: {type: string},
      spec: {type: object, properties: {replicas: {type: integer}}}, status: {type: object, properties: {replicas: {type: integer}}}}}}
`

// converter is a conversion webhook, and what it was asked.
type converter struct {
	*httptest.Server
	hang chan struct{}

	mu    sync.Mutex
	asked []apiextensionsv1.ConversionReview
	spoil func(*apiextensionsv1.ConversionReview, []object) // changes an answer; nil = nothing
}

func newConverter(t *testing.T) *converter {
	c := &converter{hang: make(chan struct{})}
	close(c.hang)
	c.Server = httptest.NewTLSServer(c)
	t.Cleanup(c.Close)
	return c
}

// define the kind with this webhook. stored is the version that is stored.
func (c *converter) definition(stored, reviews string) string {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw})
	return strings.NewReplacer("URL", c.URL+"/convert", "CA", base64.StdEncoding.EncodeToString(ca), "VERSIONS", reviews,
		"V1", fmt.Sprint(stored == "v1"), "V2", fmt.Sprint(stored == "v2")).Replace(hostports)
}

func (c *converter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-c.waiting():
	case <-r.Context().Done():
		return
	}
	var review apiextensionsv1.ConversionReview
	text, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(text, &review); err != nil || r.URL.Path != "/convert" || r.Method != "POST" {
		http.Error(w, "no review", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, review)
	answer := &apiextensionsv1.ConversionReview{TypeMeta: review.TypeMeta, Response: &apiextensionsv1.ConversionResponse{
		UID: review.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess},
	}}
	var objs []object
	for _, raw := range review.Request.Objects {
		var obj object
		if err := json.Unmarshal(raw.Raw, &obj); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		convert(obj, review.Request.DesiredAPIVersion)
		objs = append(objs, obj)
	}
	if c.spoil != nil {
		c.spoil(answer, objs)
	}
	for _, obj := range objs {
		raw, _ := json.Marshal(obj)
		if answer.Response != nil {
			answer.Response.ConvertedObjects = append(answer.Response.ConvertedObjects, runtime.RawExtension{Raw: raw})
		}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer) //nolint:errcheck // the test sees it
}

func convert(obj object, to string) {
	if obj["apiVersion"] == to {
		panic("asked to convert what is in the version already")
	}
	move := func(in, from, to string) {
		m, _ := obj[in].(object)
		if v, ok := m[from]; ok {
			delete(m, from)
			m[to] = v
		}
	}
	switch to {
	case "example.com/v1":
		obj["hostPort"] = fmt.Sprint(obj["host"], ":", obj["port"])
		delete(obj, "host")
		delete(obj, "port")
		move("spec", "replicas", "count")
		move("status", "replicas", "count")
	case "example.com/v2":
		text, _ := obj["hostPort"].(string)
		obj["host"], obj["port"], _ = strings.Cut(text, ":")
		delete(obj, "hostPort")
		move("spec", "count", "replicas")
		move("status", "count", "replicas")
	}
	obj["apiVersion"] = to
}

func (c *converter) waiting() chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hang
}

// reviews since the last call: how many objects were in each.
func (c *converter) reviews() (sizes []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.asked {
		sizes = append(sizes, len(r.Request.Objects))
	}
	c.asked = nil
	return sizes
}

func (c *converter) spoilWith(f func(*apiextensionsv1.ConversionReview, []object)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spoil = f
}

const (
	v1s = "/apis/example.com/v1/namespaces/x/hostports"
	v2s = "/apis/example.com/v2/namespaces/x/hostports"
)

func v1(name, hostPort string) string {
	return fmt.Sprintf("{apiVersion: example.com/v1, kind: HostPort, metadata: {name: %s}, hostPort: %q, spec: {count: 1}}", name, hostPort)
}

func v2(name, host, port string) string {
	return fmt.Sprintf("{apiVersion: example.com/v2, kind: HostPort, metadata: {name: %s}, host: %q, port: %q, spec: {replicas: 1}}", name, host, port)
}

func TestWebhookConverts(t *testing.T) {
	for _, reviews := range []string{"v1", "v1beta1", "v9, v1beta1, v1"} {
		t.Run(reviews, func(t *testing.T) {
			s, c := start(t), newConverter(t)
			s.define(c.definition("v1", reviews))
			if out := s.ok("POST", v2s, v2("a", "host1", "80")); out["host"] != "host1" || out["hostPort"] != nil || at(out, "metadata", "generation") != 1.0 {
				t.Errorf("created as %v", out)
			}
			if out := s.ok("GET", v1s+"/a", ""); out["hostPort"] != "host1:80" || out["host"] != nil || out["apiVersion"] != "example.com/v1" {
				t.Errorf("in v1 %v", out)
			}
			if got := s.stored("a"); got["hostPort"] != "host1:80" || got["apiVersion"] != "example.com/v1" {
				t.Errorf("stored %v", got)
			}
			want := "apiextensions.k8s.io/v1"
			if reviews != "v1" {
				want += "beta1"
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if r := c.asked[0]; r.APIVersion != want || r.Kind != "ConversionReview" || r.Request.UID == "" || r.Request.DesiredAPIVersion != "example.com/v1" || r.Response != nil {
				t.Errorf("asked %+v", r)
			}
		})
	}
}

// stored is what the store keeps of an object.
func (s *server) stored(name string) (out object) {
	s.t.Helper()
	_, err := s.store.Range(s.t.Context(), "/example.com/hostports/x/"+name, store.RangeOptions{}, func(e store.Entry) bool {
		must(s.t, json.Unmarshal(e.Value, &out))
		return true
	})
	must(s.t, err)
	return out
}

func TestSelectorsAreThoseOfAVersion(t *testing.T) {
	s, c := start(t), newConverter(t)
	s.define(c.definition("v1", "v1"))
	watches := map[string]*events{}
	for _, sel := range []string{v2s + "?fieldSelector=host%3Dhost1", v2s + "?fieldSelector=host%3Dhost1,port%3D80", v1s + "?fieldSelector=hostPort%3Dhost1:80"} {
		watches[sel] = s.watch(sel + "&watch=true")
	}
	s.ok("POST", v2s, v2("a", "host1", "80"))
	s.ok("POST", v2s, v2("b", "host1", "8080"))
	s.ok("POST", v1s, v1("c", "host2:80"))
	for path, want := range map[string]string{
		v2s + "?fieldSelector=host%3Dhost1":                                     "a b",
		v2s + "?fieldSelector=host%3Dhost1,port%3D80":                           "a",
		v2s + "?fieldSelector=host!%3Dhost1":                                    "c",
		v2s + "?fieldSelector=host%3Dhost1&limit=1":                             "a",
		v2s + "?fieldSelector=host%3Dhost1,metadata.name%3Db":                   "b",
		v1s + "?fieldSelector=hostPort%3Dhost1:80":                              "a",
		v1s + "?fieldSelector=hostPort%3Dhost1:8080,metadata.namespace%3Dx":     "b",
		"/apis/example.com/v2/hostports?fieldSelector=port%3D80":                "a c",
		"/apis/example.com/v2/hostports?fieldSelector=host%3Dhost1&limit=2":     "a b",
		"/apis/example.com/v2/hostports?fieldSelector=host%3Dhost3":             "",
		"/apis/example.com/v1/hostports?fieldSelector=metadata.namespace%3Dx":   "a b c",
		"/apis/example.com/v1/hostports?fieldSelector=metadata.namespace%3Dnix": "",
	} {
		if got := s.names(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	s.fails(400, "field label not supported: hostPort", "GET", v2s+"?fieldSelector=hostPort%3Dhost1:80", "")
	s.fails(400, "field label not supported: host", "GET", v1s+"?fieldSelector=host%3Dhost1", "")
	s.fails(400, "field label not supported: host", "GET", v1s+"?watch=true&fieldSelector=host%3Dhost1", "")
	s.fails(400, "field label not supported: host", "DELETE", v1s+"?fieldSelector=host%3Dhost1", "")

	s.ok("DELETE", v2s+"?fieldSelector=host%3Dhost1,port%3D80", "")
	b := s.ok("GET", v2s+"/b", "")
	b["host"] = "host2"
	text, _ := json.Marshal(b)
	s.ok("PUT", v2s+"/b", string(text))
	if got := s.names(v2s + "?fieldSelector=host%3Dhost1"); got != "" {
		t.Errorf("left: %q", got)
	}
	one := watches[v2s+"?fieldSelector=host%3Dhost1"]
	if obj := one.expect("ADDED a"); obj["host"] != "host1" || obj["apiVersion"] != "example.com/v2" {
		t.Errorf("watched in v2: %v", obj)
	}
	one.expect("ADDED b")
	one.expect("DELETED a")
	if obj := one.expect("DELETED b"); obj["host"] != "host1" { // as it last was in sight
		t.Errorf("left sight as %v", obj)
	}
	two := watches[v2s+"?fieldSelector=host%3Dhost1,port%3D80"]
	two.expect("ADDED a")
	two.expect("DELETED a")
	three := watches[v1s+"?fieldSelector=hostPort%3Dhost1:80"]
	if obj := three.expect("ADDED a"); obj["hostPort"] != "host1:80" {
		t.Errorf("watched in v1: %v", obj)
	}
	three.expect("DELETED a")
}

func TestListsAreConvertedAtOnce(t *testing.T) {
	s, c := start(t), newConverter(t)
	s.define(c.definition("v1", "v1"))
	for i := range 30 {
		s.ok("POST", v1s, v1(fmt.Sprintf("o%02d", i), fmt.Sprintf("h%d:%d", i%2, i)))
	}
	if n := c.reviews(); len(n) != 0 {
		t.Errorf("the version that is stored was converted: %v", n)
	}
	if items, _ := s.ok("GET", v2s, "")["items"].([]any); len(items) != 30 || at(items[3], "host") != "h1" || at(items[3], "port") != "3" {
		t.Errorf("list in v2: %v", items)
	}
	if n := c.reviews(); fmt.Sprint(n) != "[30]" {
		t.Errorf("the list was converted in parts of %v", n)
	}
	if got := s.names(v2s + "?fieldSelector=host%3Dh0"); strings.Count(got, "o") != 15 {
		t.Errorf("selected %q", got)
	}
	if n := c.reviews(); len(n) != 0 {
		t.Errorf("what was converted before was converted again: %v", n)
	}
	s.ok("POST", v1s, v1("new", "h0:1"))
	s.names(v2s + "?fieldSelector=host%3Dh0")
	w := s.watch(v2s + "?watch=true")
	for i := range 31 {
		w.expect([]string{"ADDED new", "ADDED o"}[min(i, 1)])
	}
	if n := c.reviews(); fmt.Sprint(n) != "[1]" {
		t.Errorf("one new object was converted in %v", n)
	}
	table := s.ok("GET", v2s+"/new", "", "Accept: application/json;as=Table;v=v1;g=meta.k8s.io")
	if got := fmt.Sprint(at(table["columnDefinitions"].([]any)[1], "name"), at(table["rows"].([]any)[0], "cells")); got != "Host[new h0 1]" {
		t.Errorf("table in v2: %s", got)
	}
	table = s.ok("GET", v1s+"/new", "", "Accept: application/json;as=Table;v=v1;g=meta.k8s.io")
	if got := fmt.Sprint(at(table["columnDefinitions"].([]any)[1], "name"), at(table["rows"].([]any)[0], "cells")); got != "HostPort[new h0:1]" {
		t.Errorf("table in v1: %s", got)
	}
}

func TestRulesOfTheVersionAsked(t *testing.T) {
	s, c := start(t), newConverter(t)
	s.define(c.definition("v1", "v1"))
	s.fails(422, "no such host", "POST", v2s, v2("a", "bad", "1"))
	s.fails(422, "host: Required value", "POST", v2s, "{apiVersion: example.com/v2, kind: HostPort, metadata: {name: a}}")
	s.fails(400, "does not match the expected API version", "POST", v2s, v1("a", "h:1"))
	s.fails(400, `unknown field "hostPort"`, "POST", v2s+"?fieldValidation=Strict", v2("a", "h", "1")[:len(v2("a", "h", "1"))-1]+", hostPort: x}")
	s.ok("POST", v1s, v1("a", "bad:1")) // v1 does not mind
	s.ok("PATCH", v2s+"/a", `{"metadata":{"labels":{"a":"b"}}}`, "Content-Type: application/merge-patch+json")
	s.fails(422, "no such host", "PATCH", v2s+"/b?fieldManager=m", v2("b", "bad", "1"), "Content-Type: application/apply-patch+yaml")
	s.fails(400, "invalid object type: example.com/v1", "PATCH", v2s+"/a?fieldManager=m", v1("a", "h:1"), "Content-Type: application/apply-patch+yaml")
	c.reviews()
	out := s.ok("POST", v2s+"?dryRun=All", v2("b", "h", "1"))
	if n := c.reviews(); out["host"] != "h" || len(n) != 0 {
		t.Errorf("tried %v, with %v conversions", out, n)
	}
}
