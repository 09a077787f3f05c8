package kubelet

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	resources "k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// ledger is what the pods on the node have been promised.
type ledger struct {
	pods map[types.UID]promise
}

type promise struct {
	requests v1.ResourceList
	ports    []v1.ContainerPort
}

// safeSysctls may be set by any pod: they are namespaced and do no harm to others.
var safeSysctls = []string{
	"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
	"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
	"net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}

// admit checks at the node what the scheduler has decided, or what nobody has for
// a pod that names its node, and enters the pod into the ledger.
func (k *kubelet) admit(p *v1.Pod) (reason, message string, ok bool) {
	if p.Labels != nil && p.Spec.NodeSelector[v1.LabelOSStable] != "" && p.Spec.NodeSelector[v1.LabelOSStable] != "linux" {
		return "PodOSSelectorNodeLabelDoesNotMatch", "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label", false
	}
	if p.Spec.OS != nil && p.Spec.OS.Name != v1.Linux {
		return "PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS", false
	}
	if sc := p.Spec.SecurityContext; sc != nil {
		if sc.SupplementalGroupsPolicy != nil && *sc.SupplementalGroupsPolicy == v1.SupplementalGroupsPolicyStrict && !k.features.Groups {
			return "SupplementalGroupsPolicyNotSupported", "SupplementalGroupsPolicy=Strict is not supported in this node", false
		}
		for _, s := range sc.Sysctls {
			if name := strings.ReplaceAll(s.Name, "/", "."); !k.sysctlAllowed(name, p) {
				return "SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q not allowlisted", s.Name), false
			}
		}
	}
	if node := k.nodeObject(); node != nil {
		if match, err := nodeaffinity.GetRequiredNodeAffinity(p).Match(node); err == nil && !match {
			return "NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector", false
		}
	}
	want := promise{requests: resources.PodRequests(p, resources.PodResourcesOptions{})}
	for _, list := range [][]v1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for i := range list {
			for _, port := range list[i].Ports {
				if port.HostPort > 0 {
					want.ports = append(want.ports, port)
				}
			}
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if reason, message, ok = k.ledger.fits(p, want, k.node.Allocatable, k.MaxPods); ok {
		k.ledger.pods[p.UID] = want
	}
	return reason, message, ok
}

// enter a pod that has been running since before the kubelet was started.
func (k *kubelet) enter(p *v1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ledger.pods[p.UID] = promise{requests: resources.PodRequests(p, resources.PodResourcesOptions{})}
}

// leave the ledger: the pod has ended.
func (k *kubelet) leave(uid types.UID) {
	k.mu.Lock()
	_, was := k.ledger.pods[uid]
	delete(k.ledger.pods, uid)
	k.mu.Unlock()
	if was {
		k.resized()
	}
}

func (k *kubelet) sysctlAllowed(name string, p *v1.Pod) bool {
	if strings.HasPrefix(name, "net.") && p.Spec.HostNetwork || strings.HasPrefix(name, "kernel.") && p.Spec.HostIPC {
		return false
	}
	return slices.Contains(safeSysctls, name) || slices.ContainsFunc(k.UnsafeSysctls, func(s string) bool {
		prefix, wild := strings.CutSuffix(s, "*")
		return s == name || wild && strings.HasPrefix(name, prefix)
	})
}

// fits says whether a pod fits beside the others.
func (l *ledger) fits(p *v1.Pod, want promise, capacity v1.ResourceList, maxPods int) (reason, message string, ok bool) {
	short := func(name v1.ResourceName, requested, used, capacity int64) (string, string, bool) {
		reason := "OutOf" + string(name)
		return reason, fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, requested, used, capacity), false
	}
	others := len(l.pods)
	used := v1.ResourceList{}
	for uid, o := range l.pods {
		if uid == p.UID {
			others--
			continue
		}
		for name, q := range o.requests {
			sum := used[name]
			sum.Add(q)
			used[name] = sum
		}
		for _, a := range o.ports {
			for _, b := range want.ports {
				if a.HostPort == b.HostPort && a.Protocol == b.Protocol && (a.HostIP == b.HostIP || anyIP(a.HostIP) || anyIP(b.HostIP)) {
					return "NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports", false
				}
			}
		}
	}
	if others+1 > maxPods {
		return short(v1.ResourcePods, 1, int64(others), int64(maxPods))
	}
	for name, q := range want.requests {
		have, known := capacity[name]
		sum := used[name]
		if !known || q.Sign() <= 0 {
			continue // a resource the node knows nothing of is the cluster's
		}
		if total := add(sum, q); total.Cmp(have) > 0 {
			if name == v1.ResourceCPU {
				return short(name, q.MilliValue(), sum.MilliValue(), have.MilliValue())
			}
			return short(name, q.Value(), sum.Value(), have.Value())
		}
	}
	return "", "", true
}

func add(a, b resource.Quantity) resource.Quantity {
	s := a.DeepCopy()
	s.Add(b)
	return s
}

func anyIP(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }
