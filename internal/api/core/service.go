package core

import (
	"fmt"
	"net/netip"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func serviceKind() *api.Kind {
	doc := corev1.ServiceSpec{}.SwaggerDoc()
	return &api.Kind{
		GroupVersionKind: gvk("Service"),
		Resource:         "services",
		ShortNames:       []string{"svc"},
		Categories:       []string{"all"},
		Path:             "services/specs",
		New:              func() api.Object { return &corev1.Service{} },
		NewList:          func() runtime.Object { return &corev1.ServiceList{} },
		Default:          api.Of(defaultService),
		Reset:            api.Resets(resetService),
		Validate:         checks(validateService),
		ValidName:        validate.LabelName,
		Warn:             api.Warns(warnService),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Type", "string", doc["type"]),
			table.Col("Cluster-IP", "string", doc["clusterIP"]),
			table.Col("External-IP", "string", doc["externalIPs"]),
			table.Col("Port(s)", "string", doc["ports"]),
			table.Age(),
			table.Wide("Selector", "string", doc["selector"]),
		},
		Row: api.Rows(serviceRow),
		Fields: api.FieldsOf(func(s *corev1.Service) fields.Set {
			return fields.Set{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
		}),
		Indexes: map[string]func(api.Object) []string{ClusterIPIndex: api.IndexOf(clusterIPValues)},
		Subresources: []api.Subresource{
			{Name: "proxy", Kind: gvk("ServiceProxyOptions"), Verbs: proxyVerbs(), Body: func() runtime.Object { return &corev1.ServiceProxyOptions{} }},
			status(),
		},
		CreateOnUpdate: true,
	}
}

// ClusterIPIndex is the name of the index of Services by their cluster IPs, as
// netip.Addr writes them.
const ClusterIPIndex = "clusterIPs"

// ClusterIPs of a Service; none, if it is headless or waits for one.
func ClusterIPs(s *corev1.Service) (all []netip.Addr) {
	for _, text := range s.Spec.ClusterIPs {
		if ip, err := netip.ParseAddr(text); err == nil { // not None
			all = append(all, ip)
		}
	}
	return all
}

func clusterIPValues(s *corev1.Service) (all []string) {
	for _, ip := range ClusterIPs(s) {
		all = append(all, ip.String())
	}
	return all
}

func defaultService(s *corev1.Service) {
	spec := &s.Spec
	defaults.Zero(&spec.SessionAffinity, corev1.ServiceAffinityNone)
	switch c := spec.SessionAffinityConfig; spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		spec.SessionAffinityConfig = nil
	case corev1.ServiceAffinityClientIP:
		if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			timeout := corev1.DefaultClientIPServiceAffinitySeconds
			spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}}
		}
	}
	defaults.Zero(&spec.Type, corev1.ServiceTypeClusterIP)
	for i := range spec.Ports {
		p := &spec.Ports[i]
		defaults.Zero(&p.Protocol, corev1.ProtocolTCP)
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	if isExternal(spec) {
		defaults.Zero(&spec.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	}
	if usesClusterIP(spec) {
		defaults.Ptr(&spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer {
		defaults.Ptr(&spec.AllocateLoadBalancerNodePorts, true)
		for i := range s.Status.LoadBalancer.Ingress {
			if in := &s.Status.LoadBalancer.Ingress[i]; in.IP != "" {
				defaults.Ptr(&in.IPMode, corev1.LoadBalancerIPModeVIP)
			}
		}
	}
}

func usesClusterIP(s *corev1.ServiceSpec) bool {
	return s.Type == corev1.ServiceTypeClusterIP || usesNodePorts(s)
}

func usesNodePorts(s *corev1.ServiceSpec) bool {
	return s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeLoadBalancer
}

// isExternal: reachable from outside of the cluster.
func isExternal(s *corev1.ServiceSpec) bool {
	return usesNodePorts(s) || s.Type == corev1.ServiceTypeClusterIP && len(s.ExternalIPs) > 0
}

// NeedsHealthCheckPort says whether a service gets a healthCheckNodePort.
func NeedsHealthCheckPort(s *corev1.ServiceSpec) bool {
	return s.Type == corev1.ServiceTypeLoadBalancer && s.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

func isHeadless(s *corev1.ServiceSpec) bool {
	return len(s.ClusterIPs) == 1 && s.ClusterIPs[0] == corev1.ClusterIPNone
}

func warnService(s, _ *corev1.Service) []string {
	w, spec := warner{}, &s.Spec
	at := func(name string) *field.Path { return field.NewPath("spec", name) }
	if _, ok := s.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]; ok {
		w.addf("annotation %s is deprecated, please use %s instead", corev1.DeprecatedAnnotationTopologyAwareHints, corev1.AnnotationTopologyMode)
	}
	if spec.ClusterIP != "" && spec.ClusterIP != corev1.ClusterIPNone {
		for i, s := range spec.ClusterIPs {
			w.ip(at("clusterIPs").Index(i), s)
		}
	}
	headless := spec.Type == corev1.ServiceTypeClusterIP && spec.ClusterIP == corev1.ClusterIPNone
	if headless && spec.LoadBalancerIP != "" {
		w.addf("spec.loadBalancerIP is ignored for headless services")
	}
	if headless && len(spec.ExternalIPs) > 0 {
		w.addf("spec.externalIPs is ignored for headless services")
	}
	if headless && spec.SessionAffinity != corev1.ServiceAffinityNone {
		w.addf("spec.SessionAffinity is ignored for headless services")
	}
	for i, s := range spec.ExternalIPs {
		w.ip(at("externalIPs").Index(i), s)
	}
	named := spec.Type == corev1.ServiceTypeExternalName
	if len(spec.ExternalIPs) > 0 && !headless && !named {
		w.addf("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
	}
	if spec.LoadBalancerIP != "" {
		w.ip(at("loadBalancerIP"), spec.LoadBalancerIP)
	}
	for i, c := range spec.LoadBalancerSourceRanges {
		w.list = append(w.list, validation.GetWarningsForCIDR(at("loadBalancerSourceRanges").Index(i), c)...)
	}
	if named && len(spec.ExternalIPs) > 0 {
		w.addf("spec.externalIPs is ignored when spec.type is %q", corev1.ServiceTypeExternalName)
	}
	if !named && spec.ExternalName != "" {
		w.addf("spec.externalName is ignored when spec.type is not %q", corev1.ServiceTypeExternalName)
	}
	if t := spec.TrafficDistribution; t != nil && *t == corev1.ServiceTrafficDistributionPreferClose {
		w.addf("spec.trafficDistribution: %q is deprecated; use %q", corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone)
	}
	return w.list
}

func serviceRow(s *corev1.Service) []any {
	ip := "<none>"
	if len(s.Spec.ClusterIPs) > 0 {
		ip = s.Spec.ClusterIPs[0]
	}
	ports := make([]string, len(s.Spec.Ports))
	for i, p := range s.Spec.Ports {
		ports[i] = fmt.Sprintf("%d/%s", p.Port, p.Protocol)
		if p.NodePort > 0 {
			ports[i] = fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol)
		}
	}
	return []any{s.Name, string(s.Spec.Type), ip, externalIP(s), table.None(strings.Join(ports, ",")), table.AgeOf(s), labels.FormatLabels(s.Spec.Selector)}
}

func externalIP(s *corev1.Service) string {
	given := strings.Join(s.Spec.ExternalIPs, ",")
	switch s.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
		return table.None(given)
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	case corev1.ServiceTypeLoadBalancer:
		had := map[string]bool{}
		var all []string
		for _, in := range s.Status.LoadBalancer.Ingress {
			a := in.IP
			if a == "" {
				a = in.Hostname
			}
			if a != "" && !had[a] {
				had[a] = true
				all = append(all, a)
			}
		}
		sort.Strings(all)
		if given != "" {
			all = append(all, given)
		}
		if len(all) == 0 {
			return "<pending>"
		}
		return strings.Join(all, ",")
	}
	return "<unknown>"
}
