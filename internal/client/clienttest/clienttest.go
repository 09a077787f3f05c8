// Package clienttest is the contract of client.Conn as tests. Both connections
// run it, so that the code above them cannot tell which one it has.
package clienttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
)

// patience is how long anything here may take before it counts as not happening.
const patience = 20 * time.Second

// Widget is a custom resource that the server and the catalog of a connection
// under test have, next to the built-in kinds.
func Widget() *api.Kind {
	gvk := schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Widget"}
	return &api.Kind{
		GroupVersionKind: gvk, Resource: "widgets", Path: "example.com/widgets", Encoding: api.JSON,
		New: func() api.Object {
			u := &unstructured.Unstructured{}
			u.SetGroupVersionKind(gvk)
			return u
		},
		NewList: func() runtime.Object {
			u := &unstructured.UnstructuredList{}
			u.SetGroupVersionKind(gvk.GroupVersion().WithKind("WidgetList"))
			return u
		},
	}
}

// Run holds a connection to the contract. open returns one to a server whose
// namespace "default" is there, and whose catalog has Widget; the tests of one Run
// may share the server.
func Run(t *testing.T, open func(t *testing.T) client.Conn) {
	for name, test := range map[string]func(*testing.T, client.Conn){
		"write and read":  writeAndRead,
		"errors":          refusals,
		"list":            lists,
		"patch":           patches,
		"dry run":         dryRuns,
		"delete":          deletions,
		"delete all":      collects,
		"bind":            binds,
		"watch":           watches,
		"watch of scopes": scopes,
		"informer":        informers,
		"late handler":    lateHandler,
		"shared informer": shared,
		"custom resource": custom,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func configMap(name string, data ...string) *corev1.ConfigMap {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{}}
	for i := 0; i < len(data); i += 2 {
		cm.Data[data[i]] = data[i+1]
	}
	return cm
}

func pod(name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
}

// must returns what a call returned, or fails the test: must(f())(t).
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func kindOf(t testing.TB, conn client.Conn, obj api.Object) *api.Kind {
	t.Helper()
	k, ok := conn.Catalog().Type(obj)
	if !ok {
		t.Fatalf("the catalog has no %T", obj)
	}
	return k
}

func writeAndRead(t *testing.T, conn client.Conn) {
	cms := client.For[*corev1.ConfigMap](conn)
	cm := must(cms.Create(t.Context(), configMap("rw", "a", "1")))(t)
	if cm.ResourceVersion == "" || cm.UID == "" || cm.Kind != "" || cm.APIVersion != "" {
		t.Fatalf("created: %+v", cm)
	}
	next := cm.DeepCopy()
	next.Data["a"] = "2"
	cm2 := must(cms.Update(t.Context(), next))(t)
	if cm2.Data["a"] != "2" || cm2.ResourceVersion == cm.ResourceVersion || cm.Data["a"] != "1" {
		t.Fatalf("updated: %+v", cm2)
	}
	got := must(cms.Get(t.Context(), "default", "rw"))(t)
	if got.Data["a"] != "2" || got.ResourceVersion != cm2.ResourceVersion || got.Kind != "" {
		t.Fatalf("read: %+v", got)
	}
	gen := configMap("")
	gen.GenerateName = "made-"
	if named := must(cms.Create(t.Context(), gen))(t); !strings.HasPrefix(named.Name, "made-") || len(named.Name) < 8 {
		t.Error("generated name:", named.Name)
	}
	p := must(client.For[*corev1.Pod](conn).Create(t.Context(), pod("defaulted", "")))(t)
	if p.Spec.RestartPolicy != corev1.RestartPolicyAlways || p.Status.Phase != corev1.PodPending {
		t.Errorf("a pod has no defaults: %+v", p)
	}
	p = p.DeepCopy()
	p.Status.Message = "said by a test"
	p.Spec.PriorityClassName = "ignored"
	p = must(client.For[*corev1.Pod](conn).UpdateStatus(t.Context(), p))(t)
	if p.Status.Message != "said by a test" || p.Spec.PriorityClassName != "" {
		t.Errorf("status: %+v", p)
	}
}

func refusals(t *testing.T, conn client.Conn) {
	cms := client.For[*corev1.ConfigMap](conn)
	ctx := t.Context()
	_, err := cms.Get(ctx, "default", "none")
	if !apierrors.IsNotFound(err) || err.Error() != `configmaps "none" not found` {
		t.Error("get:", err)
	}
	cm := must(cms.Create(ctx, configMap("taken")))(t)
	if _, err := cms.Create(ctx, configMap("taken")); !apierrors.IsAlreadyExists(err) {
		t.Error("create:", err)
	}
	newer := cm.DeepCopy()
	newer.Data = map[string]string{"a": "b"}
	must(cms.Update(ctx, newer))(t)
	if _, err := cms.Update(ctx, cm.DeepCopy()); !apierrors.IsConflict(err) {
		t.Error("update with an old resourceVersion:", err)
	}
	if _, err := cms.Update(ctx, configMap("none")); !apierrors.IsNotFound(err) {
		t.Error("update of nothing:", err)
	}
	if _, err := cms.Create(ctx, configMap("Not_Good")); !apierrors.IsInvalid(err) {
		t.Error("bad name:", err)
	}
	uid := types.UID("other")
	if err := cms.Delete(ctx, "default", "taken", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); !apierrors.IsConflict(err) {
		t.Error("delete another one:", err)
	}
	if err := cms.Delete(ctx, "default", "none", metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		t.Error("delete nothing:", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := cms.Create(ended, configMap("never")); err == nil {
		t.Error("written although the context had ended")
	}
}

func lists(t *testing.T, conn client.Conn) {
	cms, ctx := client.For[*corev1.ConfigMap](conn), t.Context()
	for _, name := range []string{"l-c", "l-a", "l-b"} {
		cm := configMap(name)
		cm.Labels = map[string]string{"list": "yes", "name": name}
		must(cms.Create(ctx, cm))(t)
	}
	sel := labels.SelectorFromSet(labels.Set{"list": "yes"})
	names := func(objs []*corev1.ConfigMap) (all []string) {
		for _, o := range objs {
			all = append(all, o.Name)
			if o.Kind != "" {
				t.Error("an item with TypeMeta")
			}
		}
		return all
	}
	for _, ns := range []string{"", "default"} {
		if got := names(must(cms.List(ctx, ns, client.ListOptions{Labels: sel}))(t)); !slices.Equal(got, []string{"l-a", "l-b", "l-c"}) {
			t.Errorf("in %q: %v", ns, got)
		}
	}
	if got := must(cms.List(ctx, "elsewhere", client.ListOptions{Labels: sel}))(t); len(got) != 0 {
		t.Error("elsewhere:", got)
	}
	pods := client.For[*corev1.Pod](conn)
	must(pods.Create(ctx, pod("l-on", "l-node")))(t)
	must(pods.Create(ctx, pod("l-off", "")))(t)
	on := must(pods.List(ctx, "", client.ListOptions{Index: "spec.nodeName", Value: "l-node"}))(t)
	if len(on) != 1 || on[0].Name != "l-on" {
		t.Error("by index:", on)
	}
	_, rev, err := conn.List(ctx, cms.Kind(), "", client.ListOptions{})
	if err != nil || rev == "" || rev == "0" {
		t.Error("revision of a list:", rev, err)
	}
}

func patches(t *testing.T, conn client.Conn) {
	cms, ctx := client.For[*corev1.ConfigMap](conn), t.Context()
	must(cms.Create(ctx, configMap("p", "a", "1", "b", "2")))(t)
	for _, p := range []client.Patch{
		{Type: types.MergePatchType, Data: []byte(`{"data":{"a":null,"c":"3"}}`)},
		{Type: types.JSONPatchType, Data: []byte(`[{"op":"add","path":"/data/d","value":"4"}]`)},
		{Type: types.StrategicMergePatchType, Data: []byte(`{"metadata":{"labels":{"x":"y"}}}`)},
	} {
		must(cms.Patch(ctx, "default", "p", p, client.WriteOptions{Manager: "clienttest"}))(t)
	}
	cm := must(cms.Get(ctx, "default", "p"))(t)
	if fmt.Sprint(cm.Data) != "map[b:2 c:3 d:4]" || cm.Labels["x"] != "y" {
		t.Errorf("%+v", cm)
	}
	if _, err := cms.Patch(ctx, "default", "p", client.Patch{Type: types.JSONPatchType, Data: []byte(`[{"op":"remove","path":"/data/none"}]`)}, client.WriteOptions{}); err == nil {
		t.Error("a patch that does not fit")
	}
}

func dryRuns(t *testing.T, conn client.Conn) {
	k, ctx := kindOf(t, conn, &corev1.ConfigMap{}), t.Context()
	obj := must(conn.Create(ctx, k, configMap("dry", "a", "1"), client.WriteOptions{DryRun: true}))(t)
	if obj.GetUID() == "" {
		t.Error("a dry run shows what would be there")
	}
	if _, err := conn.Get(ctx, k, "default", "dry"); !apierrors.IsNotFound(err) {
		t.Error("after a dry run:", err)
	}
}

func deletions(t *testing.T, conn client.Conn) {
	cms, ctx := client.For[*corev1.ConfigMap](conn), t.Context()
	cm := configMap("held")
	cm.Finalizers = []string{"example.com/hold"}
	must(cms.Create(ctx, cm))(t)
	if err := cms.Delete(ctx, "default", "held", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	held := must(cms.Get(ctx, "default", "held"))(t).DeepCopy()
	if held.DeletionTimestamp == nil {
		t.Fatal("not marked as being deleted")
	}
	held.Finalizers = nil
	if _, err := cms.Update(ctx, held); err != nil {
		t.Fatal(err)
	}
	if _, err := cms.Get(ctx, "default", "held"); !apierrors.IsNotFound(err) {
		t.Error("still there:", err)
	}
}

func collects(t *testing.T, conn client.Conn) {
	c, ok := conn.(client.Collector)
	if !ok {
		t.Skip("the connection cannot delete many objects at once")
	}
	secrets, ctx := client.For[*corev1.Secret](conn), t.Context()
	for name, of := range map[string]corev1.SecretType{"a": "example.com/x", "b": "example.com/y", "c": "example.com/x"} {
		must(secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "all-" + name}, Type: of}))(t)
	}
	if err := c.DeleteAll(ctx, secrets.Kind(), "default", "type=example.com/x"); err != nil {
		t.Fatal(err)
	}
	must(secrets.Get(ctx, "default", "all-b"))(t)
	for _, name := range []string{"all-a", "all-c"} {
		if _, err := secrets.Get(ctx, "default", name); !apierrors.IsNotFound(err) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
}

func binds(t *testing.T, conn client.Conn) {
	pods, ctx := client.For[*corev1.Pod](conn), t.Context()
	must(pods.Create(ctx, pod("unbound", "")))(t)
	b := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "unbound"}, Target: corev1.ObjectReference{Kind: "Node", Name: "bind-node"}}
	if _, err := conn.Post(ctx, pods.Kind(), "default", "unbound", "binding", b); err != nil {
		t.Fatal(err)
	}
	if p := must(pods.Get(ctx, "default", "unbound"))(t); p.Spec.NodeName != "bind-node" {
		t.Error("bound to", p.Spec.NodeName)
	}
	if _, err := conn.Post(ctx, pods.Kind(), "default", "unbound", "binding", b.DeepCopy()); !apierrors.IsConflict(err) {
		t.Error("bound twice:", err)
	}
	binder, ok := conn.(client.Binder)
	if !ok {
		return
	}
	must(pods.Create(ctx, pod("unbound-2", "")))(t)
	errs := binder.BindAll(ctx, []client.Binding{{Namespace: "default", Name: "unbound-2", Node: "n"}, {Namespace: "default", Name: "none", Node: "n"}})
	if errs[0] != nil || !apierrors.IsNotFound(errs[1]) {
		t.Error("bound many:", errs)
	}
}

