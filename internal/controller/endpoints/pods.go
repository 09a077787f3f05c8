package endpoints

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/proa-dev/proa/internal/controller/owned"
)

// backend is a pod that serves, or will, or has just ceased to.
type backend struct {
	pod         *corev1.Pod
	node        *corev1.Node // nil if it is not known
	serving     bool         // the pod is ready
	terminating bool
	ready       bool // serving and not terminating, or published all the same
}

// backends of a Service among the pods that its selector matches: those with an
// address that have not ended.
func backends(svc *corev1.Service, pods []*corev1.Pod, node func(string) *corev1.Node) []backend {
	var all []backend
	for _, p := range pods {
		if len(p.Status.PodIPs) == 0 && p.Status.PodIP == "" || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
			continue
		}
		b := backend{pod: p, node: node(p.Spec.NodeName), serving: owned.Ready(p), terminating: p.DeletionTimestamp != nil}
		b.ready = svc.Spec.PublishNotReadyAddresses || b.serving && !b.terminating
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b backend) int { return cmp.Compare(a.pod.Name, b.pod.Name) })
	return all
}

// address of the pod in a family, "" if it has none.
func (b *backend) address(t discoveryv1.AddressType) string {
	ips := b.pod.Status.PodIPs
	if len(ips) == 0 {
		ips = []corev1.PodIP{{IP: b.pod.Status.PodIP}}
	}
	for _, ip := range ips {
		if a, err := netip.ParseAddr(ip.IP); err == nil && a.Is4() == (t == discoveryv1.AddressTypeIPv4) {
			return ip.IP
		}
	}
	return ""
}

// hostname that DNS gives the pod under this Service.
func (b *backend) hostname(svc *corev1.Service) string {
	if b.pod.Spec.Hostname != "" && b.pod.Spec.Subdomain == svc.Name && b.pod.Namespace == svc.Namespace {
		return b.pod.Spec.Hostname
	}
	return ""
}

// port that a Service's port leads to on a pod; named ports are looked up there.
func port(p *corev1.Pod, sp *corev1.ServicePort) (int32, bool) {
	if sp.TargetPort.Type == intstr.Int {
		if sp.TargetPort.IntVal == 0 {
			return sp.Port, true
		}
		return sp.TargetPort.IntVal, true
	}
	find := func(list []corev1.Container, sidecars bool) (int32, bool) {
		for i := range list {
			if sidecars && (list[i].RestartPolicy == nil || *list[i].RestartPolicy != corev1.ContainerRestartPolicyAlways) {
				continue
			}
			for _, cp := range list[i].Ports {
				if cp.Name == sp.TargetPort.StrVal && (cp.Protocol == sp.Protocol || cp.Protocol == "" && sp.Protocol == corev1.ProtocolTCP) {
					return cp.ContainerPort, true
				}
			}
		}
		return 0, false
	}
	if n, ok := find(p.Spec.Containers, false); ok {
		return n, true
	}
	return find(p.Spec.InitContainers, true)
}

func headless(svc *corev1.Service) bool { return svc.Spec.ClusterIP == corev1.ClusterIPNone }
