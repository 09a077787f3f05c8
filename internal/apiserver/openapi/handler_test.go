package openapi

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	networkingv1beta1 "k8s.io/api/networking/v1beta1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	openapiclient "k8s.io/client-go/openapi"
	"k8s.io/client-go/openapi3"
	"k8s.io/client-go/rest"
	"k8s.io/kube-openapi/pkg/util/proto"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/proa-dev/proa/internal/api"
)

func catalog(t testing.TB) *api.Catalog {
	t.Helper()
	c, err := api.NewCatalog(
		&api.Kind{
			GroupVersionKind: schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, Resource: "pods",
			New: func() api.Object { return &corev1.Pod{} }, NewList: func() runtime.Object { return &corev1.PodList{} },
			Subresources: []api.Subresource{
				{Name: "status"},
				{Name: "log", Verbs: []string{"get"}},
				{Name: "exec", Kind: schema.GroupVersionKind{Version: "v1", Kind: "PodExecOptions"}, Verbs: []string{"create", "get"}},
				{Name: "proxy", Kind: schema.GroupVersionKind{Version: "v1", Kind: "PodProxyOptions"}},
				{Name: "binding", Kind: schema.GroupVersionKind{Version: "v1", Kind: "Binding"}, Verbs: []string{"create"}, Body: func() runtime.Object { return &corev1.Binding{} }},
			},
		},
		&api.Kind{
			GroupVersionKind: schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}, Resource: "namespaces", Cluster: true,
			New: func() api.Object { return &corev1.Namespace{} }, NewList: func() runtime.Object { return &corev1.NamespaceList{} },
		},
		&api.Kind{
			GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("Deployment"), Resource: "deployments",
			New: func() api.Object { return &appsv1.Deployment{} }, NewList: func() runtime.Object { return &appsv1.DeploymentList{} },
			Subresources: []api.Subresource{{Name: "status"}, {Name: "scale", Kind: autoscalingv1.SchemeGroupVersion.WithKind("Scale"), Body: func() runtime.Object { return &autoscalingv1.Scale{} }}},
		},
		&api.Kind{
			GroupVersionKind: networkingv1.SchemeGroupVersion.WithKind("Ingress"), Resource: "ingresses",
			New: func() api.Object { return &networkingv1.Ingress{} }, NewList: func() runtime.Object { return &networkingv1.IngressList{} },
			Shapes: []api.Shape{{
				GroupVersionKind: networkingv1beta1.SchemeGroupVersion.WithKind("Ingress"),
				New:              func() api.Object { return &networkingv1beta1.Ingress{} }, NewList: func() runtime.Object { return &networkingv1beta1.IngressList{} },
			}},
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func serve(t *testing.T, h http.Handler) (*httptest.Server, *discovery.DiscoveryClient) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	client, err := discovery.NewDiscoveryClientForConfig(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return server, client
}

func TestV3AsClientsReadIt(t *testing.T) {
	_, client := serve(t, New(catalog(t), "v1.36.3"))
	root := openapi3.NewRoot(client.OpenAPIV3())
	versions, err := root.GroupVersions()
	if err != nil || len(versions) != 4 {
		t.Fatalf("group versions %v, %v", versions, err)
	}
	doc, err := root.GVSpec(appsv1.SchemeGroupVersion)
	if err != nil {
		t.Fatal(err)
	}
	path := doc.Paths.Paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
	if path == nil || path.Patch == nil {
		t.Fatal("no patch of a deployment")
	}
	found := map[string]bool{}
	for _, p := range path.Patch.Parameters {
		found[p.Name] = true
	}
	for _, want := range []string{"dryRun", "fieldManager", "fieldValidation", "force"} {
		if !found[want] {
			t.Errorf("patch has no parameter %s", want)
		}
	}
	if got := path.Patch.OperationId; got != "patchAppsV1NamespacedDeployment" {
		t.Errorf("operation id %s", got)
	}
	if path.Delete == nil || path.Delete.RequestBody == nil || path.Delete.RequestBody.Required {
		t.Error("the body of delete must be there and optional")
	}
	// Every reference leads somewhere.
	text, _ := json.Marshal(doc)
	for _, part := range strings.Split(string(text), `"$ref":"#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		if doc.Components.Schemas[name] == nil {
			t.Fatalf("%s is referred to and not there", name)
		}
	}
	pods, err := root.GVSpec(corev1.SchemeGroupVersion)
	if err != nil {
		t.Fatal(err)
	}
	exec := pods.Paths.Paths["/api/v1/namespaces/{namespace}/pods/{name}/exec"]
	if exec == nil || exec.Post == nil || exec.Post.OperationId != "connectCoreV1PostNamespacedPodExec" {
		t.Errorf("exec is %+v", exec)
	}
	if p := pods.Paths.Paths["/api/v1/namespaces/{namespace}/pods/{name}/proxy/{path}"]; p == nil || p.Head == nil {
		t.Error("no proxy with a path")
	}
	if pods.Paths.Paths["/api/v1/namespaces"].Post.OperationId != "createCoreV1Namespace" {
		t.Error("namespaces are not cluster-scoped")
	}
	// The other shape of a kind has its own document.
	old, err := root.GVSpec(networkingv1beta1.SchemeGroupVersion)
	if err != nil || old.Components.Schemas["io.k8s.api.networking.v1beta1.IngressBackend"] == nil {
		t.Errorf("v1beta1 document: %v", err)
	}
	// And as protobuf.
	paths, _ := client.OpenAPIV3().Paths()
	if b, err := paths["apis/apps/v1"].Schema(openapiclient.ContentTypeOpenAPIV3PB); err != nil || len(b) < 10_000 {
		t.Errorf("protobuf: %d bytes, %v", len(b), err)
	}
}

func TestV2AsProtobuf(t *testing.T) {
	_, client := serve(t, New(catalog(t), "v1.36.3"))
	doc, err := client.OpenAPISchema() // asks for protobuf, as kubectl and helm do
	if err != nil {
		t.Fatal(err)
	}
	models, err := proto.NewOpenAPIData(doc)
	if err != nil {
		t.Fatal(err)
	}
	pod, ok := models.LookupModel("io.k8s.api.core.v1.Pod").(*proto.Kind)
	if !ok || pod.Fields["spec"] == nil {
		t.Fatalf("pod is %v", pod)
	}
	containers := models.LookupModel("io.k8s.api.core.v1.PodSpec").(*proto.Kind).Fields["containers"]
	if key := containers.GetExtensions()["x-kubernetes-patch-merge-key"]; key != "name" {
		t.Errorf("merge key of containers is %v", key)
	}
	var ids = map[string]bool{}
	for _, p := range doc.Paths.Path {
		for _, op := range []string{p.Value.GetGet().GetOperationId(), p.Value.GetPatch().GetOperationId(), p.Value.GetPost().GetOperationId(), p.Value.GetPut().GetOperationId(), p.Value.GetDelete().GetOperationId()} {
			if op != "" && ids[op] {
				t.Errorf("operation id %s is there twice", op)
			}
			ids[op] = true
		}
	}
}

func TestCaching(t *testing.T) {
	server, _ := serve(t, New(catalog(t), "v1.36.3"))
	get := func(path string, header ...string) *http.Response {
		t.Helper()
		req, _ := http.NewRequest("GET", server.URL+path, nil)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		return res
	}
	var index struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	if err := json.NewDecoder(get("/openapi/v3").Body).Decode(&index); err != nil {
		t.Fatal(err)
	}
	url := index.Paths["apis/apps/v1"].ServerRelativeURL
	res := get(url)
	if res.StatusCode != 200 || res.Header.Get("Cache-Control") != "public, immutable" {
		t.Fatalf("%s answers %v %v", url, res.Status, res.Header)
	}
	if again := get(url, "If-None-Match", res.Header.Get("ETag")); again.StatusCode != 304 {
		t.Errorf("with the right ETag: %s", again.Status)
	}
	if old := get("/openapi/v3/apis/apps/v1?hash=OLD"); old.StatusCode != 301 || old.Header.Get("Location") != url {
		t.Errorf("with an old hash: %s to %s", old.Status, old.Header.Get("Location"))
	}
	if gone := get("/openapi/v3/apis/nope/v1"); gone.StatusCode != 404 {
		t.Errorf("of a group that is not there: %s", gone.Status)
	}
	if odd := get("/openapi/v2", "Accept", "text/html"); odd.StatusCode != 406 {
		t.Errorf("as HTML: %s", odd.Status)
	}
	packed := get("/openapi/v2", "Accept-Encoding", "gzip")
	b, _ := io.ReadAll(packed.Body)
	if packed.Header.Get("Content-Encoding") != "gzip" || len(b) > 1<<20 {
		t.Errorf("compressed: %v, %d bytes", packed.Header, len(b))
	}
}

func TestMergedKind(t *testing.T) {
	c := catalog(t)
	h := New(c, "v1.36.3")
	_, client := serve(t, h)
	gvk := schema.GroupVersionKind{Group: "stable.example.com", Version: "v1", Kind: "CronTab"}
	before := h.hash(versions(c)[gvk.GroupVersion()])
	if err := c.Put(&api.Kind{GroupVersionKind: gvk, Resource: "crontabs", Encoding: api.JSON,
		New: func() api.Object { return &unstructured.Unstructured{} }}); err != nil {
		t.Fatal(err)
	}
	text := []byte(`{"type":"object","properties":{"spec":{"type":"object","properties":{"cronSpec":{"type":"string"}}},"metadata":{"$ref":"#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}}}`)
	if err := h.Merge(gvk, Definition{V2: text, V3: []byte(strings.ReplaceAll(string(text), "definitions", "components/schemas"))}); err != nil {
		t.Fatal(err)
	}
	if h.hash(versions(c)[gvk.GroupVersion()]) == before {
		t.Error("the hash has not moved")
	}
	doc, err := openapi3.NewRoot(client.OpenAPIV3()).GVSpec(gvk.GroupVersion())
	if err != nil {
		t.Fatal(err)
	}
	if s := doc.Components.Schemas["com.example.stable.v1.CronTab"]; s == nil || s.Properties["spec"].Properties["cronSpec"].Type[0] != "string" {
		t.Errorf("schema %+v", s)
	}
	if doc.Components.Schemas["com.example.stable.v1.CronTabList"] == nil {
		t.Error("no list")
	}
	v2, err := client.OpenAPISchema()
	if err != nil {
		t.Fatal(err)
	}
	swagger := spec.Swagger{}
	if ok, err := swagger.FromGnostic(v2); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, ok := swagger.Definitions["com.example.stable.v1.CronTab"]; !ok {
		t.Error("not in v2")
	}
}

func TestTypes(t *testing.T) {
	var types Types
	start := time.Now()
	pod, err := types.Type("io.k8s.api.core.v1.Pod")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("schema of pod: %v", time.Since(start))
	value, err := pod.FromStructured(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}})
	if err != nil {
		t.Fatal(err)
	}
	set, err := value.ToFieldSet()
	if err != nil || !strings.Contains(set.String(), `.spec.containers[name="c"].name`) {
		t.Errorf("%v %v", set, err)
	}
	if _, err := types.Type("io.k8s.api.core.v1.Nope"); err == nil {
		t.Error("a type that is not there is found")
	}
	for _, line := range strings.Split(strings.TrimSpace(typesText()), "\n") {
		name, rest, _ := strings.Cut(line, "\t")
		if typeLine(name) != rest {
			t.Fatalf("%s is not found", name)
		}
	}
}

func typesText() string { return types }

func BenchmarkBuild(b *testing.B) {
	h := New(catalog(b), "v1")
	kinds := versions(h.catalog)[corev1.SchemeGroupVersion]
	for b.Loop() {
		if _, err := h.build("v3/api/v1", kinds); err != nil {
			b.Fatal(err)
		}
	}
}
