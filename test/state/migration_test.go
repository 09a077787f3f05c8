package state

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	migrationv1beta1 "k8s.io/api/storagemigration/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/proa-dev/proa/internal/store"
	"github.com/proa-dev/proa/internal/store/etcd"
)

const (
	keyA = "aescbc: {keys: [{name: a, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}"
	keyB = "aesgcm: {keys: [{name: b, secret: ZmVkY2JhOTg3NjU0MzIxMA==}]}"
)

// TestStorageMigration: after the key of secrets was exchanged and the storage
// version of a custom resource moved, migrations bring every stored value under the
// new key and into the new version; the definition then names that one alone, and
// the old key can go.
func TestStorageMigration(t *testing.T) {
	const n = 25
	s := newServer(t, "")
	s.up("--encryption-provider-config", encryption(t, "secrets: {"+keyA+"}"))
	ctx := t.Context()
	for i := range n {
		if _, err := s.api.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("s", i)}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	dyn, err := dynamic.NewForConfig(s.conf)
	if err != nil {
		t.Fatal(err)
	}
	definitions := dyn.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	if _, err := definitions.Create(ctx, definition(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	things := dyn.Resource(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "things"}).Namespace("default")
	for i := range n {
		eventually(t, 20*time.Second, "things can be made", func() error {
			_, err := things.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "example.com/v1", "kind": "Thing", "metadata": map[string]any{"name": fmt.Sprint("t", i)}, "spec": map[string]any{"size": int64(i)},
			}}, metav1.CreateOptions{})
			return err
		})
	}
	patch := []byte(`[{"op":"replace","path":"/spec/versions/0/storage","value":false},{"op":"replace","path":"/spec/versions/1/storage","value":true}]`)
	d, err := definitions.Patch(ctx, "things.example.com", types.JSONPatchType, patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := storedVersions(d); !slices.Equal(got, []string{"v1", "v2"}) {
		t.Fatal(got)
	}
	s.stop()
	s.up("--encryption-provider-config", encryption(t, "secrets: {"+keyB+"}, {"+keyA+"}"))
	for name, of := range map[string]metav1.GroupResource{"secrets": {Resource: "secrets"}, "things": {Group: "example.com", Resource: "things"}} {
		_, err := s.api.StoragemigrationV1beta1().StorageVersionMigrations().Create(ctx, &migrationv1beta1.StorageVersionMigration{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: migrationv1beta1.StorageVersionMigrationSpec{Resource: of},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"secrets", "things"} {
		eventually(t, 30*time.Second, "the migration of "+name, func() error { return through(ctx, s, name) })
	}
	if d, err = definitions.Get(ctx, "things.example.com", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := storedVersions(d); !slices.Equal(got, []string{"v2"}) {
		t.Errorf("stored versions are %v", got)
	}
	s.stop()
	for prefix, want := range map[string]string{"/secrets/": "k8s:enc:aesgcm:v1:b:", "/example.com/things/": `{"apiVersion":"example.com/v2",`} {
		count := 0
		for key, value := range stored(t, s, prefix) {
			if count++; !strings.HasPrefix(value, want) {
				t.Errorf("%s is stored as %.40q", key, value)
			}
		}
		if count < n {
			t.Errorf("%d below %s", count, prefix)
		}
	}
	s.up("--encryption-provider-config", encryption(t, "secrets: {"+keyB+"}"))
	if list, err := s.api.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) < n {
		t.Errorf("without the old key: %v", err)
	}
}

func through(ctx context.Context, s *server, name string) error {
	m, err := s.api.StoragemigrationV1beta1().StorageVersionMigrations().Get(ctx, name, metav1.GetOptions{})
	if err == nil && (!meta.IsStatusConditionTrue(m.Status.Conditions, "Succeeded") || !meta.IsStatusConditionFalse(m.Status.Conditions, "Running")) {
		err = fmt.Errorf("%+v", m.Status)
	}
	return err
}

// stored are the values below a prefix, as they are, of a server that does not run.
func stored(t *testing.T, s *server, prefix string) map[string]string {
	t.Helper()
	st, err := etcd.Open(t.Context(), etcd.Config{Dir: s.dir + "/etcd", Prefix: etcd.DefaultPrefix})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	all := map[string]string{}
	if _, err := st.Range(t.Context(), prefix, store.RangeOptions{}, func(e store.Entry) bool {
		all[e.Key] = string(e.Value)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func storedVersions(d *unstructured.Unstructured) []string {
	list, _, _ := unstructured.NestedStringSlice(d.Object, "status", "storedVersions")
	return list
}

// definition of things in two versions, of which the first is stored.
func definition() *unstructured.Unstructured {
	version := func(name string, storage bool) any {
		return map[string]any{"name": name, "served": true, "storage": storage, "schema": map[string]any{"openAPIV3Schema": map[string]any{
			"type": "object", "properties": map[string]any{"spec": map[string]any{"type": "object", "properties": map[string]any{"size": map[string]any{"type": "integer"}}}},
		}}}
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": "things.example.com"},
		"spec": map[string]any{
			"group": "example.com", "scope": "Namespaced", "names": map[string]any{"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
			"versions": []any{version("v1", true), version("v2", false)},
		},
	}}
}
