package admission

import (
	"context"
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// TestPodTopologyLabels: pods are told the zone and the region of their node, when they
// are bound and when they are created for it.
func TestPodTopologyLabels(t *testing.T) {
	const zone, region = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
	w := newWorld(t, base(
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "both", Labels: map[string]string{zone: "z", region: "r", "other": "o"}}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "none"}})...)
	pods, _ := w.Catalog.Type(&corev1.Pod{})
	for _, c := range []struct {
		node, kind string
		had, want  map[string]string
	}{
		{"both", "Node", nil, map[string]string{zone: "z", region: "r"}},
		{"both", "Node", map[string]string{zone: "mine", "a": "b"}, map[string]string{zone: "z", region: "r", "a": "b"}},
		{"both", "Machine", nil, nil},
		{"none", "Node", map[string]string{zone: "mine"}, map[string]string{zone: "mine"}},
		{"unknown", "Node", nil, nil},
		{"", "Node", nil, nil},
	} {
		b := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", Labels: maps.Clone(c.had)}, Target: corev1.ObjectReference{Kind: c.kind, Name: c.node}}
		bind := &Write{Operation: Create, Kind: api.Served{Kind: pods}, Namespace: "ns", Name: "p", Subresource: "binding", Body: b, Options: &metav1.CreateOptions{}, User: &request.User{Name: "s"}}
		if err := w.chain.Admit(context.Background(), bind); err != nil || !maps.Equal(b.Labels, c.want) {
			t.Errorf("bound to the %s %q: %v, %v", c.kind, c.node, b.Labels, err)
		}
		if c.kind != "Node" {
			continue
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", Labels: maps.Clone(c.had)}, Spec: corev1.PodSpec{NodeName: c.node, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
		if err := w.write(Create, pod, nil, &request.User{Name: "s"}); err != nil || !maps.Equal(pod.Labels, c.want) {
			t.Errorf("created for %q: %v, %v", c.node, pod.Labels, err)
		}
	}
}
