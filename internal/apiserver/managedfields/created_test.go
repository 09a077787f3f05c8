package managedfields

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
)

// TestCreated holds what is written in one pass to what a comparison with nothing finds.
func TestCreated(t *testing.T) {
	catalog, kinds := everyKind(t)
	m := New(catalog, &openapi.Types{}, nil)
	written, uneven := 0, 0
	for n, k := range kinds {
		if openapi.NameOf(k.New()) == "" {
			continue
		}
		r := newRandom(seed() + int64(n))
		for round := range 20 {
			obj := k.New()
			if round > 0 {
				r.fill.Fill(obj)
			}
			obj = decoded(t, k, obj)
			obj.SetManagedFields(nil)
			kind := api.Served{Kind: k}
			version := k.GroupVersion().String()
			got, err := m.created(kind, obj, version, "")
			if errors.Is(err, errUneven) {
				uneven++
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			c := comparison{m: m, kind: kind, obj: obj}
			own, err := c.at(version, "")
			if err != nil {
				continue // such an object no validation lets through
			}
			written++
			want := minus(without(own.changed, resetFields(k, "")), stripped)
			if want == nil {
				if got != nil {
					t.Errorf("%s: %s, want none", k.GroupVersionKind, got.GetRawBytes())
				}
				continue
			}
			if got == nil || string(got.GetRawBytes()) != string(appendSet(nil, want)) {
				t.Fatalf("%s:\n%s\nby comparison:\n%s", k.GroupVersionKind, got, appendSet(nil, want))
			}
		}
	}
	if written < 3*uneven {
		t.Errorf("%d objects were written in one pass, %d could not be", written, uneven)
	}
}

// TestBytesAreShared: not what holds them, into which the cache writes.
func TestBytesAreShared(t *testing.T) {
	catalog, _ := everyKind(t)
	pods, _ := catalog.Kind(corev1.SchemeGroupVersion.WithKind("Pod"))
	m, now := New(catalog, &openapi.Types{}, nil), time.Now()
	made := func() *metav1.FieldsV1 {
		pod := ordinaryPod()
		if err := m.Update(pods, nil, pod, "m", "", now); err != nil {
			t.Fatal(err)
		}
		return pod.ManagedFields[0].FieldsV1
	}
	a, b := made(), made()
	if a == b || &a.GetRawBytes()[0] != &b.GetRawBytes()[0] {
		t.Errorf("%p with %p, %p with %p", a, a.GetRawBytes(), b, b.GetRawBytes())
	}
	live := ordinaryPod()
	live.SetUID("1")
	for i, manager := range []string{"a", "b"} {
		live.Labels[manager] = "x"
		from := ordinaryPod()
		from.ManagedFields = live.ManagedFields
		if i == 0 {
			from = nil
		}
		if err := m.Update(pods, asObject(from), live, manager, "", now); err != nil {
			t.Fatal(err)
		}
	}
	next := live.DeepCopy()
	next.Labels["a"] = "y"
	next.ManagedFields = live.ManagedFields
	if err := m.Update(pods, live, next, "a", "", now.Add(time.Hour)); err != nil { // a is the last now
		t.Fatal(err)
	}
	for i := range next.ManagedFields {
		for j := range live.ManagedFields {
			if i != j && next.ManagedFields[i].FieldsV1 == live.ManagedFields[j].FieldsV1 {
				t.Errorf("entry %d holds its fields in entry %d of the object before", i, j)
			}
		}
	}
}

func asObject(p *corev1.Pod) api.Object {
	if p == nil {
		return nil
	}
	return p
}
