package managedfields

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	networkingv1beta1 "k8s.io/api/networking/v1beta1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)

// some is a manager of a few kinds.
func some(t testing.TB) (*Manager, map[string]api.Served) {
	t.Helper()
	ingress := &api.Kind{
		GroupVersionKind: networkingv1.SchemeGroupVersion.WithKind("Ingress"), Resource: "ingresses",
		New:          func() api.Object { return &networkingv1.Ingress{} },
		Subresources: []api.Subresource{{Name: "status"}},
		Shapes: []api.Shape{{
			GroupVersionKind: networkingv1beta1.SchemeGroupVersion.WithKind("Ingress"),
			New:              func() api.Object { return &networkingv1beta1.Ingress{} },
			From: func(o api.Object) api.Object {
				in := o.(*networkingv1.Ingress)
				out := &networkingv1beta1.Ingress{ObjectMeta: in.ObjectMeta}
				out.Spec.IngressClassName = in.Spec.IngressClassName
				if b := in.Spec.DefaultBackend; b != nil {
					out.Spec.Backend = &networkingv1beta1.IngressBackend{ServiceName: b.Service.Name}
				}
				return out
			},
			To: func(o api.Object) api.Object {
				in := o.(*networkingv1beta1.Ingress)
				out := &networkingv1.Ingress{ObjectMeta: in.ObjectMeta}
				out.Spec.IngressClassName = in.Spec.IngressClassName
				if b := in.Spec.Backend; b != nil {
					out.Spec.DefaultBackend = &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: b.ServiceName}}
				}
				return out
			},
		}},
	}
	all := []*api.Kind{
		{GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ConfigMap"), Resource: "configmaps", New: func() api.Object { return &corev1.ConfigMap{} }},
		{GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("Deployment"), Resource: "deployments", New: func() api.Object { return &appsv1.Deployment{} },
			Subresources: []api.Subresource{{Name: "status"}, {Name: "scale"}}},
		ingress,
		{GroupVersionKind: schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Thing"}, Resource: "things", Encoding: api.JSON,
			New: func() api.Object { return &unstructured.Unstructured{} }},
	}
	c, err := api.NewCatalog(all...)
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]api.Served{"v1beta1": {Kind: ingress, Shape: &ingress.Shapes[0]}}
	for _, k := range all {
		served[k.GroupVersionKind.Kind] = api.Served{Kind: k}
	}
	return New(c, &openapi.Types{}, nil), served
}

func fields(obj api.Object) string {
	var lines []string
	for _, f := range obj.GetManagedFields() {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", f.Manager, f.Operation, f.Subresource, f.FieldsV1.GetRawString())))
	}
	return strings.Join(lines, "\n")
}

func mustUpdate(t *testing.T, m *Manager, k api.Served, live, obj api.Object, manager, sub string, at time.Time) {
	t.Helper()
	if err := m.Update(k, live, obj, manager, sub, at); err != nil {
		t.Fatal(err)
	}
	obj.SetUID("uid")
}

