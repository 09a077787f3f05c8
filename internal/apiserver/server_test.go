package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/version"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver/managedfields"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
	"github.com/proa-dev/proa/internal/apiserver/stream"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/store"
	"github.com/proa-dev/proa/internal/store/memory"
)

// harness is the real chain on a store in memory.
type harness struct {
	t      testing.TB
	server *Server
	store  *memory.Store
	http   *httptest.Server
}

func newHarness(t testing.TB, change ...func(*Config)) *harness {
	t.Helper()
	catalog := kinds.Catalog()
	st := memory.New()
	c := cache.New(cache.Config{Store: st, Catalog: catalog, Decode: func(k *api.Kind, e store.Entry) (api.Object, error) {
		return wire.DecodeStorage(k, e.Value, e.Revision)
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	cfg := Config{
		Catalog: catalog, Cache: c, Store: st, Fields: managedfields.New(catalog, &openapi.Types{}, nil),
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/24")}, OpenAPI: openapi.New(catalog, "v1.36.3"),
		Version: version.Info{Major: "1", Minor: "36", GitVersion: "v1.36.3"}, Kubelet: stream.Config{},
	}
	for _, f := range change {
		f(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	<-c.Ready()
	h := &harness{t, s, st, httptest.NewServer(s.Handler())}
	t.Cleanup(func() {
		h.http.CloseClientConnections()
		h.http.Close()
		cancel()
		<-done
		st.Close()
	})
	h.ok("POST", "/api/v1/namespaces", `{"metadata":{"name":"default"}}`)
	return h
}

// reply to a request.
type reply struct {
	code   int
	header http.Header
	body   []byte
	json   map[string]any
}

func (r reply) String() string { return fmt.Sprintf("%d %s", r.code, r.body) }

// at walks into the JSON of a reply: at("metadata", "name"), at("items", 0).
func (r reply) at(path ...any) any {
	var v any = r.json
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

// do a request; headers as "Name: value".
func (h *harness) do(method, path, body string, headers ...string) reply {
	h.t.Helper()
	req, err := http.NewRequest(method, h.http.URL+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", "tester/1.0")
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	r := reply{code: resp.StatusCode, header: resp.Header}
	r.body, _ = io.ReadAll(resp.Body)
	json.Unmarshal(r.body, &r.json)
	return r
}

// ok is do that must succeed.
func (h *harness) ok(method, path, body string, headers ...string) reply {
	h.t.Helper()
	r := h.do(method, path, body, headers...)
	if r.code < 200 || r.code > 299 {
		h.t.Fatalf("%s %s: %s", method, path, r)
	}
	return r
}

// fails is do that must be refused with these words.
func (h *harness) fails(code int, reason, words, method, path, body string, headers ...string) reply {
	h.t.Helper()
	r := h.do(method, path, body, headers...)
	message, _ := r.at("message").(string)
	got, _ := r.at("reason").(string)
	if r.code != code || got != reason || !strings.Contains(message, words) {
		h.t.Errorf("%s %s:\n got %d %s: %s\nwant %d %s: …%s…", method, path, r.code, got, message, code, reason, words)
	}
	return r
}

// watch opens a watch and returns a function that reads its next event.
func (h *harness) watch(path string, headers ...string) func() (string, map[string]any) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	h.t.Cleanup(cancel)
	req, _ := http.NewRequestWithContext(ctx, "GET", h.http.URL+path, nil)
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 {
		b, _ := io.ReadAll(resp.Body)
		h.t.Fatalf("watch %s: %d %s", path, resp.StatusCode, b)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 1<<16), 1<<24)
	return func() (string, map[string]any) {
		h.t.Helper()
		if !lines.Scan() {
			return "EOF", nil
		}
		var e struct {
			Type   string
			Object map[string]any
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			h.t.Fatalf("%s: %v", lines.Bytes(), err)
		}
		return e.Type, e.Object
	}
}

func name(obj map[string]any) string {
	m, _ := obj["metadata"].(map[string]any)
	n, _ := m["name"].(string)
	return n
}

func cm(name, data string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"labels":{"app":%q}},"data":{"k":%q}}`, name, name, data)
}

const cms = "/api/v1/namespaces/default/configmaps"

func somePod(name string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"labels":{"app":"x"}},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}]}]}}`, name)
}

const podsPath = "/api/v1/namespaces/default/pods"

func TestCreateAndGet(t *testing.T) {
	h := newHarness(t)
	r := h.ok("POST", cms, cm("a", "1"))
	if r.code != 201 || r.at("metadata", "uid") == nil || r.at("metadata", "creationTimestamp") == nil || r.at("kind") != "ConfigMap" || r.at("apiVersion") != "v1" || r.at("metadata", "namespace") != "default" {
		t.Errorf("created %s", r)
	}
	if got := h.ok("GET", cms+"/a", ""); !bytes.Equal(got.body, r.body) {
		t.Errorf("got %s\nwant %s", got.body, r.body)
	}
	if r.at("metadata", "managedFields", 0, "manager") != "tester" {
		t.Errorf("managed fields %v", r.at("metadata", "managedFields"))
	}
	h.fails(409, "AlreadyExists", `configmaps "a" already exists`, "POST", cms, cm("a", "1"))
	h.fails(404, "NotFound", `configmaps "b" not found`, "GET", cms+"/b", "")
	h.fails(400, "BadRequest", "the namespace of the provided object does not match the namespace sent on the request", "POST", cms, `{"metadata":{"name":"x","namespace":"other"}}`)
	h.fails(400, "BadRequest", "resourceVersion should not be set on objects to be created", "POST", cms, `{"metadata":{"name":"x","resourceVersion":"5"}}`)
	h.fails(422, "Invalid", `ConfigMap "A_b" is invalid: metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain`, "POST", cms, `{"metadata":{"name":"A_b"}}`)
	h.fails(422, "Invalid", "name or generateName is required", "POST", cms, `{}`)
	h.fails(400, "BadRequest", `does not match the expected`, "POST", cms, `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"x"}}`)
	h.fails(400, "BadRequest", `unknown field "foo"`, "POST", cms+"?fieldValidation=Strict", `{"metadata":{"name":"x"},"foo":1}`)
	h.fails(422, "Invalid", `Unsupported value: ["x"]: supported values: "All"`, "POST", cms+"?dryRun=x", cm("b", ""))
	h.fails(415, "UnsupportedMediaType", "the body of the request was in an unknown format", "POST", cms, "x", "Content-Type: text/plain")
	h.fails(406, "NotAcceptable", "only the following media types are accepted", "GET", cms, "", "Accept: image/png")
	h.fails(413, "RequestEntityTooLarge", "limit is 3145728", "POST", cms, strings.Repeat("x", 4<<20))
	if r := h.ok("POST", cms, `{"metadata":{"name":"w"},"foo":1}`); !strings.Contains(r.header.Get("Warning"), `299 - "unknown field \"foo\""`) {
		t.Errorf("warning %q", r.header.Get("Warning"))
	}
	if r := h.ok("POST", cms, `{"metadata":{"generateName":"gen-"}}`); !strings.HasPrefix(r.at("metadata", "name").(string), "gen-") || len(r.at("metadata", "name").(string)) != 9 {
		t.Errorf("generated %v", r.at("metadata", "name"))
	}
	if r := h.ok("POST", cms+"?dryRun=All", cm("dry", "")); r.at("metadata", "uid") == nil || r.at("metadata", "resourceVersion") != nil {
		t.Errorf("dry run %s", r)
	}
	h.fails(404, "NotFound", "dry", "GET", cms+"/dry", "")
	if r := h.do("GET", "/api/v1/nonsense", ""); r.code != 404 || r.at("message") != "the server could not find the requested resource" {
		t.Errorf("unknown resource: %s", r)
	}
	h.fails(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", "POST", cms+"/a", cm("a", ""))
}

func TestYAMLAndProtobuf(t *testing.T) {
	h := newHarness(t)
	h.ok("POST", cms, "kind: ConfigMap\napiVersion: v1\nmetadata:\n  name: yam\ndata:\n  k: v\n", "Content-Type: application/yaml")
	r := h.ok("GET", cms+"/yam", "", "Accept: application/yaml")
	if !strings.Contains(string(r.body), "\nkind: ConfigMap\n") || r.header.Get("Content-Type") != "application/yaml" {
		t.Errorf("yaml: %s", r.body)
	}
	r = h.ok("GET", cms+"/yam", "", "Accept: application/vnd.kubernetes.protobuf")
	var got corev1.ConfigMap
	if !bytes.HasPrefix(r.body, []byte("k8s\x00")) {
		t.Fatalf("protobuf: %q", r.body)
	}
	k, _ := h.server.cfg.Catalog.Type(&got)
	obj, _, err := wire.Decode(wire.Protobuf, r.body, api.Served{Kind: k}, wire.Strict)
	if err != nil || obj.GetName() != "yam" {
		t.Fatalf("%v %v", obj, err)
	}
	r = h.ok("PUT", cms+"/yam", string(r.body), "Content-Type: application/vnd.kubernetes.protobuf")
	if r.at("data", "k") != "v" {
		t.Errorf("updated from protobuf: %s", r)
	}
}

func TestUpdate(t *testing.T) {
	h := newHarness(t)
	r := h.ok("POST", cms, cm("a", "1"))
	rv := r.at("metadata", "resourceVersion").(string)
	same := h.ok("PUT", cms+"/a", string(r.body))
	if same.at("metadata", "resourceVersion") != rv {
		t.Errorf("an update that changes nothing wrote: %v, was %v", same.at("metadata", "resourceVersion"), rv)
	}
	n := h.ok("PUT", cms+"/a", cm("a", "2"))
	if n.at("metadata", "resourceVersion") == rv || n.at("metadata", "uid") != r.at("metadata", "uid") || n.at("data", "k") != "2" {
		t.Errorf("updated %s", n)
	}
	old := strings.Replace(cm("a", "3"), `"name":"a"`, `"name":"a","resourceVersion":"`+rv+`"`, 1)
	h.fails(409, "Conflict", `Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again`, "PUT", cms+"/a", old)
	h.fails(409, "Conflict", "Precondition failed: UID in precondition: u, UID in object meta: ", "PUT", cms+"/a", strings.Replace(cm("a", "3"), `"name":"a"`, `"name":"a","uid":"u"`, 1))
	h.fails(404, "NotFound", `configmaps "zz" not found`, "PUT", cms+"/zz", cm("zz", ""))
	h.fails(400, "BadRequest", `the name of the object (b) does not match the name on the URL (a)`, "PUT", cms+"/a", cm("b", ""))
	if d := h.ok("PUT", cms+"/a?dryRun=All", cm("a", "9")); d.at("data", "k") != "9" {
		t.Errorf("dry run %s", d)
	}
	if g := h.ok("GET", cms+"/a", ""); g.at("data", "k") != "2" {
		t.Errorf("after a dry run %s", g)
	}
	created := h.ok("PUT", "/apis/coordination.k8s.io/v1/namespaces/default/leases/new", `{"metadata":{"name":"new"},"spec":{}}`)
	if created.code != 201 {
		t.Errorf("create on update: %s", created)
	}
}

func TestPatch(t *testing.T) {
	h := newHarness(t)
	h.ok("POST", podsPath, somePod("p"))
	const (
		jsonPatch = "Content-Type: application/json-patch+json"
		merge     = "Content-Type: application/merge-patch+json"
		strategic = "Content-Type: application/strategic-merge-patch+json"
		apply     = "Content-Type: application/apply-patch+yaml"
	)
	r := h.ok("PATCH", podsPath+"/p", `[{"op":"add","path":"/metadata/labels/x","value":"1"}]`, jsonPatch)
	if r.at("metadata", "labels", "x") != "1" {
		t.Error(r)
	}
	r = h.ok("PATCH", podsPath+"/p", `{"metadata":{"labels":{"x":null,"y":"2"}}}`, merge)
	if r.at("metadata", "labels", "x") != nil || r.at("metadata", "labels", "y") != "2" || r.at("metadata", "labels", "app") != "x" {
		t.Error(r)
	}
	r = h.ok("PATCH", podsPath+"/p", `{"spec":{"containers":[{"name":"c","image":"i2"}]}}`, strategic)
	if r.at("spec", "containers", 0, "image") != "i2" || r.at("spec", "containers", 0, "ports", 0, "containerPort") != 80.0 {
		t.Error(r)
	}
	r = h.ok("PATCH", podsPath+"/p/status", `{"status":{"conditions":[{"type":"Ready","status":"True"}],"podIP":"10.0.0.1"},"metadata":{"labels":{"ign":"1"}}}`, strategic)
	if r.at("status", "podIP") != "10.0.0.1" || r.at("status", "phase") != "Pending" {
		t.Error(r)
	}
	r = h.ok("PATCH", podsPath+"/p/status", `{"status":{"conditions":[{"type":"Other","status":"True"}]}}`, strategic)
	if c, _ := r.at("status", "conditions").([]any); len(c) != 2 {
		t.Errorf("conditions are not merged by type: %v", c)
	}
	r = h.ok("PATCH", podsPath+"/p?fieldManager=m", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","labels":{"ssa":"1"}}}`, apply)
	if r.at("metadata", "labels", "ssa") != "1" || r.at("metadata", "labels", "y") != "2" {
		t.Error(r)
	}
	r = h.ok("PATCH", cms+"/applied?fieldManager=m", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: applied\ndata: {a: b}\n", apply)
	if r.code != 201 || r.at("data", "a") != "b" {
		t.Error(r)
	}
	h.fails(409, "Conflict", `Apply failed with 1 conflict: conflict with "m": .data.a`, "PATCH", cms+"/applied?fieldManager=other", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: applied\ndata: {a: c}\n", apply)
	h.ok("PATCH", cms+"/applied?fieldManager=other&force=true", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: applied\ndata: {a: c}\n", apply)

	h.fails(415, "UnsupportedMediaType", "application/json-patch+json", "PATCH", podsPath+"/p", `{}`)
	h.fails(400, "BadRequest", "error decoding patch", "PATCH", podsPath+"/p", `{`, merge)
	h.fails(422, "Invalid", "fieldManager: Required value: is required for apply patch", "PATCH", cms+"/applied", "{}", apply)
	h.fails(422, "Invalid", "may not be specified for non-apply patch", "PATCH", cms+"/applied?force=true", "{}", merge)
	h.fails(404, "NotFound", `pods "none" not found`, "PATCH", podsPath+"/none", `{}`, merge)
	h.fails(400, "BadRequest", "the name of the object (q) does not match the name on the URL (p)", "PATCH", podsPath+"/p", `{"metadata":{"name":"q"}}`, merge)
	h.fails(409, "Conflict", "the object has been modified", "PATCH", podsPath+"/p", `{"metadata":{"resourceVersion":"1"}}`, merge)
	h.fails(422, "Invalid", `unknown field "spec.nope"`, "PATCH", podsPath+"/p?fieldValidation=Strict", `{"spec":{"nope":1}}`, merge)
	h.fails(422, "Invalid", "", "PATCH", podsPath+"/p", `[{"op":"remove","path":"/metadata/labels/none"}]`, jsonPatch)
	before := h.ok("GET", podsPath+"/p", "").at("metadata", "resourceVersion")
	if r := h.ok("PATCH", podsPath+"/p", `{"metadata":{"labels":{"y":"2"}}}`, merge); r.at("metadata", "resourceVersion") != before {
		t.Error("a patch that changes nothing wrote")
	}
}

func TestPatchesMeet(t *testing.T) {
	h := newHarness(t)
	h.ok("POST", cms, cm("a", "1"))
	errs := make(chan string, 20)
	for i := range 20 {
		go func() {
			r := h.do("PATCH", cms+"/a", fmt.Sprintf(`{"data":{"k%d":"v"}}`, i), "Content-Type: application/merge-patch+json")
			if r.code != 200 {
				errs <- r.String()
				return
			}
			errs <- ""
		}()
	}
	for range 20 {
		if e := <-errs; e != "" {
			t.Error(e)
		}
	}
	if d := h.ok("GET", cms+"/a", "").at("data").(map[string]any); len(d) != 21 {
		t.Errorf("%d of 21 keys: a patch was lost", len(d))
	}
}
