package clienttest_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver"
	"github.com/proa-dev/proa/internal/apiserver/audit"
	"github.com/proa-dev/proa/internal/apiserver/inprocess"
	"github.com/proa-dev/proa/internal/apiserver/managedfields"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/local"
)

// audited is a server that writes down all it does, and what it has written: each event
// without what differs from one time to another, by its stage, verb and path.
func audited(t *testing.T, mode string) (srv *apiserver.Server, cfg local.Config, written func() (keys []string, events []map[string]any)) {
	t.Helper()
	o := audit.Defaults()
	o.PolicyFile, o.Log.Path, o.Log.Mode = filepath.Join(t.TempDir(), "policy.yaml"), filepath.Join(t.TempDir(), "audit.log"), mode
	if err := os.WriteFile(o.PolicyFile, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, resources: [{group: \"\", resources: [namespaces]}]}, {level: RequestResponse}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := o.Open(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	srv, cfg = server(t, func(c *apiserver.Config) {
		c.Audit, c.Fields = l, managedfields.New(c.Catalog, &openapi.Types{}, nil)
	})
	cfg.Server = &inprocess.User{Verbs: srv.Verbs(), User: &request.User{Name: request.Anonymous, Groups: []string{request.Unauthenticated}}, Audit: l, Agent: "test/1.0"}
	return srv, cfg, func() (keys []string, events []map[string]any) {
		data, err := os.ReadFile(o.Log.Path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
			var e map[string]any
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err, line)
			}
			uri, _, _ := strings.Cut(e["requestURI"].(string), "?")
			keys = append(keys, strings.Join([]string{e["stage"].(string), e["verb"].(string), uri}, " "))
			events = append(events, scrubbed(e).(map[string]any))
		}
		return keys, events
	}
}

// scrubbed of what differs.
func scrubbed(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range []string{"auditID", "requestURI", "userAgent", "requestReceivedTimestamp", "stageTimestamp", "annotations", "uid", "creationTimestamp", "time", "resourceVersion", "lastTransitionTime"} {
			delete(v, name)
		}
		for name, one := range v {
			v[name] = scrubbed(one)
		}
	case []any:
		for n, one := range v {
			v[n] = scrubbed(one)
		}
	}
	return v
}

// busy does with a Conn what there is to do. Errors are a part of it.
func busy(t *testing.T, c client.Conn) {
	t.Helper()
	ctx := context.Background()
	kind := func(obj api.Object) *api.Kind {
		k, ok := c.Catalog().Type(obj)
		if !ok {
			t.Fatalf("%T", obj)
		}
		return k
	}
	maps, pods := kind(&corev1.ConfigMap{}), kind(&corev1.Pod{})
	must := func(obj api.Object, err error) api.Object {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return obj
	}
	fails := func(_ api.Object, err error) {
		t.Helper()
		if err == nil {
			t.Fatal("it works")
		}
	}
	meta := metav1.ObjectMeta{Namespace: "default", Name: "a", Labels: map[string]string{"l": "1"}}
	one := must(c.Create(ctx, maps, &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"k": "1"}}, client.WriteOptions{}))
	fails(c.Create(ctx, maps, &corev1.ConfigMap{ObjectMeta: meta}, client.WriteOptions{}))
	must(c.Get(ctx, maps, "default", "a"))
	fails(c.Get(ctx, maps, "default", "none"))
	must(c.Create(ctx, maps, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "tried"}}, client.WriteOptions{DryRun: true}))
	next := one.DeepCopyObject().(*corev1.ConfigMap)
	next.Data["k"] = "2"
	must(c.Update(ctx, maps, next.DeepCopy(), client.WriteOptions{}))
	fails(c.Update(ctx, maps, next, client.WriteOptions{})) // of a version that is gone
	must(c.Patch(ctx, maps, "default", "a", client.Patch{Type: types.MergePatchType, Data: []byte(`{"data":{"x":"1"}}`)}, client.WriteOptions{}))
	must(c.Patch(ctx, maps, "default", "b", client.Patch{Type: types.ApplyPatchType, Data: []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"}}`)}, client.WriteOptions{Manager: "m", Force: true}))
	if _, _, err := c.List(ctx, maps, "default", client.ListOptions{Labels: labels.SelectorFromSet(labels.Set{"l": "1"})}); err != nil {
		t.Fatal(err)
	}
	pod := must(c.Create(ctx, pods, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}, client.WriteOptions{}))
	status := pod.DeepCopyObject().(*corev1.Pod)
	status.Status.Phase = corev1.PodRunning
	must(c.Update(ctx, pods, status, client.WriteOptions{Subresource: "status"}))
	if _, err := c.Post(ctx, pods, "default", "p", "binding", &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Post(ctx, pods, "default", "p", "eviction", &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}}); err != nil {
		t.Fatal(err)
	}
	policy := metav1.DeletePropagationBackground
	if err := c.Delete(ctx, maps, "default", "a", metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
		t.Fatal(err)
	}
	fails(nil, c.Delete(ctx, maps, "default", "a", metav1.DeleteOptions{PropagationPolicy: &policy}))
}

