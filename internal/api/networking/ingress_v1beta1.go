package networking

import (
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	networkingv1 "k8s.io/api/networking/v1"
	v1beta1 "k8s.io/api/networking/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
)

// Kubernetes dropped the v1beta1 Ingress in 1.22, and half of the tutorials on
// the web still show it: Proa serves it in both of its groups.

func ingressV1beta1() api.Shape {
	return api.Shape{
		GroupVersionKind: v1beta1.SchemeGroupVersion.WithKind("Ingress"),
		New:              func() api.Object { return &v1beta1.Ingress{} },
		NewList:          func() runtime.Object { return &v1beta1.IngressList{} },
		From:             func(o api.Object) api.Object { return toV1beta1(o.(*networkingv1.Ingress)) },
		To:               func(o api.Object) api.Object { return fromV1beta1(o.(*v1beta1.Ingress)) },
		Default:          api.Of(defaultV1beta1),
		Deprecated:       "networking.k8s.io/v1beta1 Ingress is deprecated in v1.19+, unavailable in v1.22+; use networking.k8s.io/v1 Ingress",
	}
}

func ingressExtensions() api.Shape {
	return api.Shape{
		GroupVersionKind: extensionsv1beta1.SchemeGroupVersion.WithKind("Ingress"),
		New:              func() api.Object { return &extensionsv1beta1.Ingress{} },
		NewList:          func() runtime.Object { return &extensionsv1beta1.IngressList{} },
		From: func(o api.Object) api.Object {
			shaped := &extensionsv1beta1.Ingress{}
			transcribe(toV1beta1(o.(*networkingv1.Ingress)), shaped)
			return shaped
		},
		To: func(o api.Object) api.Object {
			shaped := &v1beta1.Ingress{}
			transcribe(o.(*extensionsv1beta1.Ingress), shaped)
			defaultV1beta1(shaped)
			return fromV1beta1(shaped)
		},
		Deprecated: "extensions/v1beta1 Ingress is deprecated in v1.14+, unavailable in v1.22+; use networking.k8s.io/v1 Ingress",
	}
}

// transcribe copies between the Ingresses of networking.k8s.io/v1beta1 and
// extensions/v1beta1. They are one protobuf message under two Go names.
func transcribe(from interface{ Marshal() ([]byte, error) }, to interface{ Unmarshal([]byte) error }) {
	data, err := from.Marshal()
	if err == nil {
		err = to.Unmarshal(data)
	}
	if err != nil { // not possible: both are messages of one schema in memory
		panic(err)
	}
}

func defaultV1beta1(i *v1beta1.Ingress) {
	for r := range i.Spec.Rules {
		if http := i.Spec.Rules[r].HTTP; http != nil {
			for p := range http.Paths {
				defaults.Ptr(&http.Paths[p].PathType, v1beta1.PathTypeImplementationSpecific)
			}
		}
	}
}

func fromV1beta1(in *v1beta1.Ingress) *networkingv1.Ingress {
	out := &networkingv1.Ingress{ObjectMeta: in.ObjectMeta}
	out.Spec.IngressClassName = in.Spec.IngressClassName
	if b := in.Spec.Backend; b != nil {
		d := backendFromV1beta1(*b)
		out.Spec.DefaultBackend = &d
	}
	for _, t := range in.Spec.TLS {
		out.Spec.TLS = append(out.Spec.TLS, networkingv1.IngressTLS(t))
	}
	for _, r := range in.Spec.Rules {
		rule := networkingv1.IngressRule{Host: r.Host}
		if r.HTTP != nil {
			rule.HTTP = &networkingv1.HTTPIngressRuleValue{}
			for _, p := range r.HTTP.Paths {
				rule.HTTP.Paths = append(rule.HTTP.Paths, networkingv1.HTTPIngressPath{
					Path: p.Path, PathType: (*networkingv1.PathType)(p.PathType), Backend: backendFromV1beta1(p.Backend)})
			}
		}
		out.Spec.Rules = append(out.Spec.Rules, rule)
	}
	for _, point := range in.Status.LoadBalancer.Ingress {
		to := networkingv1.IngressLoadBalancerIngress{IP: point.IP, Hostname: point.Hostname}
		for _, s := range point.Ports {
			to.Ports = append(to.Ports, networkingv1.IngressPortStatus(s))
		}
		out.Status.LoadBalancer.Ingress = append(out.Status.LoadBalancer.Ingress, to)
	}
	return out
}

func toV1beta1(in *networkingv1.Ingress) *v1beta1.Ingress {
	out := &v1beta1.Ingress{ObjectMeta: in.ObjectMeta}
	out.Spec.IngressClassName = in.Spec.IngressClassName
	if b := in.Spec.DefaultBackend; b != nil {
		d := backendToV1beta1(*b)
		out.Spec.Backend = &d
	}
	for _, t := range in.Spec.TLS {
		out.Spec.TLS = append(out.Spec.TLS, v1beta1.IngressTLS(t))
	}
	for _, r := range in.Spec.Rules {
		rule := v1beta1.IngressRule{Host: r.Host}
		if r.HTTP != nil {
			rule.HTTP = &v1beta1.HTTPIngressRuleValue{}
			for _, p := range r.HTTP.Paths {
				rule.HTTP.Paths = append(rule.HTTP.Paths, v1beta1.HTTPIngressPath{
					Path: p.Path, PathType: (*v1beta1.PathType)(p.PathType), Backend: backendToV1beta1(p.Backend)})
			}
		}
		out.Spec.Rules = append(out.Spec.Rules, rule)
	}
	for _, point := range in.Status.LoadBalancer.Ingress {
		to := v1beta1.IngressLoadBalancerIngress{IP: point.IP, Hostname: point.Hostname}
		for _, s := range point.Ports {
			to.Ports = append(to.Ports, v1beta1.IngressPortStatus(s))
		}
		out.Status.LoadBalancer.Ingress = append(out.Status.LoadBalancer.Ingress, to)
	}
	return out
}

func backendFromV1beta1(b v1beta1.IngressBackend) networkingv1.IngressBackend {
	out := networkingv1.IngressBackend{Resource: b.Resource}
	if b.ServiceName != "" || b.ServicePort != (intstr.IntOrString{}) {
		out.Service = &networkingv1.IngressServiceBackend{Name: b.ServiceName,
			Port: networkingv1.ServiceBackendPort{Name: b.ServicePort.StrVal, Number: b.ServicePort.IntVal}}
	}
	return out
}

func backendToV1beta1(b networkingv1.IngressBackend) v1beta1.IngressBackend {
	out := v1beta1.IngressBackend{Resource: b.Resource}
	if s := b.Service; s != nil {
		out.ServiceName = s.Name
		if s.Port.Name != "" {
			out.ServicePort = intstr.FromString(s.Port.Name)
		} else {
			out.ServicePort = intstr.FromInt32(s.Port.Number)
		}
	}
	return out
}
