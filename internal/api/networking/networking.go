// Package networking describes the kinds of networking.k8s.io/v1: Ingress, also
// in its v1beta1 shapes of two groups, IngressClass, NetworkPolicy, ServiceCIDR
// and IPAddress.
package networking

import (
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	netutils "k8s.io/utils/net"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/validate"
)

// Kinds of the group.
func Kinds() []*api.Kind {
	return []*api.Kind{ingress(), ingressClass(), ipAddress(), networkPolicy(), serviceCIDR()}
}

func gvk(kind string) schema.GroupVersionKind {
	return networkingv1.SchemeGroupVersion.WithKind(kind)
}

// reference checks the parts that references to other objects have in common.
func reference(e *validate.Errs, group *string, kind, name string, p *validate.Path) {
	if group != nil {
		e.Invalids(p.Child("apiGroup"), *group, validate.Subdomain(*group))
	}
	segment(e, kind, p.Child("kind"))
	segment(e, name, p.Child("name"))
}

// segment requires what can be a part of a URL.
func segment(e *validate.Errs, s string, p *validate.Path) {
	if s == "" {
		e.Required(p, "")
		return
	}
	e.Invalids(p, s, validate.PathSegmentName(s, false))
}

func isIP(s string) bool { return netutils.ParseIPSloppy(s) != nil }