// TestAudit: what is done by calls in this process is written down as what is done
// over HTTP.
func TestAudit(t *testing.T) {
	srv, _, far := audited(t, audit.ModeBlocking)
	h := httptest.NewUnstartedServer(srv.Handler())
	h.EnableHTTP2 = true
	h.StartTLS()
	busy(t, dial(t, h.URL))
	h.CloseClientConnections()
	h.Close() // once it is, the last has been written
	_, cfg, near := audited(t, audit.ModeBlocking)
	busy(t, local.New(cfg))

	wantKeys, want := far()
	gotKeys, got := near()
	if !reflect.DeepEqual(gotKeys, wantKeys) {
		t.Fatalf("got\n%s\nwant\n%s", strings.Join(gotKeys, "\n"), strings.Join(wantKeys, "\n"))
	}
	for n := range want {
		if !reflect.DeepEqual(got[n], want[n]) {
			a, _ := json.Marshal(got[n])
			b, _ := json.Marshal(want[n])
			t.Errorf("%s:\ngot  %s\nwant %s", wantKeys[n], a, b)
		}
	}
}

// TestAuditOfWatches: that changes are followed is written down, and when it ends; and
// each pod that is bound together with others.
func TestAuditOfWatches(t *testing.T) {
	_, cfg, written := audited(t, audit.ModeBlocking)
	c := local.New(cfg)
	pods, _ := c.Catalog().Type(&corev1.Pod{})
	for _, name := range []string{"p", "q"} {
		if _, err := c.Create(context.Background(), pods, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}, client.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := written()
	e, err := c.Watch(context.Background(), pods, client.Scope{Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	if errs := c.BindAll(context.Background(), []client.Binding{{Namespace: "default", Name: "p", Node: "n"}, {Namespace: "default", Name: "none", Node: "n"}, {Namespace: "default", Name: "q", Node: "n"}}); errs[0] != nil || errs[1] == nil || errs[2] != nil {
		t.Error(errs)
	}
	e.Stop()
	e.Stop()
	keys, events := written()
	const pod = " create /api/v1/namespaces/default/pods/"
	want := []string{
		"RequestReceived watch /api/v1/namespaces/default/pods", "ResponseStarted watch /api/v1/namespaces/default/pods",
		"RequestReceived" + pod + "p/binding", "RequestReceived" + pod + "none/binding", "RequestReceived" + pod + "q/binding",
		"ResponseComplete" + pod + "p/binding", "ResponseComplete" + pod + "none/binding", "ResponseComplete" + pod + "q/binding",
		"ResponseComplete watch /api/v1/namespaces/default/pods",
	}
	if !reflect.DeepEqual(keys[len(before):], want) {
		t.Fatalf("got\n%s", strings.Join(keys[len(before):], "\n"))
	}
	bound, _ := json.Marshal(events[len(before)+5])
	missing, _ := json.Marshal(events[len(before)+6])
	if !strings.Contains(string(bound), `"code":201`) || !strings.Contains(string(bound), `"requestObject":{"apiVersion":"v1","kind":"Binding"`) || !strings.Contains(string(missing), `"code":404`) {
		t.Errorf("%s\n%s", bound, missing)
	}
}

// TestAuditThatFails: what has to be written down and cannot be is not done.
func TestAuditThatFails(t *testing.T) {
	o := audit.Defaults()
	o.PolicyFile, o.Log.Path, o.Log.Mode, o.Log.MaxSize = filepath.Join(t.TempDir(), "policy.yaml"), "/dev/full", audit.ModeStrict, 0
	if err := os.WriteFile(o.PolicyFile, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := o.Open(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	_, cfg := server(t)
	near := local.New(cfg)
	cfg.Server.(*inprocess.User).Audit = l
	maps, _ := near.Catalog().Type(&corev1.ConfigMap{})
	if _, err := near.Create(context.Background(), maps, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}}, client.WriteOptions{}); err == nil || !strings.Contains(err.Error(), "failed to store audit event") {
		t.Error(err)
	}
	if _, err := near.Watch(context.Background(), maps, client.Scope{}); err == nil {
		t.Error("a watch that is not written down")
	}
	cfg.Server.(*inprocess.User).Audit = nil
	if _, err := near.Get(context.Background(), maps, "default", "a"); err == nil {
		t.Error("it was done")
	}
}
