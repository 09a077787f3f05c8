package ingress

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Snapshot is what a decision is made from. The functions return nil for what
// is not there.
type Snapshot struct {
	Ingresses []*networkingv1.Ingress
	Class     func(name string) *networkingv1.IngressClass
	Service   func(namespace, name string) *corev1.Service
	Slices    func(namespace, service string) []*discoveryv1.EndpointSlice
	Secret    func(namespace, name string) *corev1.Secret
}

// Decide makes the table. Ingresses of other classes are left alone; those
// without a class are ours.
func Decide(s Snapshot) *Table {
	t := &Table{Hosts: map[string][]Rule{}, Backends: map[BackendKey]Backend{}, Certificates: map[string]KeyPair{}}
	all := slices.DeleteFunc(slices.Clone(s.Ingresses), func(i *networkingv1.Ingress) bool { return !s.ours(i) })
	slices.SortFunc(all, func(a, b *networkingv1.Ingress) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for age, ing := range all {
		d := decision{Snapshot: s, table: t, ing: ing, name: types.NamespacedName{Namespace: ing.Namespace, Name: ing.Name}, age: age}
		d.options = d.readOptions()
		d.rules()
		d.certificates()
		t.Served = append(t.Served, d.name)
	}
	for _, rules := range t.Hosts {
		sortRules(rules)
	}
	return t
}

func (s Snapshot) ours(ing *networkingv1.Ingress) bool {
	if ing.DeletionTimestamp != nil {
		return false
	}
	name := ing.Annotations[annotationClass]
	if ing.Spec.IngressClassName != nil {
		name = *ing.Spec.IngressClassName
	}
	if name == "" || name == ClassName {
		return true
	}
	class := s.Class(name)
	return class != nil && class.Spec.Controller == Controller
}

// decision is the work on one Ingress.
type decision struct {
	Snapshot
	table   *Table
	ing     *networkingv1.Ingress
	name    types.NamespacedName
	age     int
	options Options
}

func (d *decision) problem(format string, args ...any) {
	d.table.Problems = append(d.table.Problems, Problem{d.name, fmt.Sprintf(format, args...)})
}

func (d *decision) readOptions() Options {
	a := d.ing.Annotations
	o := Options{ForceHTTPS: a[AnnotationForceHTTPS] == "true" || a[annotationNginxForce] == "true"}
	if v := a[AnnotationTimeout]; v != "" {
		t, err := time.ParseDuration(v)
		if err != nil || t <= 0 {
			d.problem("annotation %s is %q; write a duration such as \"30s\"", AnnotationTimeout, v)
		} else {
			o.Timeout = t
		}
	}
	return o
}

func (d *decision) rules() {
	hosts := map[string]bool{}
	for _, r := range d.ing.Spec.Rules {
		host := strings.ToLower(r.Host)
		hosts[host] = true
		if r.HTTP == nil {
			continue
		}
		for i := range r.HTTP.Paths {
			p := &r.HTTP.Paths[i]
			exact := p.PathType != nil && *p.PathType == networkingv1.PathTypeExact
			d.add(host, Rule{Path: cmp.Or(p.Path, "/"), Exact: exact}, &p.Backend)
		}
	}
	if b := d.ing.Spec.DefaultBackend; b != nil {
		if len(hosts) == 0 {
			hosts[""] = true
		}
		for _, h := range slices.Sorted(maps.Keys(hosts)) {
			d.add(h, Rule{Path: "/", Default: true}, b)
		}
	}
}

func (d *decision) add(host string, r Rule, b *networkingv1.IngressBackend) {
	if b.Service == nil {
		d.problem("the backend of path %s is a resource; only Services are served", r.Path)
		return
	}
	r.To = BackendKey{d.ing.Namespace, b.Service.Name, b.Service.Port, Protocol(d.ing.Annotations[AnnotationProtocol])}
	r.Ingress, r.Options, r.age = d.name, d.options, d.age
	d.table.Hosts[host] = append(d.table.Hosts[host], r)
	if _, done := d.table.Backends[r.To]; !done {
		be := d.backend(r.To)
		if be.Fault != "" {
			d.problem("%s", be.Fault)
		}
		d.table.Backends[r.To] = be
	}
}

// backend finds the endpoints of a port of a Service.
func (s Snapshot) backend(key BackendKey) Backend {
	svc := s.Service(key.Namespace, key.Service)
	if svc == nil {
		return Backend{Protocol: HTTP, Fault: fmt.Sprintf("there is no Service %s in namespace %s", key.Service, key.Namespace)}
	}
	var port *corev1.ServicePort
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if key.Port.Name != "" && p.Name == key.Port.Name || key.Port.Name == "" && p.Port == key.Port.Number {
			port = p
		}
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		number := key.Port.Number
		if port != nil {
			number = port.Port
		}
		return Backend{Protocol: protocol(key, port), External: true,
			Endpoints: []string{net.JoinHostPort(svc.Spec.ExternalName, strconv.Itoa(int(number)))}}
	}
	if port == nil {
		return Backend{Protocol: HTTP, Fault: fmt.Sprintf("Service %s/%s has no port %s", key.Namespace, key.Service, portText(key.Port))}
	}
	b := Backend{Protocol: protocol(key, port), Endpoints: endpoints(port.Name, s.Slices(key.Namespace, key.Service))}
	return b
}

