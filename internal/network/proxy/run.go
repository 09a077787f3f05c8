package proxy

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/network/nftwatch"
	"github.com/proa-dev/proa/internal/network/serviceslices"
)

// retry is how long to wait after the kernel refused something.
const retry = 5 * time.Second

// Runner keeps a Proxy at what Services, EndpointSlices and this node's pods say.
type Runner struct {
	proxy    *Proxy
	services *client.Informer[*corev1.Service]
	slices   *client.Informer[*discoveryv1.EndpointSlice]
	of       *serviceslices.Index
	pods     *client.Informer[*corev1.Pod]
	nodes    *client.Informer[*corev1.Node]
	wake     chan struct{}

	mu    sync.Mutex
	node  Node
	dirty map[Owner]client.Scope // the object each is about
}

// NewRunner asks for its informers: make it before they run. Pods and the node
// are watched for this node alone.
func NewRunner(p *Proxy, inf *client.Informers) *Runner {
	r := &Runner{
		proxy:    p,
		services: client.Shared[*corev1.Service](inf, client.Scope{}),
		slices:   client.Shared[*discoveryv1.EndpointSlice](inf, client.Scope{}),
		pods:     client.Shared[*corev1.Pod](inf, client.Scope{Index: "spec.nodeName", Value: p.cfg.Node.Name}),
		nodes:    client.Shared[*corev1.Node](inf, client.Scope{}),
		wake:     make(chan struct{}, 1),
		node:     p.cfg.Node,
		dirty:    map[Owner]client.Scope{},
	}
	r.services.OnChange(func(old, new *corev1.Service) {
		svc := either(old, new)
		r.mark("service", svc.Namespace, svc.Name)
	})
	r.of = serviceslices.New(r.slices, func(ns, service string) { r.mark("service", ns, service) })
	r.pods.OnChange(func(old, new *corev1.Pod) {
		pod := either(old, new)
		if hasHostPort(pod) {
			r.mark("pod", pod.Namespace, pod.Name)
		}
	})
	r.nodes.OnChange(func(old, new *corev1.Node) {
		if n := either(old, new); n.Name == p.cfg.Node.Name {
			r.nodeChanged(n)
		}
	})
	return r
}

// either the new state or, of something deleted, the old one.
func either[T comparable](old, new T) T {
	var none T
	if new == none {
		return old
	}
	return new
}

func hasHostPort(pod *corev1.Pod) bool {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			if slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.HostPort > 0 }) {
				return !pod.Spec.HostNetwork
			}
		}
	}
	return false
}

func (r *Runner) mark(kind, namespace, name string) {
	r.mu.Lock()
	r.dirty[Owner(kind+" "+namespace+"/"+name)] = client.Scope{Namespace: namespace, Name: name}
	r.mu.Unlock()
	r.stir()
}

func (r *Runner) stir() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// nodeChanged looks at the zone: hints are read for it.
func (r *Runner) nodeChanged(n *corev1.Node) {
	zone := n.Labels[corev1.LabelTopologyZone]
	r.mu.Lock()
	same := r.node.Zone == zone
	r.node.Zone = zone
	r.mu.Unlock()
	if same {
		return
	}
	for _, svc := range r.services.List("", nil) {
		r.mark("service", svc.Namespace, svc.Name)
	}
}

// Run works until ctx ends, and leaves the table serving.
func (r *Runner) Run(ctx context.Context) error {
	defer r.proxy.Close()
	for _, synced := range []<-chan struct{}{r.services.Synced(), r.slices.Synced(), r.pods.Synced(), r.nodes.Synced()} {
		select {
		case <-synced:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	lost, err := nftwatch.Deleted(ctx, TableName(r.proxy.cfg.Cluster))
	if err != nil {
		r.proxy.log.Warn("nobody will notice if the service table is removed", "error", err)
	}
	first := true
	for {
		changes := r.take()
		var err error
		if first {
			err = r.proxy.Set(ctx, changes)
			first = err != nil
		} else if len(changes) > 0 {
			err = r.proxy.Apply(ctx, changes)
		}
		var again <-chan time.Time
		if err != nil && ctx.Err() == nil {
			r.proxy.log.Error("Services are not as they should be on this node", "error", err)
			r.again(changes)
			again = time.After(retry)
		}
		wake := r.wake
		if again != nil {
			wake = nil // not more often than that
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		case <-again:
		case <-lost:
			if err := r.proxy.Restore(ctx); err != nil && ctx.Err() == nil {
				r.proxy.log.Error("Services are not as they should be on this node", "error", err)
			}
		}
	}
}

// take empties the list of what is dirty and decides on each.
func (r *Runner) take() map[Owner]Plan {
	r.mu.Lock()
	dirty, node := r.dirty, r.node
	r.dirty = map[Owner]client.Scope{}
	r.mu.Unlock()
	out := make(map[Owner]Plan, len(dirty))
	for o, at := range dirty {
		out[o] = Plan{}
		if o[0] == 'p' {
			if pod, ok := r.pods.Get(at.Namespace, at.Name); ok {
				out[o] = DecidePod(pod)
			}
		} else if svc, ok := r.services.Get(at.Namespace, at.Name); ok {
			of := r.of.Of(at.Namespace, at.Name)
			if to, ok := r.proxy.cfg.Local[client.Key(at.Namespace, at.Name)]; ok {
				of = []*discoveryv1.EndpointSlice{answeredHere(svc, to, node)}
			}
			out[o] = Decide(svc, of, node)
		}
	}
	return out
}

// again marks what could not be applied.
func (r *Runner) again(changes map[Owner]Plan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for o := range changes {
		_, at, _ := strings.Cut(string(o), " ")
		ns, name, _ := strings.Cut(at, "/")
		r.dirty[o] = client.Scope{Namespace: ns, Name: name}
	}
}

// answeredHere is the slice of a Service that this process answers at an address.
func answeredHere(svc *corev1.Service, at netip.AddrPort, node Node) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{at.Addr().String()}, NodeName: &node.Name}}}
	if at.Addr().Is6() {
		s.AddressType = discoveryv1.AddressTypeIPv6
	}
	port := int32(at.Port())
	for i := range svc.Spec.Ports {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &svc.Spec.Ports[i].Name, Protocol: &svc.Spec.Ports[i].Protocol, Port: &port})
	}
	return s
}
