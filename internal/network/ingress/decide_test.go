package ingress

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func ptr[T any](v T) *T { return &v }

// rule is "HOST PATH SERVICE", a path "=/x" is exact.
func ingress(name string, age int, rules ...string) *networkingv1.Ingress {
	ing := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, CreationTimestamp: metav1.Unix(int64(1000-age), 0)}}
	for _, r := range rules {
		f := strings.Split(r, " ")
		path, typ := f[1], networkingv1.PathTypePrefix
		if p, exact := strings.CutPrefix(path, "="); exact {
			path, typ = p, networkingv1.PathTypeExact
		}
		ing.Spec.Rules = append(ing.Spec.Rules, networkingv1.IngressRule{Host: f[0], IngressRuleValue: networkingv1.IngressRuleValue{
			HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: path, PathType: &typ, Backend: *to(f[2])}}}}})
	}
	return ing
}

func to(service string) *networkingv1.IngressBackend {
	return &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: service, Port: networkingv1.ServiceBackendPort{Number: 80}}}
}

// snapshot has every Service asked for, at the endpoints given ("ready", or
// "terminating:", "down:" before the address).
func snapshot(endpoints []string, all ...*networkingv1.Ingress) Snapshot {
	slice := &discoveryv1.EndpointSlice{Ports: []discoveryv1.EndpointPort{{Name: ptr("web"), Port: ptr(int32(8080))}}}
	for _, e := range endpoints {
		ep := discoveryv1.Endpoint{}
		switch state, addr, _ := strings.Cut(e, ":"); state {
		case "terminating":
			ep.Addresses, ep.Conditions = []string{addr}, discoveryv1.EndpointConditions{Ready: ptr(false), Serving: ptr(true), Terminating: ptr(true)}
		case "down":
			ep.Addresses, ep.Conditions = []string{addr}, discoveryv1.EndpointConditions{Ready: ptr(false)}
		default:
			ep.Addresses = []string{e}
		}
		slice.Endpoints = append(slice.Endpoints, ep)
	}
	return Snapshot{
		Ingresses: all,
		Class: func(name string) *networkingv1.IngressClass {
			return map[string]*networkingv1.IngressClass{
				"mine":  {Spec: networkingv1.IngressClassSpec{Controller: Controller}},
				"nginx": {Spec: networkingv1.IngressClassSpec{Controller: "k8s.io/ingress-nginx"}},
			}[name]
		},
		Service: func(ns, name string) *corev1.Service {
			if name == "missing" {
				return nil
			}
			return &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "web", Port: 80}}}}
		},
		Slices: func(ns, service string) []*discoveryv1.EndpointSlice { return []*discoveryv1.EndpointSlice{slice} },
		Secret: func(ns, name string) *corev1.Secret { return nil },
	}
}

func TestFind(t *testing.T) {
	withDefault := ingress("shop", 5, "shop.example.com / shop", "shop.example.com /cart cart", "shop.example.com =/cart exact")
	everywhere := ingress("any", 4, " /health health")
	everywhere.Spec.DefaultBackend = to("default")
	table := Decide(snapshot(nil,
		withDefault, everywhere,
		ingress("wild", 3, "*.example.com /w wild"),
		ingress("late", 1, "shop.example.com /cart late"),
		ingress("slash", 2, "slash.example.com /a/ slash"),
	))
	for _, c := range []struct{ host, path, want string }{
		{"shop.example.com", "/", "shop"},
		{"shop.example.com", "/anything", "shop"},
		{"SHOP.example.com:8080", "/cart", "exact"},
		{"shop.example.com", "/cart/1", "cart"},
		{"shop.example.com", "/carton", "shop"},
		{"other.example.com", "/w/x", "wild"},
		{"a.b.example.com", "/w", "default"}, // a wildcard stands for one label
		{"example.com", "/w", "default"},
		{"other.example.com", "/health", "health"},
		{"192.0.2.1", "/health", "health"},
		{"[2001:db8::1]:80", "/health", "health"},
		{"192.0.2.1", "/nothing", "default"},
		{"slash.example.com", "/a", "slash"},
		{"slash.example.com", "/a/b", "slash"},
	} {
		got := "-"
		if r, ok := table.Find(c.host, c.path); ok {
			got = r.To.Service
		}
		if got != c.want {
			t.Errorf("%s%s: %s, want %s", c.host, c.path, got, c.want)
		}
	}
}

func TestDecideClasses(t *testing.T) {
	class := func(name string) *networkingv1.Ingress {
		i := ingress("i", 0, " / web")
		i.Spec.IngressClassName = &name
		return i
	}
	annotated := ingress("i", 0, " / web")
	annotated.Annotations = map[string]string{annotationClass: "nginx"}
	for name, c := range map[string]struct {
		ing    *networkingv1.Ingress
		served bool
	}{
		"no class":                 {ingress("i", 0, " / web"), true},
		"proa":                     {class("proa"), true},
		"another of ours":          {class("mine"), true},
		"another's":                {class("nginx"), false},
		"one that is not there":    {class("gone"), false},
		"another's, by annotation": {annotated, false},
	} {
		if got := len(Decide(snapshot(nil, c.ing)).Served) == 1; got != c.served {
			t.Errorf("%s: served %v, want %v", name, got, c.served)
		}
	}
}

func TestDecideEndpoints(t *testing.T) {
	for _, c := range []struct {
		endpoints []string
		want      string
	}{
		{[]string{"10.0.0.2", "10.0.0.1", "down:10.0.0.3"}, "[10.0.0.1:8080 10.0.0.2:8080]"},
		{[]string{"terminating:10.0.0.1", "10.0.0.2"}, "[10.0.0.2:8080]"},
		{[]string{"terminating:10.0.0.1", "down:10.0.0.2"}, "[10.0.0.1:8080]"},
		{nil, "[]"},
	} {
		for _, b := range Decide(snapshot(c.endpoints, ingress("i", 0, " / web"))).Backends {
			if fmt.Sprint(b.Endpoints) != c.want {
				t.Errorf("%v: %v, want %s", c.endpoints, b.Endpoints, c.want)
			}
		}
	}
}

func TestDecideProblems(t *testing.T) {
	ing := ingress("i", 0, " / missing", " /p web")
	ing.Annotations = map[string]string{AnnotationTimeout: "30"}
	ing.Spec.Rules[1].HTTP.Paths[0].Backend.Service.Port.Number = 81
	ing.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"a"}, SecretName: "none"}}
	table := Decide(snapshot(nil, ing))
	text := fmt.Sprint(table.Problems)
	for _, want := range []string{`annotation proa.dev/timeout is "30"; write a duration such as "30s"`, "there is no Service missing in namespace default",
		"Service default/web has no port 81", "there is no Secret none in namespace default"} {
		if !strings.Contains(text, want) {
			t.Errorf("no word of %q in %s", want, text)
		}
	}
	ing.Annotations[AnnotationTimeout] = "30s"
	if r, _ := Decide(snapshot(nil, ing)).Find("", "/p"); r.Options.Timeout != 30*time.Second {
		t.Errorf("timeout %v", r.Options.Timeout)
	}
}