func TestUpdate(t *testing.T) {
	m, kinds := some(t)
	k := kinds["ConfigMap"]
	created := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"x": "1"}}, Data: map[string]string{"k": "v"}}
	mustUpdate(t, m, k, nil, created, "one", "", t0)
	if got, want := fields(created), `one Update  {"f:data":{".":{},"f:k":{}},"f:metadata":{"f:labels":{".":{},"f:x":{}}}}`; got != want {
		t.Errorf("created:\n%s\nwant\n%s", got, want)
	}
	if at := created.ManagedFields[0].Time; !at.Equal(&metav1.Time{Time: t0.Truncate(time.Second)}) || at.Nanosecond() != 0 {
		t.Errorf("time %v", at)
	}

	same := created.DeepCopy()
	mustUpdate(t, m, k, created, same, "two", "", t0.Add(time.Hour))
	if fields(same) != fields(created) || !same.ManagedFields[0].Time.Equal(created.ManagedFields[0].Time) {
		t.Errorf("an update that changes nothing: %s", fields(same))
	}

	changed := created.DeepCopy()
	changed.Data["k"], changed.Data["new"] = "other", "x"
	delete(changed.Labels, "x")
	mustUpdate(t, m, k, created, changed, "two", "", t0.Add(time.Hour))
	want := "one Update  {\"f:data\":{\".\":{}},\"f:metadata\":{\"f:labels\":{}}}\ntwo Update  {\"f:data\":{\"f:k\":{},\"f:new\":{}}}"
	if got := fields(changed); !strings.Contains(got, `two Update  {"f:data":{"f:k":{},"f:new":{}}}`) || strings.Contains(got, "f:x") {
		t.Errorf("changed:\n%s\nwant\n%s", got, want)
	}

	// Clients that know nothing of managed fields do not take them away …
	bare := changed.DeepCopy()
	bare.ManagedFields = nil
	mustUpdate(t, m, k, changed, bare, "three", "", t0)
	if fields(bare) != fields(changed) {
		t.Errorf("sent without: %s", fields(bare))
	}
	// … nor do those who send what cannot be read …
	bad := changed.DeepCopy()
	bad.ManagedFields[0].Operation = "Dream"
	mustUpdate(t, m, k, changed, bad, "three", "", t0)
	if fields(bad) != fields(changed) {
		t.Errorf("sent bad: %s", fields(bad))
	}
	// … but those who ask for it, and then the object is not tracked any more.
	for _, reset := range [][]metav1.ManagedFieldsEntry{{}, {{}}} {
		none := changed.DeepCopy()
		none.ManagedFields = reset
		none.Data["k"] = "again"
		mustUpdate(t, m, k, changed, none, "three", "", t0)
		if none.ManagedFields != nil {
			t.Errorf("reset: %s", fields(none))
		}
		after := none.DeepCopy()
		after.Data["k"] = "and again"
		mustUpdate(t, m, k, none, after, "three", "", t0)
		if after.ManagedFields != nil {
			t.Errorf("after a reset: %s", fields(after))
		}
	}
}

func TestAncientChanges(t *testing.T) {
	m, kinds := some(t)
	k := kinds["ConfigMap"]
	live := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Data: map[string]string{"": ""}}
	mustUpdate(t, m, k, nil, live, "first", "", t0)
	for i := range 15 {
		next := live.DeepCopy()
		next.Data[fmt.Sprint("k", i)] = "v"
		mustUpdate(t, m, k, live, next, fmt.Sprint("m", i), "", t0.Add(time.Duration(i)*time.Minute))
		live = next
	}
	if n := len(live.ManagedFields); n != 10 {
		t.Errorf("%d managers", n)
	}
	old := live.ManagedFields[0]
	if old.Manager != "ancient-changes" || !strings.Contains(old.FieldsV1.GetRawString(), `"f:k0":{},"f:k1":{}`) {
		t.Errorf("the oldest is %s", fields(live))
	}
}

func TestStatusBelongsToItsSubresource(t *testing.T) {
	m, kinds := some(t)
	k := kinds["Deployment"]
	n := int32(3)
	live := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: appsv1.DeploymentSpec{Replicas: &n}, Status: appsv1.DeploymentStatus{Replicas: 1}}
	mustUpdate(t, m, k, nil, live, "user", "", t0)
	if got := fields(live); strings.Contains(got, "f:status") || !strings.Contains(got, "f:replicas") {
		t.Errorf("created: %s", got)
	}
	status := live.DeepCopy()
	status.Status.ReadyReplicas = 3
	mustUpdate(t, m, k, live, status, "controller", "status", t0)
	if got := fields(status); !strings.Contains(got, `controller Update status {"f:status":{"f:readyReplicas":{}}}`) {
		t.Errorf("status: %s", got)
	}
	// A projection's write is the parent's, in the subresource's name.
	scaled := status.DeepCopy()
	*scaled.Spec.Replicas = 5
	mustUpdate(t, m, k, status, scaled, "hpa", "scale", t0)
	if got := fields(scaled); !strings.Contains(got, `hpa Update scale {"f:spec":{"f:replicas":{}}}`) {
		t.Errorf("scaled: %s", got)
	}
}

