package endpoints_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/proa-dev/proa/internal/controller/endpoints"
	"github.com/proa-dev/proa/test/controllertest"
)

const ours = "endpointslice-controller.k8s.io"

func service() *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "default"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "a"}, ClusterIP: "None", Ports: []corev1.ServicePort{{Name: "web", Port: 80, TargetPort: intstr.FromString("http")}},
	}}
}

func pod(i int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i), Namespace: "default", Labels: map[string]string{"app": "a"}},
		Spec:       corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}},
	}
}

// TestConverges with faults: pods come, go and change; and whatever somebody else
// does to slices and Endpoints is put right.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Kubelet(nil)
	c.Run(endpoints.New(c.Informers, controllertest.Log()))
	controllertest.Create(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelTopologyZone: "z"}}})
	controllertest.Create(c, service())
	for i := range 4 {
		controllertest.Create(c, pod(i))
	}
	slice := func() *discoveryv1.EndpointSlice { // the only one that is ours and the Service's
		var found *discoveryv1.EndpointSlice
		svc := controllertest.Get[*corev1.Service](c, "default", "s")
		for _, s := range controllertest.List[*discoveryv1.EndpointSlice](c) {
			if s.Labels[discoveryv1.LabelManagedBy] != ours || s.Labels[discoveryv1.LabelServiceName] != "s" {
				continue
			}
			if found != nil || !metav1.IsControlledBy(s, svc) {
				return nil
			}
			found = s
		}
		return found
	}
	served := func(pods ...string) func() bool {
		return func() bool {
			s, e := slice(), controllertest.Get[*corev1.Endpoints](c, "default", "s")
			if s == nil || e == nil || len(s.Endpoints) != len(pods) || len(e.Subsets) != 1 || len(e.Subsets[0].Addresses) != len(pods) ||
				*s.Ports[0].Port != 8080 || e.Subsets[0].Ports[0].Port != 8080 {
				return false
			}
			in := map[string]bool{}
			for _, x := range s.Endpoints {
				p := controllertest.Get[*corev1.Pod](c, "default", x.TargetRef.Name)
				in[x.TargetRef.Name] = *x.Conditions.Ready && *x.Zone == "z" && p != nil && x.Addresses[0] == p.Status.PodIP && x.TargetRef.UID == p.UID
			}
			for i, name := range pods {
				if !in[name] || e.Subsets[0].Addresses[i].TargetRef.Name != name {
					return false
				}
			}
			return true
		}
	}
	all := served("p0", "p1", "p2", "p3")
	c.Settles("four pods serve", all)

	editSlice := func(f func(*discoveryv1.EndpointSlice)) {
		controllertest.Change(c, "default", slice().Name, "", f)
	}
	editEndpoints := func(f func(*corev1.Endpoints)) { controllertest.Change(c, "default", "s", "", f) }
	for what, do := range map[string]func(){
		"a slice emptied":    func() { editSlice(func(s *discoveryv1.EndpointSlice) { s.Endpoints = nil }) },
		"a slice taken away": func() { editSlice(func(s *discoveryv1.EndpointSlice) { delete(s.Labels, discoveryv1.LabelManagedBy) }) },
		"a slice given to another": func() {
			editSlice(func(s *discoveryv1.EndpointSlice) { s.Labels[discoveryv1.LabelServiceName] = "other" })
		},
		"a slice without its owner": func() { editSlice(func(s *discoveryv1.EndpointSlice) { s.OwnerReferences = nil }) },
		"a slice with a label more": func() { editSlice(func(s *discoveryv1.EndpointSlice) { s.Labels["x"] = "y" }) },
		"a slice deleted": func() {
			controllertest.Delete[*discoveryv1.EndpointSlice](c, "default", slice().Name, metav1.DeleteOptions{})
		},
		"a slice of somebody's": func() {
			s := slice().DeepCopy()
			s.ObjectMeta = metav1.ObjectMeta{Name: "extra", Namespace: "default", Labels: s.Labels}
			controllertest.Create(c, s)
		},
		"Endpoints emptied":           func() { editEndpoints(func(e *corev1.Endpoints) { e.Subsets = nil }) },
		"Endpoints without its label": func() { editEndpoints(func(e *corev1.Endpoints) { e.Labels = nil }) },
		"Endpoints deleted":           func() { controllertest.Delete[*corev1.Endpoints](c, "default", "s", metav1.DeleteOptions{}) },
	} {
		do()
		c.Settles(what, all)
	}
	if e := slice(); e.Labels["x"] != "" {
		t.Errorf("labels %v", e.Labels)
	}

	controllertest.Delete[*corev1.Pod](c, "default", "p1", metav1.DeleteOptions{})
	controllertest.Change(c, "default", "p2", "", func(p *corev1.Pod) { p.Labels = nil })
	c.Settles("two left", served("p0", "p3"))
	controllertest.Change(c, "default", "p2", "", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "a"} })
	controllertest.Create(c, pod(1))
	c.Settles("four again", all)

	controllertest.Delete[*corev1.Service](c, "default", "s", metav1.DeleteOptions{})
	controllertest.Create(c, service())
	c.Settles("another Service of the name has its own", all)
	controllertest.Delete[*corev1.Service](c, "default", "s", metav1.DeleteOptions{})
	c.Settles("no Endpoints without a Service", func() bool { return controllertest.Get[*corev1.Endpoints](c, "default", "s") == nil })
}
