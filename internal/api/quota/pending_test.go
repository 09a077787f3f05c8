package quota

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
)

func TestPending(t *testing.T) {
	k := &api.Kind{GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ConfigMap")}
	other := &api.Kind{GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Secret")}
	named := func(name string) api.Object {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
	}
	var none *Pending
	none.Add(k, named("a"))()
	if none.Of(k, "ns") != nil {
		t.Error("nil has something")
	}
	p := &Pending{}
	first := p.Add(k, named("a"))
	second := p.Add(k, named("b"))
	if n := len(p.Of(k, "ns")); n != 2 || p.Of(other, "ns") != nil || p.Of(k, "elsewhere") != nil {
		t.Errorf("%d of 2 writes", n)
	}
	there := []api.Object{named("b"), named("c")}
	if all := With(there, p.Of(k, "ns")); len(all) != 3 { // b is about to be seen
		t.Errorf("%d objects of 3", len(all))
	}
	first()
	second()
	if p.Of(k, "ns") != nil || len(p.writes) != 0 || len(With(there, nil)) != 2 {
		t.Error("what is done is pending still")
	}
}
