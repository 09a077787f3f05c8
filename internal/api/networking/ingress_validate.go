package networking

import (
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api/validate"
)

func validateIngress(i, old *networkingv1.Ingress, sub string) field.ErrorList {
	var e validate.Errs
	if sub == "status" {
		ingressPoints(&e, i, old, validate.Root("status").Child("loadBalancer").Child("ingress"))
		return e.List()
	}
	ingressSpec(&e, &i.Spec, old, validate.Root("spec"))
	if class, set := i.Annotations[classAnnotation]; old == nil && set && i.Spec.IngressClassName != nil && class != *i.Spec.IngressClassName {
		e.Invalid(validate.Root("annotations").Child(classAnnotation), class, "must match `ingressClassName` when both are specified")
	}
	return e.List()
}

func ingressSpec(e *validate.Errs, s *networkingv1.IngressSpec, old *networkingv1.Ingress, p *validate.Path) {
	if len(s.Rules) == 0 && s.DefaultBackend == nil {
		e.Invalid(p, s.Rules, "either `defaultBackend` or `rules` must be specified")
	}
	if s.DefaultBackend != nil {
		backend(e, s.DefaultBackend, p.Child("defaultBackend"))
	}
	anyWildcard := old != nil && hasBadWildcardRule(old.Spec.Rules)
	for i := range s.Rules {
		ingressRule(e, &s.Rules[i], anyWildcard, p.Child("rules").Index(i))
	}
	anySecret := old != nil && hasBadSecretName(old.Spec.TLS)
	for i := range s.TLS {
		ingressTLS(e, &s.TLS[i], anySecret, p.Child("tls").Index(i))
	}
	if s.IngressClassName != nil {
		e.Invalids(p.Child("ingressClassName"), *s.IngressClassName, validate.Subdomain(*s.IngressClassName))
	}
}

// What older versions let in is let be on update.

func hasBadWildcardRule(rules []networkingv1.IngressRule) bool {
	for i := range rules {
		var e validate.Errs
		if ruleValue(&e, &rules[i], validate.Root("")); strings.Contains(rules[i].Host, "*") && e.Len() > 0 {
			return true
		}
	}
	return false
}

func hasBadSecretName(tls []networkingv1.IngressTLS) bool {
	for i := range tls {
		if tls[i].SecretName != "" && validate.Subdomain(tls[i].SecretName) != nil {
			return true
		}
	}
	return false
}

func host(e *validate.Errs, name string, p *validate.Path) {
	if strings.Contains(name, "*") {
		e.Invalids(p, name, validation.IsWildcardDNS1123Subdomain(name))
	} else {
		e.Invalids(p, name, validate.Subdomain(name))
	}
}

func ingressTLS(e *validate.Errs, t *networkingv1.IngressTLS, anySecret bool, p *validate.Path) {
	for i, name := range t.Hosts {
		host(e, name, p.Child("hosts").Index(i))
	}
	if !anySecret && t.SecretName != "" {
		e.Invalids(p.Child("secretName"), t.SecretName, validate.Subdomain(t.SecretName))
	}
}

func ingressRule(e *validate.Errs, r *networkingv1.IngressRule, anyWildcard bool, p *validate.Path) {
	if r.Host != "" {
		if isIP(r.Host) {
			e.Invalid(p.Child("host"), r.Host, "must be a DNS name, not an IP address")
		}
		host(e, r.Host, p.Child("host"))
	}
	if !anyWildcard || !strings.Contains(r.Host, "*") {
		ruleValue(e, r, p)
	}
}

func ruleValue(e *validate.Errs, r *networkingv1.IngressRule, p *validate.Path) {
	if r.HTTP == nil {
		return
	}
	at := p.Child("http").Child("paths")
	if len(r.HTTP.Paths) == 0 {
		e.Required(at, "")
	}
	for i := range r.HTTP.Paths {
		ingressPath(e, &r.HTTP.Paths[i], at.Index(i))
	}
}

func ingressPath(e *validate.Errs, path *networkingv1.HTTPIngressPath, p *validate.Path) {
	if path.PathType == nil {
		e.Required(p.Child("pathType"), "pathType must be specified")
		return
	}
	at := p.Child("path")
	switch *path.PathType {
	case networkingv1.PathTypeExact, networkingv1.PathTypePrefix:
		if !strings.HasPrefix(path.Path, "/") {
			e.Invalid(at, path.Path, "must be an absolute path")
		}
		for _, bad := range []string{"//", "/./", "/../", "%2f", "%2F"} {
			if strings.Contains(path.Path, bad) {
				e.Invalid(at, path.Path, "must not contain '"+bad+"'")
			}
		}
		for _, bad := range []string{"/..", "/."} {
			if strings.HasSuffix(path.Path, bad) {
				e.Invalid(at, path.Path, "cannot end with '"+bad+"'")
			}
		}
	case networkingv1.PathTypeImplementationSpecific:
		if path.Path != "" && !strings.HasPrefix(path.Path, "/") {
			e.Invalid(at, path.Path, "must be an absolute path")
		}
	default:
		validate.NotSupported(e, p.Child("pathType"), *path.PathType,
			networkingv1.PathTypeExact, networkingv1.PathTypeImplementationSpecific, networkingv1.PathTypePrefix)
	}
	backend(e, &path.Backend, p.Child("backend"))
}

func backend(e *validate.Errs, b *networkingv1.IngressBackend, p *validate.Path) {
	switch {
	case b.Resource != nil && b.Service != nil:
		e.Invalid(p, "", "cannot set both resource and service backends")
	case b.Resource != nil:
		reference(e, b.Resource.APIGroup, b.Resource.Kind, b.Resource.Name, p.Child("resource"))
	case b.Service != nil:
		serviceBackend(e, b.Service, p)
	default:
		e.Invalid(p, "", "resource or service backend is required")
	}
}

func serviceBackend(e *validate.Errs, s *networkingv1.IngressServiceBackend, p *validate.Path) {
	at := p.Child("service")
	if s.Name == "" {
		e.Required(at.Child("name"), "")
	} else {
		e.Invalids(at.Child("name"), s.Name, validate.Label(s.Name))
	}
	switch name, number := s.Port.Name, s.Port.Number; {
	case name != "" && number != 0:
		e.Invalid(p, "", "cannot set both port name & port number")
	case name != "":
		validate.PortName(e, name, at.Child("port").Child("name"))
	case number != 0:
		validate.Port(e, number, at.Child("port").Child("number"))
	default:
		e.Required(p, "port name or number is required")
	}
}

func ingressPoints(e *validate.Errs, i, old *networkingv1.Ingress, p *validate.Path) {
	var known []string
	for _, point := range old.Status.LoadBalancer.Ingress {
		if point.IP != "" {
			known = append(known, point.IP)
		}
	}
	for n, point := range i.Status.LoadBalancer.Ingress {
		at := p.Index(n)
		if point.IP != "" {
			e.Add(validation.IsValidIPForLegacyField(at.Child("ip").Field(), point.IP, true, known)...)
		}
		if point.Hostname != "" {
			e.Invalids(at.Child("hostname"), point.Hostname, validate.Subdomain(point.Hostname))
			if isIP(point.Hostname) {
				e.Invalid(at.Child("hostname"), point.Hostname, "must be a DNS name, not an IP address")
			}
		}
	}
}
