package discovery

import (
	"fmt"
	"net"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/validate"
)

const (
	maxTopologyLabels = 16
	maxAddresses      = 100
	maxPorts          = 20000
	maxEndpoints      = 1000
	maxHints          = 8
)

func validateSlice(s, old *discoveryv1.EndpointSlice) field.ErrorList {
	var e validate.Errs
	validate.RequiredOneOf(&e, validate.Root("addressType"), s.AddressType,
		discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6)
	ports(&e, s.Ports, validate.Root("ports"))
	// Endpoints that were let in stay good.
	if old == nil || reset.Differ(s.Endpoints, old.Endpoints) {
		endpoints(&e, s, validate.Root("endpoints"))
	}
	if old != nil {
		e.Immutable(validate.Root("addressType"), s.AddressType, old.AddressType)
	}
	return e.List()
}

func ports(e *validate.Errs, ports []discoveryv1.EndpointPort, p *validate.Path) {
	if len(ports) > maxPorts {
		e.TooMany(p, len(ports), maxPorts)
		return
	}
	seen := map[string]bool{}
	for i := range ports {
		at, port := p.Index(i), &ports[i]
		name := ""
		if port.Name != nil {
			name = *port.Name
		}
		if name != "" {
			e.Invalids(at.Child("name"), name, validate.Label(name))
		}
		if seen[name] {
			e.Duplicate(at.Child("name"), name)
		}
		seen[name] = true
		if port.Protocol == nil {
			e.Required(at.Child("protocol"), "")
		} else {
			validate.OneOf(e, at.Child("protocol"), *port.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
		}
		if port.AppProtocol != nil {
			e.Invalids(at.Child("appProtocol"), *port.AppProtocol, validate.QualifiedName(*port.AppProtocol))
		}
	}
}

func endpoints(e *validate.Errs, s *discoveryv1.EndpointSlice, p *validate.Path) {
	if len(s.Endpoints) > maxEndpoints {
		e.TooMany(p, len(s.Endpoints), maxEndpoints)
		return
	}
	for i := range s.Endpoints {
		endpoint(e, &s.Endpoints[i], s.AddressType, p.Index(i))
	}
}

func endpoint(e *validate.Errs, ep *discoveryv1.Endpoint, typ discoveryv1.AddressType, p *validate.Path) {
	at := p.Child("addresses")
	if len(ep.Addresses) == 0 {
		e.Required(at, "must contain at least 1 address")
	} else if len(ep.Addresses) > maxAddresses {
		e.TooMany(at, len(ep.Addresses), maxAddresses)
	}
	for i, address := range ep.Addresses {
		addressOf(e, address, typ, at, i)
	}
	if ep.NodeName != nil {
		e.Invalids(p.Child("nodeName"), *ep.NodeName, validate.Subdomain(*ep.NodeName))
	}
	topology := p.Child("deprecatedTopology")
	if n := len(ep.DeprecatedTopology); n > maxTopologyLabels {
		e.TooMany(topology, n, maxTopologyLabels)
	}
	validate.Labels(e, ep.DeprecatedTopology, topology)
	if ep.Hostname != nil {
		e.Invalids(p.Child("hostname"), *ep.Hostname, validate.Label(*ep.Hostname))
	}
	if ep.Hints != nil {
		hints(e, ep.Hints, p.Child("hints"))
	}
}

func addressOf(e *validate.Errs, address string, typ discoveryv1.AddressType, p *validate.Path, i int) {
	switch typ {
	case discoveryv1.AddressTypeFQDN:
		e.Add(validation.IsFullyQualifiedDomainName(p.Index(i).Field(), address)...)
		return
	case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6:
	default: // has been refused
		return
	}
	ip := net.ParseIP(address)
	if ip == nil || ip.String() != address {
		if bad := validation.IsValidIP(p.Index(i).Field(), address); len(bad) > 0 {
			e.Add(bad...)
			return
		}
	}
	if typ == discoveryv1.AddressTypeIPv4 && !netutils.IsIPv4(ip) {
		e.Invalid(p, address, "must be an IPv4 address")
	}
	if typ == discoveryv1.AddressTypeIPv6 && !netutils.IsIPv6(ip) {
		e.Invalid(p, address, "must be an IPv6 address")
	}
	reachable(e, ip, address, p.Index(i))
}

// reachable refuses addresses that mean something else on every node.
func reachable(e *validate.Errs, ip net.IP, address string, p *validate.Path) {
	if ip.IsUnspecified() {
		e.Invalid(p, address, fmt.Sprintf("may not be unspecified (%v)", address))
	}
	if ip.IsLoopback() {
		e.Invalid(p, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
	}
	if ip.IsLinkLocalUnicast() {
		e.Invalid(p, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
	}
	if ip.IsLinkLocalMulticast() {
		e.Invalid(p, address, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
	}
}

func hints(e *validate.Errs, h *discoveryv1.EndpointHints, p *validate.Path) {
	zones := p.Child("forZones")
	if len(h.ForZones) > maxHints {
		e.TooMany(zones, len(h.ForZones), maxHints)
		return
	}
	seen := map[string]bool{}
	for i, z := range h.ForZones {
		at := zones.Index(i).Child("name")
		if seen[z.Name] {
			e.Duplicate(at, z.Name)
		}
		seen[z.Name] = true
		e.Invalids(at, z.Name, validate.LabelValue(z.Name))
	}
	nodes := p.Child("forNodes")
	if len(h.ForNodes) > maxHints {
		e.TooMany(nodes, len(h.ForNodes), maxHints)
		return
	}
	clear(seen)
	for i, n := range h.ForNodes {
		at := nodes.Index(i).Child("name")
		if seen[n.Name] {
			e.Duplicate(at, n.Name)
		}
		seen[n.Name] = true
		e.Invalids(at, n.Name, validate.Subdomain(n.Name))
	}
}
