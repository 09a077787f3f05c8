package mirror_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/mirror"
	"github.com/proa-dev/proa/test/controllertest"
)

// TestConverges with every fifth write failing.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Run(mirror.New(c.Informers, controllertest.Log()))
	meta := metav1.ObjectMeta{Name: "s", Namespace: "default"}
	controllertest.Create(c, &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIP: "None", Ports: []corev1.ServicePort{{Port: 80}}}})
	controllertest.Create(c, &corev1.Endpoints{ObjectMeta: meta, Subsets: []corev1.EndpointSubset{{
		Addresses: []corev1.EndpointAddress{{IP: "10.1.2.3"}}, NotReadyAddresses: []corev1.EndpointAddress{{IP: "10.1.2.4"}},
		Ports: []corev1.EndpointPort{{Name: "http", Port: 80}},
	}}})
	only := func(addresses ...string) func() bool {
		return func() bool {
			all := controllertest.List[*discoveryv1.EndpointSlice](c)
			if len(all) != 1 || len(all[0].Endpoints) != len(addresses) || *all[0].Ports[0].Name != "http" {
				return false
			}
			for i, a := range addresses {
				if all[0].Endpoints[i].Addresses[0] != a || *all[0].Endpoints[i].Conditions.Ready != (i == 0) {
					return false
				}
			}
			return true
		}
	}
	both := only("10.1.2.3", "10.1.2.4")
	c.Settles("mirrored", both)
	edit := func(f func(*discoveryv1.EndpointSlice)) {
		controllertest.Change(c, "default", controllertest.List[*discoveryv1.EndpointSlice](c)[0].Name, "", f)
	}
	edit(func(s *discoveryv1.EndpointSlice) { s.Endpoints = nil })
	c.Settles("mirrored again", both)
	edit(func(s *discoveryv1.EndpointSlice) { s.OwnerReferences = nil })
	c.Settles("owned again", func() bool {
		return both() && len(controllertest.List[*discoveryv1.EndpointSlice](c)[0].OwnerReferences) == 1
	})
	controllertest.Delete[*discoveryv1.EndpointSlice](c, "default", controllertest.List[*discoveryv1.EndpointSlice](c)[0].Name, metav1.DeleteOptions{})
	c.Settles("there again", both)
	controllertest.Change(c, "default", "s", "", func(e *corev1.Endpoints) { e.Subsets[0].NotReadyAddresses = nil })
	c.Until("changed", only("10.1.2.3"))
	if err := client.For[*corev1.Endpoints](c.Conn).Delete(t.Context(), "default", "s", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.Until("gone", func() bool { return len(controllertest.List[*discoveryv1.EndpointSlice](c)) == 0 })
}
