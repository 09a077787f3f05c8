package networking

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func networkPolicy() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("NetworkPolicy"),
		Resource:         "networkpolicies",
		ShortNames:       []string{"netpol"},
		New:              func() api.Object { return &networkingv1.NetworkPolicy{} },
		NewList:          func() runtime.Object { return &networkingv1.NetworkPolicyList{} },
		Default:          api.Of(defaultPolicy),
		Reset:            reset.Spec(func(n *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicySpec { return &n.Spec }),
		Validate:         api.Validates(validatePolicy),
		Warn:             api.Warns(warnPolicy),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Pod-Selector", "string", networkingv1.NetworkPolicySpec{}.SwaggerDoc()["podSelector"]),
			table.Age(),
		},
		Row: api.Rows(func(n *networkingv1.NetworkPolicy) []any {
			return []any{n.Name, metav1.FormatLabelSelector(&n.Spec.PodSelector), table.AgeOf(n)}
		}),
	}
}

func defaultPolicy(n *networkingv1.NetworkPolicy) {
	s := &n.Spec
	if len(s.PolicyTypes) == 0 {
		s.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(s.Egress) > 0 {
			s.PolicyTypes = append(s.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	each(s, func(_, _ string, _ int, ports []networkingv1.NetworkPolicyPort, _ []networkingv1.NetworkPolicyPeer) {
		for i := range ports {
			defaults.Ptr(&ports[i].Protocol, corev1.ProtocolTCP)
		}
	})
}

// each visits the rules of both directions: which, what its peers are called,
// the rule's number, ports and peers.
func each(s *networkingv1.NetworkPolicySpec, visit func(direction, peers string, i int, ports []networkingv1.NetworkPolicyPort, list []networkingv1.NetworkPolicyPeer)) {
	for i := range s.Ingress {
		visit("ingress", "from", i, s.Ingress[i].Ports, s.Ingress[i].From)
	}
	for i := range s.Egress {
		visit("egress", "to", i, s.Egress[i].Ports, s.Egress[i].To)
	}
}

func validatePolicy(n, old *networkingv1.NetworkPolicy, _ string) field.ErrorList {
	var e validate.Errs
	p, s := validate.Root("spec"), &n.Spec
	var was *metav1.LabelSelector
	var known []string // CIDRs that were let in stay good
	if old != nil {
		was = &old.Spec.PodSelector
		each(&old.Spec, func(_, _ string, _ int, _ []networkingv1.NetworkPolicyPort, peers []networkingv1.NetworkPolicyPeer) {
			for _, peer := range peers {
				if b := peer.IPBlock; b != nil {
					known = append(append(known, b.CIDR), b.Except...)
				}
			}
		})
	}
	validate.SelectorUpdate(&e, &s.PodSelector, was, p.Child("podSelector"))
	each(s, func(direction, name string, i int, ports []networkingv1.NetworkPolicyPort, peers []networkingv1.NetworkPolicyPeer) {
		at := p.Child(direction).Index(i)
		for j := range ports {
			policyPort(&e, &ports[j], at.Child("ports").Index(j))
		}
		for j := range peers {
			policyPeer(&e, &peers[j], was, known, at.Child(name).Index(j))
		}
	})
	types := p.Child("policyTypes")
	if len(s.PolicyTypes) > 2 {
		e.Invalid(types, s.PolicyTypes, "may not specify more than two policyTypes")
		return e.List()
	}
	for i, t := range s.PolicyTypes {
		validate.OneOf(&e, types.Index(i), t, networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress)
	}
	return e.List()
}

func policyPort(e *validate.Errs, port *networkingv1.NetworkPolicyPort, p *validate.Path) {
	if port.Protocol != nil {
		validate.OneOf(e, p.Child("protocol"), *port.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
	}
	at, end := p.Child("endPort"), port.EndPort
	switch {
	case port.Port == nil:
		if end != nil {
			e.Invalid(at, *end, "may not be specified when `port` is not specified")
		}
	case port.Port.Type == intstr.Int:
		validate.Port(e, port.Port.IntVal, p.Child("port"))
		if end != nil {
			if *end < port.Port.IntVal {
				e.Invalid(at, port.Port.IntVal, "must be greater than or equal to `port`")
			}
			validate.Port(e, *end, at)
		}
	default:
		if end != nil {
			e.Invalid(at, *end, "may not be specified when `port` is non-numeric")
		}
		validate.PortName(e, port.Port.StrVal, p.Child("port"))
	}
}

func policyPeer(e *validate.Errs, peer *networkingv1.NetworkPolicyPeer, was *metav1.LabelSelector, known []string, p *validate.Path) {
	n := 0
	if peer.PodSelector != nil {
		n++
		validate.SelectorUpdate(e, peer.PodSelector, was, p.Child("podSelector"))
	}
	if peer.NamespaceSelector != nil {
		n++
		validate.SelectorUpdate(e, peer.NamespaceSelector, was, p.Child("namespaceSelector"))
	}
	if peer.IPBlock != nil {
		n++
		ipBlock(e, peer.IPBlock, known, p.Child("ipBlock"))
	}
	if n == 0 {
		e.Required(p, "must specify a peer")
	} else if n > 1 && peer.IPBlock != nil {
		e.Forbidden(p, "may not specify both ipBlock and another peer")
	}
}

func ipBlock(e *validate.Errs, b *networkingv1.IPBlock, known []string, p *validate.Path) {
	if b.CIDR == "" {
		e.Required(p.Child("cidr"), "")
		return
	}
	e.Add(validation.IsValidCIDRForLegacyField(p.Child("cidr").Field(), b.CIDR, true, known)...)
	_, whole, err := netutils.ParseCIDRSloppy(b.CIDR)
	if err != nil {
		return
	}
	for i, text := range b.Except {
		at := p.Child("except").Index(i)
		e.Add(validation.IsValidCIDRForLegacyField(at.Field(), text, true, known)...)
		_, except, err := netutils.ParseCIDRSloppy(text)
		if err != nil {
			continue
		}
		outer, _ := whole.Mask.Size()
		inner, _ := except.Mask.Size()
		if !whole.Contains(except.IP) || outer >= inner {
			e.Invalid(at, text, "must be a strict subset of `cidr`")
		}
	}
}

func warnPolicy(n, _ *networkingv1.NetworkPolicy) []string {
	var warnings []string
	each(&n.Spec, func(direction, name string, i int, _ []networkingv1.NetworkPolicyPort, peers []networkingv1.NetworkPolicyPeer) {
		for j := range peers {
			b := peers[j].IPBlock
			if b == nil {
				continue
			}
			at := field.NewPath("spec").Child(direction).Index(i).Child(name).Index(j).Child("ipBlock")
			warnings = append(warnings, validation.GetWarningsForCIDR(at.Child("cidr"), b.CIDR)...)
			for k, except := range b.Except {
				warnings = append(warnings, validation.GetWarningsForCIDR(at.Child("except").Index(k), except)...)
			}
		}
	})
	return warnings
}