func TestApply(t *testing.T) {
	m, kinds := some(t)
	k := kinds["Deployment"]
	apply := func(live api.Object, config, manager string, force bool) (api.Object, error) {
		t.Helper()
		obj, err := m.Apply(k, live, []byte("apiVersion: apps/v1\nkind: Deployment\n"+config), manager, "", force, t0)
		if err == nil {
			obj.SetUID("uid")
			obj.SetResourceVersion("1")
		}
		return obj, err
	}
	live, err := apply(nil, "metadata: {name: a, namespace: d}\nspec: {replicas: 3, template: {spec: {containers: [{name: c, image: one}]}}}", "ann", false)
	if err != nil {
		t.Fatal(err)
	}
	want := `ann Apply  {"f:spec":{"f:replicas":{},"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{}}}}}}}`
	if got := fields(live); got != want {
		t.Errorf("applied:\n%s\nwant\n%s", got, want)
	}
	_, err = apply(live, "metadata: {name: a}\nspec: {replicas: 4}", "bob", false)
	if !errors.IsConflict(err) {
		t.Fatalf("a conflict gives %v", err)
	}
	status := err.(errors.APIStatus).Status()
	if status.Message != `Apply failed with 1 conflict: conflict with "ann": .spec.replicas` || len(status.Details.Causes) != 1 ||
		status.Details.Causes[0] != (metav1.StatusCause{Type: metav1.CauseTypeFieldManagerConflict, Message: `conflict with "ann"`, Field: ".spec.replicas"}) {
		t.Errorf("status %+v", status)
	}
	forced, err := apply(live, "metadata: {name: a}\nspec: {replicas: 4}", "bob", true)
	if err != nil || *forced.(*appsv1.Deployment).Spec.Replicas != 4 {
		t.Fatalf("forced: %v", err)
	}
	if got := fields(forced); !strings.Contains(got, `bob Apply  {"f:spec":{"f:replicas":{}}}`) || strings.Count(got, "f:replicas") != 1 {
		t.Errorf("forced: %s", got)
	}
	shared, err := apply(forced, "metadata: {name: a}\nspec: {replicas: 4}", "cid", false)
	if err != nil || strings.Count(fields(shared), "f:replicas") != 2 {
		t.Errorf("the same value from another: %v %s", err, fields(shared))
	}
	less, err := apply(live, "metadata: {name: a}\nspec: {template: {spec: {containers: [{name: c, image: one}]}}}", "ann", false)
	if err != nil || less.(*appsv1.Deployment).Spec.Replicas != nil {
		t.Errorf("a field left out is not removed: %v", err)
	}
	for config, want := range map[string]string{
		"metadata: {name: a}\nspec: {nope: 1}":               "failed to create typed patch object (/a; apps/v1, Kind=Deployment): .spec.nope: field not declared in schema",
		"metadata: {name: a, managedFields: [{manager: x}]}": "metadata.managedFields must be nil",
		"spec: [": "error decoding YAML: error converting YAML to JSON: yaml: line 3: did not find expected node content",
		"metadata: {name: a}\nspec: {replicas: three}": `failed to create typed patch object (/a; apps/v1, Kind=Deployment): .spec.replicas: expected numeric (int or float), got string`,
	} {
		if _, err := apply(live, config, "ann", false); err == nil || err.Error() != want {
			t.Errorf("%s\ngives %v\nwant  %s", config, err, want)
		}
	}
	if _, err := m.Apply(k, live, []byte(`{"apiVersion":"v1","kind":"Pod"}`), "ann", "", false, t0); err == nil || err.Error() != "invalid object type: /v1, Kind=Pod" || !errors.IsBadRequest(err) {
		t.Errorf("another kind gives %v", err)
	}
}

