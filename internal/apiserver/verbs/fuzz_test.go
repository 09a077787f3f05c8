package verbs

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver/patch"
	"github.com/proa-dev/proa/internal/cache"
)

func TestToken(t *testing.T) {
	want := token{APIVersion: tokenVersion, ResourceVersion: 7, Start: "ns/name\x00"}
	if got, err := parseToken(want.String()); err != nil || got != want {
		t.Errorf("%+v %v", got, err)
	}
	catalog := kinds.Catalog()
	pods, _ := catalog.Type(&corev1.Pod{})
	nodes, _ := catalog.Type(&corev1.Node{})
	if ns, name := split(pods, "a/b\x00"); ns != "a" || name != "b\x00" {
		t.Errorf("%q %q", ns, name)
	}
	if ns, name := split(nodes, "b\x00"); ns != "" || name != "b\x00" {
		t.Errorf("%q %q", ns, name)
	}
}

func FuzzToken(f *testing.F) {
	f.Add(token{ResourceVersion: 7, Start: "ns/name\x00"}.String())
	f.Add("eyJ2IjoieCJ9")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseToken(text)
		if err != nil {
			return
		}
		if got.ResourceVersion == 0 || got.Start == "" {
			t.Errorf("%q was read as %+v", text, got)
		}
		if again, err := parseToken(got.String()); err != nil || again != got {
			t.Errorf("%+v became %+v, %v", got, again, err)
		}
	})
}

func FuzzSelector(f *testing.F) {
	catalog := kinds.Catalog()
	k, _ := catalog.Type(&corev1.Pod{})
	v := New(Config{Catalog: catalog})
	pod := &corev1.Pod{}
	pod.Name, pod.Namespace, pod.Labels = "p", "n", map[string]string{"a": "b"}
	item := &cache.Item{Object: pod}
	f.Add("a=b,c!=d", "metadata.name=p,spec.nodeName!=x")
	f.Add("a in (b,c),!d", "status.phase=Running")
	f.Add("a gt 5", `metadata.name=a\,b`)
	f.Fuzz(func(t *testing.T, label, field string) {
		s, err := v.ParseSelector(api.Served{Kind: k}, label, field)
		if err != nil {
			return
		}
		picked, err := s.Matches(api.Served{Kind: k}, item)
		if err != nil {
			t.Fatal(err)
		}
		if s.Everything() && !picked {
			t.Errorf("%q %q picks everything, but not the pod", label, field)
		}
		if scope := s.scope(api.Served{Kind: k}, "", ""); picked && (scope.Name != "" && scope.Name != "p" || scope.Namespace != "" && scope.Namespace != "n") {
			t.Errorf("%q %q picks the pod, but looks at %+v", label, field, scope)
		}
	})
}

func FuzzPatch(f *testing.F) {
	catalog := kinds.Catalog()
	k, _ := catalog.Type(&corev1.Pod{})
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	pod.Name = "p"
	k.Default(pod)
	doc, err := wire.Encode(k.GroupVersionKind, pod, wire.JSON)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(0, []byte(`[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]`))
	f.Add(1, []byte(`{"spec":{"containers":null}}`))
	f.Add(2, []byte(`{"spec":{"containers":[{"name":"c","$patch":"delete"}],"$setElementOrder/containers":[{"name":"x"}]}}`))
	kindsOf := []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType}
	f.Fuzz(func(t *testing.T, typ int, data []byte) {
		p, err := patch.Parse(kindsOf[uint(typ)%3], data)
		if err != nil {
			return
		}
		out, err := p.Apply(doc, pod, schema.GroupKind{Kind: "Pod"}, "p")
		if err != nil {
			return
		}
		_, _, _ = wire.Decode(wire.JSON, out, api.Served{Kind: k}, wire.Strict)
	})
}
