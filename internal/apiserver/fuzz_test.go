package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"sigs.k8s.io/yaml"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver/admission"
	"github.com/proa-dev/proa/internal/apiserver/auth"
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

// prey is a server as clusters have it, with admission, policies and a custom
// resource, on a store in memory, for requests that may say anything.
type prey struct {
	catalog *api.Catalog
	store   *memory.Store
	handler http.Handler
	close   func()
	asked   int
}

// preyLife is how many requests a prey sees before another takes its place: what
// they write makes it grow, and less like a cluster.
const preyLife = 2000

func newPrey(t testing.TB) *prey {
	t.Helper()
	catalog, st := kinds.Catalog(), memory.New()
	c := cache.New(cache.Config{Store: st, Catalog: catalog, Decode: func(k *api.Kind, e store.Entry) (api.Object, error) {
		return wire.DecodeStorage(k, e.Value, e.Revision)
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }() //nolint:errcheck // it ends with ctx
	of := func(k *api.Kind) cache.Reader { return c.Of(k) }
	read := func(obj api.Object) cache.Reader { k, _ := catalog.Type(obj); return of(k) }
	log := slog.New(slog.DiscardHandler)
	documents, hooks := openapi.New(catalog, "v1.36.3"), hook.New(catalog, of)
	custom := extension.New(extension.Config{Catalog: catalog, Cache: c, OpenAPI: documents, Hooks: hooks, Log: log})
	fields := managedfields.New(catalog, &openapi.Types{}, custom.TypeConverter)
	rbac := auth.NewRBAC(read(&rbacv1.Role{}), read(&rbacv1.RoleBinding{}), read(&rbacv1.ClusterRole{}), read(&rbacv1.ClusterRoleBinding{}))
	admit, err := admission.Builtin(admission.Config{Catalog: catalog, Of: of, RBAC: rbac, Authorizer: rbac, Hooks: hooks, Merge: fields.Merge, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{
		Catalog: catalog, Cache: c, Store: st, Fields: fields, Admission: admit, OpenAPI: documents, Log: log,
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, Version: version.Info{Major: "1", Minor: "36"},
	})
	if err != nil {
		t.Fatal(err)
	}
	<-c.Ready()
	p := &prey{catalog: catalog, store: st, handler: s.Handler(), close: func() { cancel(); <-done; st.Close() }}
	for _, x := range furniture {
		path, body, _ := strings.Cut(x, " ")
		method, media := "POST", []string(nil)
		if strings.HasSuffix(path, "/status") {
			method, media = "PATCH", []string{"Content-Type: application/merge-patch+json"}
		}
		if w := p.ask(ctx, method, path, media, []byte(body)); w.Code > 299 {
			t.Fatalf("%s: %s", path, w.Body)
		}
	}
	if err := custom.Start(ctx, &inprocess.User{Verbs: s.Verbs(), User: &request.User{Name: "system:apiserver"}}); err != nil {
		t.Fatal(err)
	}
	p.asked = 0
	return p
}

// furniture is what there is at first: paths and bodies.
var furniture = []string{
	`/api/v1/namespaces {"metadata":{"name":"default"}}`,
	`/api/v1/namespaces/default/serviceaccounts {"metadata":{"name":"default"}}`,
	`/api/v1/namespaces/default/configmaps {"metadata":{"name":"a","labels":{"l":"m"}},"data":{"k":"v"}}`,
	`/api/v1/namespaces/default/pods {"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}`,
	`/api/v1/namespaces/default/services {"metadata":{"name":"s"},"spec":{"ports":[{"port":80}]}}`,
	`/apis/apps/v1/namespaces/default/deployments {"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`,
	`/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers {"metadata":{"name":"h"},"spec":{"maxReplicas":3,"scaleTargetRef":{"kind":"Deployment","name":"d","apiVersion":"apps/v1"}}}`,
	`/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies {"metadata":{"name":"v"},"spec":{"matchConstraints":{"resourceRules":[{"apiGroups":["*"],"apiVersions":["*"],"operations":["*"],"resources":["*"]}]},"validations":[{"expression":"!has(object.metadata.labels) || object.metadata.labels.size() < 5"}]}}`,
	`/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings {"metadata":{"name":"v"},"spec":{"policyName":"v","validationActions":["Deny"]}}`,
	`/apis/apiextensions.k8s.io/v1/customresourcedefinitions {"metadata":{"name":"faces.example.com"},"spec":{"group":"example.com","scope":"Namespaced","names":{"plural":"faces","singular":"face","kind":"Face","listKind":"FaceList"},"versions":[
		{"name":"v1","served":true,"storage":true,"subresources":{"status":{},"scale":{"specReplicasPath":".spec.n","statusReplicasPath":".status.n"}},"selectableFields":[{"jsonPath":".spec.color"}],"schema":{"openAPIV3Schema":{"type":"object","properties":{
			"spec":{"type":"object","x-kubernetes-validations":[{"rule":"!has(self.n) || self.n < 100"}],"properties":{"n":{"type":"integer"},"color":{"type":"string","default":"red"},"list":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],"items":{"type":"object","required":["k"],"properties":{"k":{"type":"string"}}}}}},
			"status":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}},
		{"name":"v2","served":true,"storage":false,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}`,
	`/apis/apiextensions.k8s.io/v1/customresourcedefinitions/faces.example.com/status {"status":{"storedVersions":["v1"],"acceptedNames":{"plural":"faces","singular":"face","kind":"Face","listKind":"FaceList"},"conditions":[
		{"type":"NamesAccepted","status":"True"},{"type":"Established","status":"True"}]}}`,
}

// ask makes a request. headers are lines "Name: value".
func (p *prey) ask(ctx context.Context, method, target string, headers []string, body []byte) *httptest.ResponseRecorder {
	p.asked++
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil
	}
	r := (&http.Request{
		Method: method, URL: u, Host: "x", RequestURI: target, Proto: "HTTP/2.0", ProtoMajor: 2, RemoteAddr: "127.0.0.1:1",
		Header: http.Header{"Content-Type": {"application/json"}, "User-Agent": {"fuzz/1"}}, Body: http.NoBody, ContentLength: int64(len(body)),
	}).WithContext(ctx)
	if len(body) > 0 {
		r.Body = readCloser{bytes.NewReader(body)}
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, r)
	return w
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

func (p *prey) revision() int64 {
	rev, _ := p.store.Revision(context.Background())
	return rev
}

// FuzzRequest sends anything to the whole server. It may be refused, but by a
// Status that says why, never by a panic or another fault of the server's, and
// then nothing is stored.
func FuzzRequest(f *testing.F) {
	const cms, faces = "/api/v1/namespaces/default/configmaps", "/apis/example.com/v1/namespaces/default/faces"
	for _, s := range []struct{ method, target, headers, body string }{
		{"GET", "/", "", ""}, {"GET", "/api", "", ""}, {"GET", "/apis", "Accept: application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io", ""},
		{"GET", "/apis/apps/v1", "", ""}, {"GET", "/openapi/v3", "", ""}, {"GET", "/version", "", ""}, {"GET", "/healthz?verbose", "", ""}, {"GET", "/readyz/etcd", "", ""},
		{"GET", cms + "/a", "", ""}, {"GET", cms + "/a?pretty=true", "Accept: application/yaml", ""}, {"GET", cms + "/a", "Accept: application/vnd.kubernetes.protobuf", ""},
		{"HEAD", cms + "/a", "", ""}, {"GET", cms + "/a", "Accept: application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", ""},
		{"GET", cms + "?labelSelector=l%3Dm&limit=1&resourceVersion=0", "", ""}, {"GET", cms + "?fieldSelector=metadata.name%3Da", "", ""},
		{"GET", cms + "?limit=1&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiYSJ9", "", ""},
		{"GET", cms + "?resourceVersion=5&resourceVersionMatch=Exact", "", ""},
		{"GET", cms, "Accept: application/json;as=Table;v=v1;g=meta.k8s.io", ""}, {"GET", "/api/v1/pods?includeObject=Object", "Accept: application/json;as=Table;v=v1beta1;g=meta.k8s.io", ""},
		{"GET", cms + "?watch=true", "", ""}, {"GET", "/api/v1/watch/namespaces/default/configmaps/a", "", ""},
		{"GET", cms + "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", "Accept: application/json;as=Table;v=v1;g=meta.k8s.io", ""},
		{"GET", "/apis/example.com/v2/faces?watch=true&resourceVersion=1", "Accept: application/yaml", ""}, {"GET", faces + "?fieldSelector=spec.color%3Dred", "", ""},
		{"POST", cms, "", `{"metadata":{"generateName":"g-"},"data":{"a":"b"}}`}, {"POST", cms + "?dryRun=All&fieldValidation=Strict", "", `{"metadata":{"name":"x"},"data":{"a":"b","a":"c"},"odd":1}`},
		{"POST", cms, "Content-Type: application/yaml", "metadata: {name: y}\ndata: &a {k: v}\nbinaryData: *a\n"},
		{"POST", cms, "Content-Type: application/vnd.kubernetes.protobuf", "k8s\x00\n\x0f\n\x02v1\x12\tConfigMap\x12\x08\n\x06\n\x01z\x12\x00\x1a\x00"},
		{"POST", "/api/v1/namespaces/default/pods", "", `{"metadata":{"name":"q"},"spec":{"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"100m"}}}]}}`},
		{"POST", "/api/v1/namespaces/default/pods/p/binding", "", `{"metadata":{"name":"p"},"target":{"kind":"Node","name":"n"}}`},
		{"POST", "/api/v1/namespaces/default/pods/p/eviction", "", `{"metadata":{"name":"p"},"deleteOptions":{"gracePeriodSeconds":1}}`},
		{"POST", "/api/v1/namespaces/default/services", "", `{"metadata":{"name":"t"},"spec":{"type":"NodePort","ports":[{"port":1,"nodePort":30001}],"clusterIP":"10.96.0.9"}}`},
		{"PUT", "/api/v1/namespaces/default/services/s?dryRun=All", "", `{"metadata":{"name":"s"},"spec":{"type":"ExternalName","externalName":"x.y"}}`},
		{"PUT", cms + "/a", "", `{"metadata":{"name":"a","uid":"u","resourceVersion":"1"}}`}, {"PUT", "/api/v1/namespaces/default/finalize", "", `{}`},
		{"PUT", "/apis/apps/v1/namespaces/default/deployments/d/scale", "", `{"metadata":{"name":"d"},"spec":{"replicas":2}}`},
		{"PUT", "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers/h", "", `{"metadata":{"name":"h"},"spec":{"maxReplicas":5,"scaleTargetRef":{"kind":"Deployment","name":"d","apiVersion":"apps/v1"}}}`},
		{"PATCH", cms + "/a", "Content-Type: application/merge-patch+json", `{"data":{"k":null,"n":"1"},"metadata":{"uid":"x"}}`},
		{"PATCH", cms + "/a", "Content-Type: application/strategic-merge-patch+json", `{"data":{"$patch":"replace"},"$retainKeys":["data"]}`},
		{"PATCH", "/api/v1/namespaces/default/pods/p", "Content-Type: application/strategic-merge-patch+json", `{"spec":{"$setElementOrder/containers":[{"name":"c"}],"containers":[{"name":"c","image":"j"}]}}`},
		{"PATCH", cms + "/a", "Content-Type: application/json-patch+json", `[{"op":"test","path":"/data/k","value":"v"},{"op":"move","from":"/data/k","path":"/data/l"}]`},
		{"PATCH", cms + "/a?fieldManager=x&force=true", "Content-Type: application/apply-patch+yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: w}}"},
		{"PATCH", "/api/v1/namespaces/default/pods/p/status", "Content-Type: application/merge-patch+json", `{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`},
		{"PATCH", "/api/v1/namespaces/default/pods/p/ephemeralcontainers", "Content-Type: application/strategic-merge-patch+json", `{"spec":{"ephemeralContainers":[{"name":"e","image":"i"}]}}`},
		{"POST", faces, "", `{"apiVersion":"example.com/v1","kind":"Face","metadata":{"name":"f"},"spec":{"n":1,"list":[{"k":"a"}]}}`},
		{"PATCH", faces + "/f?fieldManager=x", "Content-Type: application/apply-patch+yaml", "{apiVersion: example.com/v1, kind: Face, metadata: {name: f}, spec: {\"n\": 1, list: [{k: a}]}}"},
		{"PATCH", faces + "/f/scale", "Content-Type: application/merge-patch+json", `{"spec":{"replicas":7}}`}, {"PUT", faces + "/f/status", "", `{"apiVersion":"example.com/v1","kind":"Face","metadata":{"name":"f"},"status":{"a":1}}`},
		{"POST", "/apis/example.com/v2/namespaces/default/faces", "", `{"apiVersion":"example.com/v2","kind":"Face","metadata":{"name":"g","finalizers":["x"]},"spec":{"n":"odd"}}`},
		{"DELETE", cms + "/a?gracePeriodSeconds=-1", "", `{"propagationPolicy":"Orphan","preconditions":{"uid":"u"}}`}, {"DELETE", cms + "?labelSelector=l", "", ""},
		{"DELETE", "/api/v1/namespaces/default", "", ""}, {"DELETE", faces + "/f", "Content-Type: application/yaml", "gracePeriodSeconds: 0\n"},
		{"POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "", `{"spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}`},
		{"POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "", `{"metadata":{"name":"a.b.c"},"spec":{"group":"b.c","scope":"Cluster","names":{"plural":"a","kind":"A"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}}]}}`},
		{"POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", "", `{"metadata":{"name":"r"},"rules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}]}`},
		{"OPTIONS", cms, "", ""}, {"CONNECT", "/api/v1/namespaces/default/pods/p/attach", "", ""}, {"GET", "/api/v1/namespaces/default/pods/p/log?tailLines=-1", "", ""},
	} {
		f.Add(s.method, s.target, s.headers, []byte(s.body))
	}
	var p *prey
	f.Cleanup(func() {
		if p != nil {
			p.close()
		}
	})
	f.Fuzz(func(t *testing.T, method, target, headers string, body []byte) {
		if !isRequest(method, target, headers) {
			return
		}
		if p != nil && p.asked > preyLife {
			p.close()
			p = nil
		}
		if p == nil {
			p = newPrey(t)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if waits(target) {
			ctx, cancel = context.WithTimeout(ctx, 20*time.Millisecond)
			defer cancel()
		}
		before := p.revision()
		w := p.ask(ctx, method, target, strings.Split(headers, "\n"), body)
		if w == nil {
			return
		}
		if why := p.wrong(w, method, target); why != "" {
			t.Errorf("%s %s\n%s\n%q\n%s: %d %s", method, target, headers, body, why, w.Code, w.Body)
		}
		reads := method == "GET" || method == "HEAD" || method == "OPTIONS"
		if after := p.revision(); after != before && (reads || w.Code > 299 && !collection(method, target)) {
			t.Errorf("%s %s\n%s\n%q\nstored something, but answered %d %s", method, target, headers, body, w.Code, w.Body)
		}
	})
}

// isRequest says that net/http would let it through, and that it asks nobody
// outside for anything.
func isRequest(method, target, headers string) bool {
	token := func(s string) bool {
		return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r) })
	}
	if !token(method) || !strings.HasPrefix(target, "/") || strings.ContainsFunc(target, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return false
	}
	for h := range strings.SplitSeq(headers, "\n") {
		name, value, _ := strings.Cut(h, ": ")
		if h != "" && (!token(name) || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })) {
			return false
		}
	}
	u, err := url.ParseRequestURI(target)
	return err == nil && !strings.Contains(u.Path, "/proxy") && !strings.Contains(u.Path, "webhookconfigurations")
}