// endpoints are the ready ones, or, when there is none, those that still serve
// while they terminate.
func endpoints(port string, all []*discoveryv1.EndpointSlice) []string {
	ready, last := map[string]bool{}, map[string]bool{}
	for _, slice := range all {
		for _, p := range slice.Ports {
			if p.Port == nil || p.Name != nil && *p.Name != port || p.Name == nil && port != "" {
				continue
			}
			for i := range slice.Endpoints {
				e := &slice.Endpoints[i]
				if len(e.Addresses) == 0 {
					continue
				}
				addr := net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port)))
				c := e.Conditions
				switch {
				case c.Ready == nil || *c.Ready:
					ready[addr] = true
				case c.Serving != nil && *c.Serving && c.Terminating != nil && *c.Terminating:
					last[addr] = true
				}
			}
		}
	}
	if len(ready) == 0 {
		ready = last
	}
	return slices.Sorted(maps.Keys(ready))
}

// protocol of a port: appProtocol (KEP-3726's names and the usual ones), or what
// the Ingress says, or HTTP.
func protocol(key BackendKey, port *corev1.ServicePort) Protocol {
	if port != nil && port.AppProtocol != nil {
		switch strings.ToLower(*port.AppProtocol) {
		case "kubernetes.io/h2c", "h2c", "grpc", "kubernetes.io/grpc":
			return H2C
		case "https", "kubernetes.io/wss", "grpcs":
			return HTTPS
		case "http", "kubernetes.io/ws":
			return HTTP
		}
	}
	switch key.Protocol {
	case HTTPS, H2C:
		return key.Protocol
	}
	return HTTP
}

func (d *decision) certificates() {
	for _, tls := range d.ing.Spec.TLS {
		if tls.SecretName == "" {
			continue
		}
		secret := d.Secret(d.ing.Namespace, tls.SecretName)
		if secret == nil {
			d.problem("there is no Secret %s in namespace %s; a self-signed certificate is shown", tls.SecretName, d.ing.Namespace)
			continue
		}
		pair := KeyPair{string(secret.Data[corev1.TLSCertKey]), string(secret.Data[corev1.TLSPrivateKeyKey])}
		hosts, err := pair.hosts()
		if err != nil {
			d.problem("Secret %s holds no usable certificate (keys tls.crt and tls.key): %v", tls.SecretName, err)
			continue
		}
		if len(tls.Hosts) > 0 {
			hosts = tls.Hosts
		}
		for _, h := range hosts {
			if _, taken := d.table.Certificates[strings.ToLower(h)]; !taken {
				d.table.Certificates[strings.ToLower(h)] = pair
			}
		}
	}
}

func portText(p networkingv1.ServiceBackendPort) string {
	if p.Name != "" {
		return p.Name
	}
	return strconv.Itoa(int(p.Number))
}