func TestBeforeFirstApply(t *testing.T) {
	m, kinds := some(t)
	live := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "uid"}, Data: map[string]string{"k": "v"}}
	got, err := m.Apply(kinds["ConfigMap"], live, []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"n":"1"}}`), "ann", "", false, t0)
	if err != nil {
		t.Fatal(err)
	}
	if f := fields(got); !strings.Contains(f, `before-first-apply Update  {"f:data":{".":{},"f:k":{}}}`) {
		t.Errorf("%s", f)
	}
}

func TestShapes(t *testing.T) {
	m, kinds := some(t)
	class := "c"
	live := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: networkingv1.IngressSpec{IngressClassName: &class,
		DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "s"}}}}
	mustUpdate(t, m, kinds["v1beta1"], nil, live, "old", "", t0)
	if got := live.ManagedFields[0]; got.APIVersion != "networking.k8s.io/v1beta1" || !strings.Contains(got.FieldsV1.GetRawString(), `"f:serviceName":{}`) {
		t.Errorf("through v1beta1: %s %s", got.APIVersion, fields(live))
	}
	// A write through v1 takes from the v1beta1 manager what it changes there.
	next := live.DeepCopy()
	next.Spec.DefaultBackend.Service.Name = "other"
	mustUpdate(t, m, kinds["Ingress"], live, next, "new", "", t0)
	if got := fields(next); strings.Contains(got, "f:serviceName") || !strings.Contains(got, `new Update  {"f:spec":{"f:defaultBackend":{"f:service":{"f:name":{}}}}}`) {
		t.Errorf("through v1: %s", got)
	}
	// And apply sees it across versions.
	_, err := m.Apply(kinds["Ingress"], live, []byte(`{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"a"},"spec":{"ingressClassName":"d"}}`), "ann", "", false, t0)
	if !errors.IsConflict(err) {
		t.Errorf("across versions: %v", err)
	}
	// What was managed in a version that is gone is forgotten.
	gone := live.DeepCopy()
	gone.ManagedFields[0].APIVersion = "networking.k8s.io/v0"
	after := gone.DeepCopy()
	after.Labels = map[string]string{"a": "b"}
	mustUpdate(t, m, kinds["Ingress"], gone, after, "new", "", t0)
	if len(after.ManagedFields) != 1 || after.ManagedFields[0].Manager != "new" {
		t.Errorf("of a version that is gone: %s", fields(after))
	}
}

func TestCustomResource(t *testing.T) {
	m, kinds := some(t)
	k := kinds["Thing"]
	thing := func(spec map[string]any) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Thing", "metadata": map[string]any{"name": "a"}, "spec": spec}}
	}
	live := thing(map[string]any{"a": int64(1), "list": []any{"x"}})
	mustUpdate(t, m, k, nil, live, "one", "", t0)
	if got := fields(live); !strings.Contains(got, `one Update  {"f:spec":{".":{},"f:a":{},"f:list":{}}}`) {
		t.Errorf("created: %s", got)
	}
	got, err := m.Apply(k, live, []byte(`{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"a"},"spec":{"b":2}}`), "ann", "", false, t0)
	if err != nil {
		t.Fatal(err)
	}
	if b, _, _ := unstructured.NestedInt64(got.(*unstructured.Unstructured).Object, "spec", "b"); b != 2 {
		t.Errorf("applied %v", got)
	}
	if _, err := m.Apply(k, live, []byte(`{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"a"},"spec":{"a":2}}`), "ann", "", false, t0); !errors.IsConflict(err) {
		t.Errorf("conflict: %v", err)
	}
	created, err := m.Apply(k, nil, []byte(`{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"a"},"spec":{"a":2}}`), "ann", "", false, t0)
	if err != nil || created.GetName() != "a" {
		t.Errorf("created by apply: %v %v", created, err)
	}
}

func TestFieldsV1(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                        `{}`,
		`{"f:a":{}}`:                `{"f:a":{}}`,
		`{"f:b":{},"f:a":{".":{}}}`: `{"f:a":{},"f:b":{}}`,
		`{"f:a":{"x:odd":{}}}`:      `{"f:a":{}}`,
		` {"f:a" : {"k:{\"b\": 1,\"a\":\"x\"}":{}}}`: `{"f:a":{"k:{\"a\":\"x\",\"b\":1}":{}}}`,
		`{"v:\"a\\u003cb\"":{}}`:                     `{"v:\"a\\u003cb\"":{}}`,
		`{"v:\"a<b\"":{}}`:                           `{"v:\"a\\u003cb\"":{}}`,
		`{"k:{\"name\":\"a\"}":{"f:name":{}}}`:       `{"k:{\"name\":\"a\"}":{"f:name":{}}}`,
		`{"i:1":{}}`:                                 `{"i:1":{}}`,
	} {
		s, err := parseSet([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := string(appendSet(nil, s)); got != want {
			t.Errorf("%s reads as %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{``, `{`, `[]`, `{"a":{}}`, `{"f:a"}`, `{"f:a":1}`, `{"f:a":{}}x`, `{"f:a":{},}`, `{"i:x":{}}`} {
		if s, err := parseSet([]byte(text)); err == nil {
			t.Errorf("%s reads as %s", text, appendSet(nil, s))
		}
	}
}

func FuzzFieldsV1(f *testing.F) {
	for _, text := range []string{`{}`, `{"f:a":{".":{},"f:b":{}}}`, `{"k:{\"a\":1}":{}}`, `{"v:\"x\"":{}}`, "{\"v:\\\"\xe4\\\"\":{}}"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSet([]byte(text))
		if err != nil {
			return
		}
		once := appendSet(nil, s)
		again, err := parseSet(once)
		if err != nil || !equal(s, again) {
			t.Fatalf("%q was written as %q, which reads as %q, %v", text, once, appendSet(nil, again), err)
		}
	})
}

func TestSets(t *testing.T) {
	a, b := setOf("x", "x.y", "x.z", "w"), setOf("x.y", "w.v")
	for name, c := range map[string]struct {
		got  *set
		want string
	}{
		"union":     {union(a, b), `{"f:w":{".":{},"f:v":{}},"f:x":{".":{},"f:y":{},"f:z":{}}}`},
		"intersect": {intersect(a, b), `{"f:x":{"f:y":{}}}`},
		"minus":     {minus(a, b), `{"f:w":{},"f:x":{".":{},"f:z":{}}}`},
		"minus all": {minus(a, a), `{}`},
		"without":   {without(a, setOf("x")), `{"f:w":{}}`},
	} {
		if got := string(appendSet(nil, c.got)); got != c.want {
			t.Errorf("%s is %s, want %s", name, got, c.want)
		}
	}
	if minus(a, setOf("q")) != a || without(b, setOf("q")) != b {
		t.Error("sets from which nothing is taken must stay the same")
	}
}

// What is not looked at must not be changed: live objects are shared.
func TestLiveIsNotChanged(t *testing.T) {
	m, kinds := some(t)
	live := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Data: map[string]string{"k": "v"}}
	mustUpdate(t, m, kinds["ConfigMap"], nil, live, "one", "", t0)
	before := live.DeepCopy()
	obj := live.DeepCopy()
	obj.Data["k"] = "w"
	mustUpdate(t, m, kinds["ConfigMap"], live, obj, "two", "", t0)
	if _, err := m.Apply(kinds["ConfigMap"], live, []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"z"}}`), "ann", "", true, t0); err != nil {
		t.Fatal(err)
	}
	if !runtimeEqual(before, live) {
		t.Errorf("live is now %v", live)
	}
}

