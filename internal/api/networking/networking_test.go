package networking

import (
	"fmt"
	"strings"
	"testing"

	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	networkingv1 "k8s.io/api/networking/v1"
	v1beta1 "k8s.io/api/networking/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
)

// The Ingress of half of the tutorials on the web.
const tutorial = `apiVersion: GROUP/v1beta1
kind: Ingress
metadata: {name: plumber-on-k8s-ingress}
spec:
  rules:
  - http:
      paths:
      - {path: /health, backend: {serviceName: plumber-on-k8s-service, servicePort: 8000}}
      - {path: /named,  backend: {serviceName: plumber-on-k8s-service, servicePort: web}}
`

func served(t *testing.T, group string) api.Served {
	t.Helper()
	catalog, err := api.NewCatalog(Kinds()...)
	if err != nil {
		t.Fatal(err)
	}
	s, ok := catalog.Resource(schema.GroupVersionResource{Group: group, Version: "v1beta1", Resource: "ingresses"})
	if !ok {
		t.Fatalf("%s/v1beta1 is not served", group)
	}
	return s
}

func TestTheOldIngress(t *testing.T) {
	for group, warning := range map[string]string{
		"networking.k8s.io": "networking.k8s.io/v1beta1 Ingress is deprecated in v1.19+, unavailable in v1.22+; use networking.k8s.io/v1 Ingress",
		"extensions":        "extensions/v1beta1 Ingress is deprecated in v1.14+, unavailable in v1.22+; use networking.k8s.io/v1 Ingress",
	} {
		t.Run(group, func(t *testing.T) {
			s := served(t, group)
			if s.Shape.Deprecated != warning {
				t.Errorf("warns %q", s.Shape.Deprecated)
			}
			obj, warnings, err := wire.Decode(wire.YAML, []byte(strings.Replace(tutorial, "GROUP", group, 1)), s, wire.Strict)
			if err != nil || len(warnings) > 0 {
				t.Fatal(err, warnings)
			}
			i := obj.(*networkingv1.Ingress)
			s.Reset(i, nil, "")
			if errs := s.Validate(i, nil, ""); len(errs) > 0 {
				t.Errorf("refused: %v", errs)
			}
			paths := i.Spec.Rules[0].HTTP.Paths
			if *paths[0].PathType != networkingv1.PathTypeImplementationSpecific || paths[0].Backend.Service.Port.Number != 8000 || paths[1].Backend.Service.Port.Name != "web" {
				t.Errorf("%+v", paths)
			}
			switch back := s.Shape.From(i).(type) {
			case *v1beta1.Ingress:
				if b := back.Spec.Rules[0].HTTP.Paths[0].Backend; b.ServiceName != "plumber-on-k8s-service" || b.ServicePort.IntValue() != 8000 {
					t.Errorf("%+v", b)
				}
			case *extensionsv1beta1.Ingress:
				if b := back.Spec.Rules[0].HTTP.Paths[1].Backend; b.ServicePort.StrVal != "web" || back.Name != "plumber-on-k8s-ingress" {
					t.Errorf("%+v", b)
				}
			}
		})
	}
}

func path(typ networkingv1.PathType, at string) networkingv1.HTTPIngressPath {
	return networkingv1.HTTPIngressPath{Path: at, PathType: &typ, Backend: networkingv1.IngressBackend{
		Service: &networkingv1.IngressServiceBackend{Name: "s", Port: networkingv1.ServiceBackendPort{Number: 80}}}}
}

func withPath(p networkingv1.HTTPIngressPath) *networkingv1.Ingress {
	i := &networkingv1.Ingress{}
	i.Spec.Rules = []networkingv1.IngressRule{{IngressRuleValue: networkingv1.IngressRuleValue{
		HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{p}}}}}
	return i
}

