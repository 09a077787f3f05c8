package networking

import (
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
)

const classAnnotation = "kubernetes.io/ingress.class"

func ingress() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("Ingress"),
		Resource:         "ingresses",
		ShortNames:       []string{"ing"},
		Path:             "ingress",
		New:              func() api.Object { return &networkingv1.Ingress{} },
		NewList:          func() runtime.Object { return &networkingv1.IngressList{} },
		Reset: reset.SpecStatus(func(i *networkingv1.Ingress) (*networkingv1.IngressSpec, *networkingv1.IngressStatus) {
			return &i.Spec, &i.Status
		}),
		Validate: api.Validates(validateIngress),
		Warn:     api.Warns(warnIngress),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Class", "string", "The name of the IngressClass resource that should be used for additional configuration"),
			table.Col("Hosts", "string", "Hosts that incoming requests are matched against before the ingress rule"),
			table.Col("Address", "string", "Address is a list containing ingress points for the load-balancer"),
			table.Col("Ports", "string", "Ports of TLS configurations that open"),
			table.Age(),
		},
		Row: api.Rows(func(i *networkingv1.Ingress) []any {
			class, ports := "<none>", "80"
			if i.Spec.IngressClassName != nil {
				class = *i.Spec.IngressClassName
			}
			if len(i.Spec.TLS) > 0 {
				ports = "80, 443"
			}
			return []any{i.Name, class, hostCell(i.Spec.Rules), addressCell(i.Status.LoadBalancer.Ingress), ports, table.AgeOf(i)}
		}),
		Subresources: []api.Subresource{{Name: "status"}},
		Shapes:       []api.Shape{ingressV1beta1(), ingressExtensions()},
	}
}

func hostCell(rules []networkingv1.IngressRule) string {
	const most = 3
	var hosts []string
	more := false
	for _, r := range rules {
		more = more || len(hosts) == most
		if !more && r.Host != "" {
			hosts = append(hosts, r.Host)
		}
	}
	switch {
	case len(hosts) == 0:
		return "*"
	case more:
		return fmt.Sprintf("%s + %d more...", strings.Join(hosts, ","), len(rules)-most)
	}
	return strings.Join(hosts, ",")
}

func addressCell(points []networkingv1.IngressLoadBalancerIngress) string {
	var all []string
	for _, p := range points {
		if p.IP != "" {
			all = append(all, p.IP)
		} else if p.Hostname != "" {
			all = append(all, p.Hostname)
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ",")
}

func warnIngress(i, old *networkingv1.Ingress) []string {
	var warnings []string
	if _, set := i.Annotations[classAnnotation]; old == nil && set && i.Spec.IngressClassName == nil {
		warnings = append(warnings, fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", classAnnotation))
	}
	if old != nil && reset.Differ(i.Status, old.Status) {
		at := field.NewPath("status", "loadBalancer", "ingress")
		for n, point := range i.Status.LoadBalancer.Ingress {
			if point.IP != "" {
				warnings = append(warnings, validation.GetWarningsForIP(at.Index(n), point.IP)...)
			}
		}
	}
	return warnings
}
