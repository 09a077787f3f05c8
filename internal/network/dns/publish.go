package dns

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/proa-dev/proa/internal/client"
)

// Name and Namespace of the cluster DNS Service, as everybody expects them.
const (
	Name      = "kube-dns"
	Namespace = "kube-system"
)

// Service of the cluster DNS at its fixed addresses (the 10th of the service
// range). It has no selector: EndpointSlice lists the nodes.
func Service(clusterIPs ...netip.Addr) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: Namespace, Name: Name,
			Labels: map[string]string{"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
		},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP,
			Ports: []corev1.ServicePort{
				{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, TargetPort: intstr.FromInt32(53)},
				{Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Port: 53, TargetPort: intstr.FromInt32(53)},
			},
		},
	}
	for _, ip := range clusterIPs {
		svc.Spec.ClusterIPs = append(svc.Spec.ClusterIPs, ip.String())
	}
	if len(clusterIPs) > 0 {
		svc.Spec.ClusterIP = svc.Spec.ClusterIPs[0]
	}
	return svc
}

// EndpointSlice of the nodes' servers, which all listen on port of their node's
// internal address. Each is for its own node; the ready ones stand in for others.
func EndpointSlice(nodes []*corev1.Node, port int32) *discoveryv1.EndpointSlice {
	ptr := func(b bool) *bool { return &b }
	tcp, udp, names := corev1.ProtocolTCP, corev1.ProtocolUDP, []string{"dns", "dns-tcp"}
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: Name, Labels: map[string]string{
			discoveryv1.LabelServiceName: Name, discoveryv1.LabelManagedBy: "dns.proa.dev", "k8s-app": "kube-dns"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &names[0], Protocol: &udp, Port: &port}, {Name: &names[1], Protocol: &tcp, Port: &port}},
	}
	isReady := func(n *corev1.Node) bool {
		return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
	}
	// A server answers while its node is not ready, too: better those than none.
	anyReady := slices.ContainsFunc(nodes, isReady)
	for _, n := range nodes {
		ready := isReady(n) || !anyReady
		for _, a := range n.Status.Addresses {
			ip, err := netip.ParseAddr(a.Address)
			if a.Type != corev1.NodeInternalIP || err != nil || !ip.Is4() || ip.IsLoopback() {
				continue
			}
			name := n.Name
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{ip.String()}, NodeName: &name,
				Conditions: discoveryv1.EndpointConditions{Ready: ptr(ready), Serving: ptr(ready), Terminating: ptr(false)},
				Hints:      &discoveryv1.EndpointHints{ForNodes: []discoveryv1.ForNode{{Name: name}}},
			})
			break
		}
	}
	slices.SortFunc(s.Endpoints, func(a, b discoveryv1.Endpoint) int { return cmp.Compare(*a.NodeName, *b.NodeName) })
	// A slice holds no more (API); the nodes beyond are served by these.
	s.Endpoints = s.Endpoints[:min(len(s.Endpoints), 1000)]
	return s
}

// Publisher keeps the Service and its slice. One server of a cluster runs it.
type Publisher struct {
	ips    []netip.Addr
	port   int32
	log    *slog.Logger
	nodes  *client.Informer[*corev1.Node]
	svc    client.Client[*corev1.Service]
	slices client.Client[*discoveryv1.EndpointSlice]
	wake   chan struct{}
}

// NewPublisher asks for its informer: make it before they run.
func NewPublisher(clusterIPs []netip.Addr, port int32, inf *client.Informers, log *slog.Logger) *Publisher {
	p := &Publisher{ips: clusterIPs, port: port, log: log, nodes: client.Shared[*corev1.Node](inf, client.Scope{}),
		svc: client.For[*corev1.Service](inf.Conn()), slices: client.For[*discoveryv1.EndpointSlice](inf.Conn()), wake: make(chan struct{}, 1)}
	p.nodes.OnChange(func(_, _ *corev1.Node) {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	})
	return p
}

// Run works until ctx ends.
func (p *Publisher) Run(ctx context.Context) error {
	select {
	case <-p.nodes.Synced():
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		var again <-chan time.Time
		if err := p.publish(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("the cluster DNS Service could not be written", "error", err)
			again = time.After(5 * time.Second)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.wake:
		case <-again:
		}
	}
}

func (p *Publisher) publish(ctx context.Context) error {
	if _, err := p.svc.Get(ctx, Namespace, Name); apierrors.IsNotFound(err) {
		if _, err := p.svc.Create(ctx, Service(p.ips...)); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	} else if err != nil {
		return err
	}
	want := EndpointSlice(p.nodes.List("", nil), p.port)
	have, err := p.slices.Get(ctx, Namespace, Name)
	if apierrors.IsNotFound(err) {
		_, err = p.slices.Create(ctx, want)
		return err
	}
	if err != nil || apiequality.Semantic.DeepEqual(have.Endpoints, want.Endpoints) && apiequality.Semantic.DeepEqual(have.Ports, want.Ports) {
		return err
	}
	have = have.DeepCopy()
	have.Endpoints, have.Ports = want.Endpoints, want.Ports
	_, err = p.slices.Update(ctx, have)
	return err
}