func runtimeEqual(a, b runtime.Object) bool {
	x, _ := runtime.DefaultUnstructuredConverter.ToUnstructured(a)
	y, _ := runtime.DefaultUnstructuredConverter.ToUnstructured(b)
	return fmt.Sprint(x) == fmt.Sprint(y) && slices.Equal([]string{fmt.Sprint(a)}, []string{fmt.Sprint(b)})
}

func TestOnlyWhatIsMentionedIsRead(t *testing.T) {
	raw := []byte(`{"f:metadata":{"f:labels":{".":{},"f:a":{},"f:x/y":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{}}}}}`)
	for _, c := range []struct {
		path []string
		want bool
	}{
		{[]string{"f:metadata", "f:labels", "f:a"}, true},
		{[]string{"f:metadata", "f:labels", "f:x/y"}, true},
		{[]string{"f:metadata", "f:labels", "f:b"}, false},
		{[]string{"f:metadata", "f:labels"}, true},
		{[]string{"f:metadata", "f:annotations", "f:a"}, false},
		{[]string{"f:status"}, false},
		{[]string{"f:spec", "f:containers", `k:{"name":"c"}`, "f:image"}, true},
		{[]string{"f:spec", "f:containers", `k:{"name":"d"}`, "f:image"}, true}, // how keys are written is not looked into
		{[]string{"f:spec", "f:containers", `k:{"name":"d"}`, "f:command"}, false},
	} {
		var b builder
		b.insert(c.path)
		if got := mentions(raw, b.set()); got != c.want {
			t.Errorf("%v: %v", c.path, got)
		}
	}
}
