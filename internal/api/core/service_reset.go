package core

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// resetService keeps what was allocated, and lets go of what the new type has
// no use for unless the user has changed it too.
func resetService(s, old *corev1.Service, sub string) {
	switch {
	case old == nil:
		s.Status = corev1.ServiceStatus{}
		if s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
		}
	case sub == "status":
		s.Spec = old.Spec
	default:
		s.Status = old.Status
		keepAllocated(&s.Spec, &old.Spec)
		followClusterIP(&s.Spec, &old.Spec)
		dropUnused(&s.Spec, &old.Spec)
		if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
			s.Status.LoadBalancer = corev1.LoadBalancerStatus{}
		}
	}
}

// keepAllocated fills in addresses and ports that the client has left out.
func keepAllocated(s, old *corev1.ServiceSpec) {
	if s.Type != corev1.ServiceTypeExternalName && old.Type != corev1.ServiceTypeExternalName {
		if s.ClusterIP == "" {
			s.ClusterIP = old.ClusterIP
		}
		if len(s.ClusterIPs) == 0 {
			s.ClusterIPs = old.ClusterIPs
		}
	}
	if usesNodePorts(s) && usesNodePorts(old) {
		used := map[int32]bool{} // by one of the new ports already
		for i := range s.Ports {
			used[s.Ports[i].NodePort] = true
		}
		byName := map[string]int32{}
		for i := range old.Ports {
			byName[old.Ports[i].Name] = old.Ports[i].NodePort
		}
		for i := range s.Ports {
			p := &s.Ports[i]
			if n := byName[p.Name]; p.NodePort == 0 && !used[n] {
				p.NodePort = n
			}
		}
	}
	if NeedsHealthCheckPort(s) && NeedsHealthCheckPort(old) && s.HealthCheckNodePort == 0 {
		s.HealthCheckNodePort = old.HealthCheckNodePort
	}
}

// followClusterIP: a client that knows only clusterIP means clusterIPs, too.
func followClusterIP(s, old *corev1.ServiceSpec) {
	if len(old.ClusterIPs) > 0 && len(s.ClusterIPs) == 0 && old.ClusterIP == s.ClusterIP {
		s.ClusterIPs = old.ClusterIPs
	}
	if old.ClusterIP == s.ClusterIP || !slices.Equal(s.ClusterIPs, old.ClusterIPs) {
		return
	}
	if old.ClusterIP != "" && s.ClusterIP == "" {
		s.ClusterIPs = nil
	} else {
		s.ClusterIPs = []string{s.ClusterIP}
	}
}

func dropUnused(s, old *corev1.ServiceSpec) {
	named := s.Type == corev1.ServiceTypeExternalName
	if named && old.Type != corev1.ServiceTypeExternalName {
		if s.ClusterIP == old.ClusterIP && slices.Equal(s.ClusterIPs, old.ClusterIPs) {
			s.ClusterIP, s.ClusterIPs = "", nil
		}
		if slices.Equal(s.IPFamilies, old.IPFamilies) {
			s.IPFamilies = nil
		}
		if samePtr(s.IPFamilyPolicy, old.IPFamilyPolicy) {
			s.IPFamilyPolicy = nil
		}
	}
	if usesNodePorts(old) && !usesNodePorts(s) && noNewNodePorts(s, old) {
		for i := range s.Ports {
			s.Ports[i].NodePort = 0
		}
	}
	if NeedsHealthCheckPort(old) && !NeedsHealthCheckPort(s) && s.HealthCheckNodePort == old.HealthCheckNodePort {
		s.HealthCheckNodePort = 0
	}
	if old.Type == corev1.ServiceTypeLoadBalancer && s.Type != corev1.ServiceTypeLoadBalancer {
		if samePtr(s.AllocateLoadBalancerNodePorts, old.AllocateLoadBalancerNodePorts) {
			s.AllocateLoadBalancerNodePorts = nil
		}
		if samePtr(s.LoadBalancerClass, old.LoadBalancerClass) {
			s.LoadBalancerClass = nil
		}
	}
	if isExternal(old) && !isExternal(s) && s.ExternalTrafficPolicy == old.ExternalTrafficPolicy {
		s.ExternalTrafficPolicy = ""
	}
}

func noNewNodePorts(s, old *corev1.ServiceSpec) bool {
	had := map[int32]bool{0: true}
	for i := range old.Ports {
		had[old.Ports[i].NodePort] = true
	}
	for i := range s.Ports {
		if !had[s.Ports[i].NodePort] {
			return false
		}
	}
	return true
}