func same(t *testing.T, errs field.ErrorList, want ...string) {
	t.Helper()
	var got []string
	for _, e := range errs {
		got = append(got, e.Error())
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("\n got %s\nwant %s", strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

func TestIngressRules(t *testing.T) {
	at := "spec.rules[0].http.paths[0]"
	check := func(i *networkingv1.Ingress, want ...string) {
		t.Helper()
		same(t, ingress().Validate(i, nil, ""), want...)
	}
	check(withPath(path("Prefix", "/")))
	check(&networkingv1.Ingress{}, "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified")
	check(withPath(path("Prefix", "x//%2f")), at+`.path: Invalid value: "x//%2f": must be an absolute path`,
		at+`.path: Invalid value: "x//%2f": must not contain '//'`, at+`.path: Invalid value: "x//%2f": must not contain '%2f'`)
	check(withPath(path("Odd", "/")), at+`.pathType: Unsupported value: "Odd": supported values: "Exact", "ImplementationSpecific", "Prefix"`)
	p := path("Exact", "/")
	p.PathType = nil
	check(withPath(p), at+".pathType: Required value: pathType must be specified")
	p = path("Exact", "/")
	p.Backend.Service.Port = networkingv1.ServiceBackendPort{}
	check(withPath(p), at+".backend: Required value: port name or number is required")
	p.Backend.Service = nil
	check(withPath(p), at+`.backend: Invalid value: "": resource or service backend is required`)
	i := withPath(path("Exact", "/"))
	i.Spec.Rules[0].Host = "10.0.0.1"
	check(i, `spec.rules[0].host: Invalid value: "10.0.0.1": must be a DNS name, not an IP address`)
	i.Spec.Rules[0].Host = "*.example.org"
	class := "a"
	i.Spec.IngressClassName, i.Annotations = &class, map[string]string{"kubernetes.io/ingress.class": "b"}
	check(i, "annotations.kubernetes.io/ingress.class: Invalid value: \"b\": must match `ingressClassName` when both are specified")
}

func TestIngressRow(t *testing.T) {
	i := withPath(path("Exact", "/"))
	i.Name = "i"
	for _, h := range []string{"a.x", "b.x", "c.x", "d.x"} {
		i.Spec.Rules = append(i.Spec.Rules, networkingv1.IngressRule{Host: h})
	}
	i.Spec.TLS = []networkingv1.IngressTLS{{}}
	i.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "2.2.2.2"}, {IP: "1.1.1.1"}, {Hostname: "h"}}
	row := ingress().Row(i)
	for n, want := range []string{"i", "<none>", "a.x,b.x,c.x + 2 more...", "1.1.1.1,2.2.2.2,h", "80, 443", "<unknown>"} {
		if got := fmt.Sprint(row[n]); got != want {
			t.Errorf("%d: %s, not %s", n, got, want)
		}
	}
}

func TestIngressClass(t *testing.T) {
	c := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "proa", Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}}}
	c.Spec.Controller = "proa.dev/ingress"
	k := ingressClass()
	same(t, k.Validate(c, nil, ""))
	if row := k.Row(c); row[0] != "proa (default)" || row[2] != "<none>" {
		t.Errorf("%v", row)
	}
	other := c.DeepCopy()
	other.Spec.Controller = "example.org/other"
	same(t, k.Validate(other, c, ""), `spec.controller: Invalid value: "example.org/other": field is immutable`)
}

func TestNetworkPolicy(t *testing.T) {
	n := &networkingv1.NetworkPolicy{}
	n.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"11.0.0.0/16"}}}, {}}}}
	k := networkPolicy()
	k.Default(n)
	if len(n.Spec.PolicyTypes) != 2 {
		t.Errorf("%v", n.Spec.PolicyTypes)
	}
	same(t, k.Validate(n, nil, ""), "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
		"spec.egress[0].to[1]: Required value: must specify a peer")
}

func TestServiceCIDRTakesASecondFamily(t *testing.T) {
	k := serviceCIDR()
	one, two := &networkingv1.ServiceCIDR{}, &networkingv1.ServiceCIDR{}
	one.Spec.CIDRs, two.Spec.CIDRs = []string{"10.0.0.0/16"}, []string{"10.0.0.0/16", "fd00::/112"}
	same(t, k.Validate(two, one, ""))
	same(t, k.Validate(one, two, ""), `spec.cidrs: Invalid value: ["10.0.0.0/16"]: field is immutable`)
}
