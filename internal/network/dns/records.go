package dns

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/miekg/dns"
)

// Records are the resource records of one owner. Names are fully qualified and
// in lower case.
type Records []dns.RR

// Of a Service in zone ("cluster.local."). all are its slices; they count only
// for headless Services.
func Of(zone string, svc *corev1.Service, all []*discoveryv1.EndpointSlice) Records {
	name := strings.ToLower(svc.Name + "." + svc.Namespace + ".svc." + zone)
	switch {
	case svc.Spec.Type == corev1.ServiceTypeExternalName:
		return Records{&dns.CNAME{Hdr: header(name, dns.TypeCNAME, ttlService), Target: dns.Fqdn(svc.Spec.ExternalName)}}
	case svc.Spec.ClusterIP == corev1.ClusterIPNone:
		return headless(name, all)
	}
	var out Records
	ips := svc.Spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{svc.Spec.ClusterIP}
	}
	for _, s := range ips {
		if ip, err := netip.ParseAddr(s); err == nil {
			out = append(out, address(name, ip, ttlService), pointer(ip, name, ttlService))
		}
	}
	if len(out) == 0 {
		return nil
	}
	for _, p := range svc.Spec.Ports {
		out = append(out, service(name, uint16(p.Port), name, ttlService))
		if p.Name != "" {
			out = append(out, service(portName(p.Name, p.Protocol, name), uint16(p.Port), name, ttlService))
		}
	}
	return out
}

// headless Services have the addresses of their ready endpoints, each of which
// has a name of its own: its hostname, or its address with dashes.
func headless(name string, all []*discoveryv1.EndpointSlice) Records {
	var out Records
	seen := map[string]bool{}
	add := func(rr dns.RR) {
		if s := rr.String(); !seen[s] {
			seen[s] = true
			out = append(out, rr)
		}
	}
	for _, slice := range all {
		if slice.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			for _, s := range e.Addresses {
				ip, err := netip.ParseAddr(s)
				if err != nil {
					continue
				}
				own := strings.NewReplacer(".", "-", ":", "-").Replace(ip.String()) + "." + name
				if e.Hostname != nil && *e.Hostname != "" {
					own = strings.ToLower(*e.Hostname) + "." + name
				}
				add(address(name, ip, ttlEndpoint))
				add(address(own, ip, ttlEndpoint))
				add(pointer(ip, own, ttlEndpoint))
				for _, p := range slice.Ports {
					if p.Port == nil {
						continue
					}
					add(service(name, uint16(*p.Port), own, ttlEndpoint))
					if p.Name != nil && *p.Name != "" {
						proto := corev1.ProtocolTCP
						if p.Protocol != nil {
							proto = *p.Protocol
						}
						add(service(portName(*p.Name, proto, name), uint16(*p.Port), own, ttlEndpoint))
					}
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b dns.RR) int { return cmp.Compare(a.String(), b.String()) })
	return out
}

func header(name string, typ uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: typ, Class: dns.ClassINET, Ttl: ttl}
}

func address(name string, ip netip.Addr, ttl uint32) dns.RR {
	if ip.Is4() {
		return &dns.A{Hdr: header(name, dns.TypeA, ttl), A: ip.AsSlice()}
	}
	return &dns.AAAA{Hdr: header(name, dns.TypeAAAA, ttl), AAAA: ip.AsSlice()}
}

func service(name string, port uint16, target string, ttl uint32) dns.RR {
	return &dns.SRV{Hdr: header(name, dns.TypeSRV, ttl), Weight: 100, Port: port, Target: target}
}

func pointer(ip netip.Addr, target string, ttl uint32) dns.RR {
	reverse, _ := dns.ReverseAddr(ip.String()) // of an address: cannot fail
	return &dns.PTR{Hdr: header(reverse, dns.TypePTR, ttl), Ptr: target}
}

func portName(port string, proto corev1.Protocol, name string) string {
	return strings.ToLower(fmt.Sprintf("_%s._%s.%s", port, cmp.Or(proto, corev1.ProtocolTCP), name))
}

// podAddress reads the name of a pod: 10-244-0-5 is 10.244.0.5.
func podAddress(label string) (netip.Addr, bool) {
	if ip, err := netip.ParseAddr(strings.ReplaceAll(label, "-", ".")); err == nil {
		return ip, true
	}
	ip, err := netip.ParseAddr(strings.ReplaceAll(label, "-", ":"))
	return ip, err == nil
}
