package networking

import (
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

// OfServices is the value of the label networkingv1.LabelManagedBy of IPAddresses
// that show what Services have: the cluster keeps them.
const OfServices = "ipallocator.k8s.io"

// OfService says whether an IPAddress is one that the cluster keeps for a Service.
func OfService(a api.Object) bool {
	return a.GetLabels()[networkingv1.LabelManagedBy] == OfServices
}

func serviceCIDR() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("ServiceCIDR"),
		Stored:           []api.Shape{api.StoredAlike(gvk("ServiceCIDR"), "v1beta1")},
		Resource:         "servicecidrs",
		Cluster:          true,
		New:              func() api.Object { return &networkingv1.ServiceCIDR{} },
		NewList:          func() runtime.Object { return &networkingv1.ServiceCIDRList{} },
		Reset: reset.Status(func(c *networkingv1.ServiceCIDR) (*networkingv1.ServiceCIDRSpec, *networkingv1.ServiceCIDRStatus) {
			return &c.Spec, &c.Status
		}),
		Validate: api.Validates(validateCIDR),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("CIDRs", "string", networkingv1.ServiceCIDRSpec{}.SwaggerDoc()["cidrs"]),
			table.Age(),
		},
		Row: api.Rows(func(c *networkingv1.ServiceCIDR) []any {
			return []any{c.Name, strings.Join(c.Spec.CIDRs, ","), table.AgeOf(c)}
		}),
		Subresources: []api.Subresource{{Name: "status"}},
	}
}

func validateCIDR(c, old *networkingv1.ServiceCIDR, sub string) field.ErrorList {
	var e validate.Errs
	if sub == "status" {
		return nil
	}
	p := validate.Root("spec").Child("cidrs")
	now := c.Spec.CIDRs
	if old == nil {
		cidrs(&e, now, p)
		return e.List()
	}
	switch was := old.Spec.CIDRs; {
	case len(was) == len(now):
		for i := range was {
			e.Immutable(p.Index(i), now[i], was[i])
		}
	case len(was) == 1 && len(now) == 2: // a second family may be added
		e.Immutable(p.Index(0), now[0], was[0])
		cidrs(&e, now, p)
	default:
		e.Invalid(p, now, validate.IsImmutable)
	}
	return e.List()
}

func cidrs(e *validate.Errs, list []string, p *validate.Path) {
	if len(list) == 0 {
		e.Required(p, "at least one CIDR required")
		return
	}
	if len(list) > 2 {
		e.Invalid(p, list, "may only hold up to 2 values")
		return
	}
	for i, c := range list {
		e.Add(validation.IsValidCIDR(p.Index(i).Field(), c)...)
	}
	if len(list) == 2 {
		family := netutils.IPFamilyOfCIDRString(list[0])
		if family == netutils.IPFamilyOfCIDRString(list[1]) && family != netutils.IPFamilyUnknown {
			e.Invalid(p, list, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64")
		}
	}
}

func ipAddress() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("IPAddress"),
		Stored:           []api.Shape{api.StoredAlike(gvk("IPAddress"), "v1beta1")},
		Resource:         "ipaddresses",
		ShortNames:       []string{"ip"},
		Cluster:          true,
		New:              func() api.Object { return &networkingv1.IPAddress{} },
		NewList:          func() runtime.Object { return &networkingv1.IPAddressList{} },
		Validate:         api.Validates(validateAddress),
		ValidName: func(name string, _ bool) []string {
			var why []string
			for _, e := range validation.IsValidIP(nil, name) {
				why = append(why, e.Detail)
			}
			return why
		},
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("ParentRef", "string", networkingv1.IPAddressSpec{}.SwaggerDoc()["parentRef"]),
		},
		Row: api.Rows(func(a *networkingv1.IPAddress) []any { return []any{a.Name, parentName(a.Spec.ParentRef)} }),
	}
}

func parentName(r *networkingv1.ParentReference) string {
	if r == nil {
		return "<none>"
	}
	parts := []string{strings.ToLower(schema.GroupResource{Group: r.Group, Resource: r.Resource}.String())}
	if r.Namespace != "" {
		parts = append(parts, r.Namespace)
	}
	return strings.Join(append(parts, r.Name), "/")
}

func validateAddress(a, old *networkingv1.IPAddress, _ string) field.ErrorList {
	var e validate.Errs
	p, r := validate.Root("spec").Child("parentRef"), a.Spec.ParentRef
	if r == nil {
		e.Required(p, "")
	} else {
		if r.Group != "" {
			e.Invalids(p.Child("group"), r.Group, validate.Subdomain(r.Group))
		}
		segment(&e, r.Resource, p.Child("resource"))
		segment(&e, r.Name, p.Child("name"))
		if r.Namespace != "" {
			segment(&e, r.Namespace, p.Child("namespace"))
		}
	}
	if old != nil {
		e.Immutable(p, a.Spec.ParentRef, old.Spec.ParentRef)
	}
	return e.List()
}