// waits says that an answer may take until the client goes.
func waits(target string) bool {
	return strings.Contains(target, "watch") || strings.Contains(target, "resourceVersion") || strings.Contains(target, "continue")
}

// collection says that a request deletes several objects, some of which may be
// gone when one cannot go.
func collection(method, target string) bool {
	r := &http.Request{Method: method}
	r.URL, _ = url.ParseRequestURI(target)
	return request.Parse(r).Verb == "deletecollection"
}

// wrong says what an answer must not be, "" = it is as it should.
func (p *prey) wrong(w *httptest.ResponseRecorder, method, target string) string {
	switch {
	case w.Code == http.StatusInternalServerError && strings.Contains(w.Body.String(), "failed to create typed patch object"):
		// an applied configuration that the schema does not know: so says upstream
	case w.Code == http.StatusInternalServerError, w.Code < 200, w.Code > 599:
		return "a fault of the server"
	case w.Code < 400, w.Code == 499, method == "HEAD":
		return ""
	}
	r := &http.Request{Method: method}
	r.URL, _ = url.ParseRequestURI(target)
	i := request.Parse(r)
	if _, ok := p.catalog.Resource(schema.GroupVersionResource{Group: i.Group, Version: i.Version, Resource: i.Resource}); !i.IsResource || !ok {
		return "" // what is not served may be answered in plain text, as upstream does
	}
	var s metav1.Status
	if err := readStatus(w, &s); err != nil {
		return "no Status (" + err.Error() + ")"
	}
	if s.Status != metav1.StatusFailure || int(s.Code) != w.Code || s.Message == "" {
		return fmt.Sprintf("a Status that says too little: %+v", s)
	}
	return ""
}

func readStatus(w *httptest.ResponseRecorder, s *metav1.Status) error {
	kind := ""
	var err error
	switch media := w.Header().Get("Content-Type"); media {
	case "application/vnd.kubernetes.protobuf":
		var u runtime.Unknown
		if err = u.Unmarshal(bytes.TrimPrefix(w.Body.Bytes(), []byte("k8s\x00"))); err == nil {
			kind, err = u.Kind, s.Unmarshal(u.Raw)
		}
	case "application/yaml":
		err = yaml.Unmarshal(w.Body.Bytes(), s)
		kind = s.Kind
	case "application/json":
		err = json.Unmarshal(w.Body.Bytes(), s)
		kind = s.Kind
	default:
		return fmt.Errorf("but %q", media)
	}
	if err == nil && kind != "Status" {
		err = fmt.Errorf("but a %q", kind)
	}
	return err
}