// told collects what a watch tells as text until it has said want things.
func told(t *testing.T, e client.Events, want int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	all := []string{}
	for len(all) < want {
		batch, err := e.Next(ctx)
		if err != nil {
			t.Fatalf("%v, after %v", err, all)
		}
		for _, ev := range batch {
			all = append(all, text(ev))
		}
	}
	return all
}

func text(e client.Event) string {
	switch {
	case e.Old == nil:
		return "+" + e.New.GetName()
	case e.New == nil:
		return "-" + e.Old.GetName()
	}
	return "~" + e.New.GetName()
}

func watches(t *testing.T, conn client.Conn) {
	secrets, ctx := client.For[*corev1.Secret](conn), t.Context()
	secret := func(name string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	}
	empty := must(conn.Watch(ctx, secrets.Kind(), client.Scope{Namespace: "nobody-here"}))(t)
	defer empty.Stop()
	if batch, err := empty.Next(ctx); err != nil || batch == nil || len(batch) != 0 {
		t.Error("a watch of nothing:", batch, err)
	}
	select {
	case <-empty.Synced():
	default:
		t.Error("not synced after the first batch")
	}

	one := must(secrets.Create(ctx, secret("w-one")))(t)
	must(secrets.Create(ctx, secret("w-two")))(t)
	w := must(conn.Watch(ctx, secrets.Kind(), client.Scope{Namespace: "default"}))(t)
	first := told(t, w, 2)
	slices.Sort(first)
	if !slices.Equal(first, []string{"+w-one", "+w-two"}) {
		t.Fatal("first:", first)
	}
	select {
	case <-w.Synced():
	default:
		t.Error("not synced although all was told")
	}
	change := one.DeepCopy()
	change.Data = map[string][]byte{"a": []byte("b")}
	must(secrets.Update(ctx, change))(t)
	if err := secrets.Delete(ctx, "default", "w-two", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	must(secrets.Create(ctx, secret("w-three")))(t)
	if got := told(t, w, 3); !slices.Equal(got, []string{"~w-one", "-w-two", "+w-three"}) {
		t.Error("then:", got)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := w.Next(ended); !errors.Is(err, context.Canceled) {
		t.Error("Next with an ended context:", err)
	}
	w.Stop()
	if batch, err := w.Next(ctx); err == nil {
		t.Error("Next after Stop:", batch)
	}
}

func scopes(t *testing.T, conn client.Conn) {
	pods, ctx := client.For[*corev1.Pod](conn), t.Context()
	watch := func(s client.Scope) client.Events {
		e := must(conn.Watch(ctx, pods.Kind(), s))(t)
		t.Cleanup(e.Stop)
		if batch, err := e.Next(ctx); err != nil || len(batch) != 0 {
			t.Fatalf("%+v: %v %v", s, batch, err)
		}
		return e
	}
	onNode := watch(client.Scope{Index: "spec.nodeName", Value: "s-node"})
	named := watch(client.Scope{Namespace: "default", Name: "s-free"})
	must(pods.Create(ctx, pod("s-bound", "s-node")))(t)
	must(pods.Create(ctx, pod("s-free", "")))(t)
	b := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s-free"}, Target: corev1.ObjectReference{Kind: "Node", Name: "s-node"}}
	must(conn.Post(ctx, pods.Kind(), "default", "s-free", "binding", b))(t)
	var none int64
	for _, name := range []string{"s-bound", "s-free"} {
		if err := pods.Delete(ctx, "default", name, metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
			t.Fatal(err)
		}
	}
	if got := told(t, onNode, 4); !slices.Equal(got, []string{"+s-bound", "+s-free", "-s-bound", "-s-free"}) {
		t.Error("on a node:", got)
	}
	if got := told(t, named, 3); !slices.Equal(got, []string{"+s-free", "~s-free", "-s-free"}) {
		t.Error("by name:", got)
	}
	if _, err := conn.Watch(ctx, pods.Kind(), client.Scope{}); err != nil {
		t.Error(err)
	}
}

func custom(t *testing.T, conn client.Conn) {
	ctx := t.Context()
	served, ok := conn.Catalog().Kind(Widget().GroupVersionKind)
	if !ok {
		t.Fatal("the catalog has no Widget")
	}
	k := served.Kind
	w := must(conn.Watch(ctx, k, client.Scope{}))(t)
	defer w.Stop()
	obj := k.New().(*unstructured.Unstructured)
	obj.SetNamespace("default")
	obj.SetName("cr")
	obj.Object["spec"] = map[string]any{"size": int64(3)}
	made := must(conn.Create(ctx, k, obj, client.WriteOptions{}))(t).DeepCopyObject().(*unstructured.Unstructured)
	if made.GetUID() == "" || made.GroupVersionKind() != k.GroupVersionKind {
		t.Errorf("created: %v", made)
	}
	made.Object["spec"] = map[string]any{"size": int64(4)}
	must(conn.Update(ctx, k, made, client.WriteOptions{}))(t)
	patch := client.Patch{Type: types.MergePatchType, Data: []byte(`{"spec":{"colour":"red"}}`)}
	must(conn.Patch(ctx, k, "default", "cr", patch, client.WriteOptions{}))(t)
	list, _, err := conn.List(ctx, k, "", client.ListOptions{})
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	spec := list[0].(*unstructured.Unstructured).Object["spec"].(map[string]any)
	if spec["size"] != int64(4) || spec["colour"] != "red" {
		t.Error(spec)
	}
	var now int64
	if err := conn.Delete(ctx, k, "default", "cr", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Get(ctx, k, "default", "cr"); !apierrors.IsNotFound(err) {
		t.Error("deleted:", err)
	}
	if got := told(t, w, 4); !slices.Equal(got, []string{"+cr", "~cr", "~cr", "-cr"}) {
		t.Error("watch:", got)
	}
}
