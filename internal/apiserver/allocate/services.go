// Package allocate gives Services what there is only one of: cluster IPs and
// node ports. What is taken is read off the Services in the cache and off the
// claims that are on their way to the store; nothing else is kept. Cluster IPs come
// from the ServiceCIDRs, and none that somebody else has an IPAddress for (KEP-1880).
package allocate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/core"
	"github.com/proa-dev/proa/internal/cache"
)

// Ports is a range of node ports, both ends included.
type Ports struct{ From, To int32 }

// Services claims for Services; a verbs.Claimer.
type Services struct {
	ranges []ipRange // the first is the default family
	ports  Ports
	set    cache.Reader
	more   Objects
	ready  <-chan struct{}

	mu      sync.Mutex
	watch   cache.Watcher
	has     map[types.UID]holding // what stored Services hold
	ips     map[netip.Addr]types.UID
	taken   map[int32]types.UID
	pending map[netip.Addr]types.UID
	waiting map[int32]types.UID
}

type holding struct {
	ips   []netip.Addr
	ports []int32
}

// NewServices claims from ranges, one or one of each family; none = there are no
// cluster IPs to have. set are the Services, complete once ready is closed; more
// ranges of the same families come from objects.
func NewServices(cidrs []netip.Prefix, ports Ports, set cache.Reader, more Objects, ready <-chan struct{}) (*Services, error) {
	if ports == (Ports{}) {
		ports = Ports{30000, 32767}
	}
	if ports.From < 1 || ports.To > 65535 || ports.From > ports.To {
		return nil, fmt.Errorf("the range of node ports %d-%d is not one within 1-65535", ports.From, ports.To)
	}
	s := &Services{ports: ports, set: set, more: more, ready: ready, pending: map[netip.Addr]types.UID{}, waiting: map[int32]types.UID{}}
	for _, c := range cidrs {
		r, err := newRange(c)
		if err != nil {
			return nil, err
		}
		for _, had := range s.ranges {
			if had.family == r.family {
				return nil, fmt.Errorf("%v and %v are service ranges of the same IP family", had.prefix, c)
			}
		}
		s.ranges = append(s.ranges, r)
	}
	return s, nil
}

// Claim implements verbs.Claimer: it fills in the IP fields and node ports of a
// Service, or says (Invalid) why what it asks for cannot be had.
func (s *Services) Claim(ctx context.Context, obj, _ api.Object, dryRun bool) (func(stored bool), error) {
	if obj == nil {
		return func(bool) {}, nil // what it held is free when it has left the cache
	}
	svc := obj.(*corev1.Service)
	select {
	case <-s.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.catchUp(); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	c := &claim{s: s, svc: svc}
	err := c.families()
	if err == nil {
		err = c.clusterIPs()
	}
	if err == nil {
		err = c.nodePorts()
	}
	if err != nil || dryRun {
		c.release()
		return func(bool) {}, err
	}
	return func(bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		c.release() // if it was stored, the cache has it by now
	}, nil
}

// catchUp takes in what has become of Services since the last claim.
func (s *Services) catchUp() error {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for range 2 {
		if s.watch == nil {
			w, err := s.set.Watch(cache.WatchOptions{})
			if err != nil {
				return err
			}
			s.watch = w
			s.has, s.ips, s.taken = map[types.UID]holding{}, map[netip.Addr]types.UID{}, map[int32]types.UID{}
		}
		for {
			events, _, err := s.watch.Next(ended)
			if len(events) == 0 && err != nil && ended.Err() == err {
				return nil
			}
			if err != nil { // it fell behind: read everything again
				s.watch.Stop()
				s.watch = nil
				break
			}
			for i := range events {
				s.take(&events[i])
			}
		}
	}
	return fmt.Errorf("the Services cannot be followed")
}

func (s *Services) take(e *cache.Event) {
	svc := e.Item.Object.(*corev1.Service)
	old := s.has[svc.UID]
	for _, ip := range old.ips {
		if s.ips[ip] == svc.UID {
			delete(s.ips, ip)
		}
	}
	for _, p := range old.ports {
		if s.taken[p] == svc.UID {
			delete(s.taken, p)
		}
	}
	delete(s.has, svc.UID)
	if e.Type == cache.Deleted {
		return
	}
	var h holding
	for _, ip := range core.ClusterIPs(svc) {
		h.ips = append(h.ips, ip)
		s.ips[ip] = svc.UID
	}
	for _, p := range portsOf(&svc.Spec) {
		h.ports = append(h.ports, p)
		s.taken[p] = svc.UID
	}
	s.has[svc.UID] = h
}

func portsOf(spec *corev1.ServiceSpec) []int32 {
	var all []int32
	for i := range spec.Ports {
		if p := spec.Ports[i].NodePort; p != 0 {
			all = append(all, p)
		}
	}
	if spec.HealthCheckNodePort != 0 {
		all = append(all, spec.HealthCheckNodePort)
	}
	return all
}

// claim is what one Service reserves until it is stored.
type claim struct {
	s     *Services
	svc   *corev1.Service
	ips   []netip.Addr
	ports []int32
}

func (c *claim) release() {
	for _, ip := range c.ips {
		delete(c.s.pending, ip)
	}
	for _, p := range c.ports {
		delete(c.s.waiting, p)
	}
	c.ips, c.ports = nil, nil
}

func (c *claim) invalid(all ...*field.Error) error {
	return apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, c.svc.Name, all)
}

// clusterIPs gives each family of the Service an address, or takes the one it names.
func (c *claim) clusterIPs() error {
	spec := &c.svc.Spec
	if spec.Type == corev1.ServiceTypeExternalName || len(spec.ClusterIPs) > 0 && spec.ClusterIPs[0] == corev1.ClusterIPNone || len(c.s.ranges) == 0 {
		return nil
	}
	for i, family := range spec.IPFamilies {
		if i == len(spec.ClusterIPs) {
			spec.ClusterIPs = append(spec.ClusterIPs, "")
		}
		ranges := c.s.rangesOf(family)
		if ranges == nil {
			continue // validation says so
		}
		asked := spec.ClusterIPs[i]
		ip, err := c.address(ranges, asked)
		if err != nil {
			at := field.NewPath("spec", "clusterIPs")
			if asked == "" {
				return apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP for Service %q: %w", c.svc.Name, err))
			}
			return c.invalid(field.Invalid(at, spec.ClusterIPs, fmt.Sprintf("failed to allocate IP %v: %v", asked, err)))
		}
		if asked == "" {
			spec.ClusterIPs[i] = ip.String()
		}
	}
	if len(spec.ClusterIPs) > 0 {
		spec.ClusterIP = spec.ClusterIPs[0]
	}
	return nil
}

// address reserves the address asked for, or any.
func (c *claim) address(ranges []ipRange, asked string) (netip.Addr, error) {
	free := func(ip netip.Addr) bool {
		_, held := c.s.ips[ip]
		_, pending := c.s.pending[ip]
		return !held && !pending && !c.s.more.elsewhere(ip)
	}
	if asked == "" {
		for i := range ranges {
			if ip, ok := ranges[i].pick(free); ok {
				c.keep(ip)
				return ip, nil
			}
		}
		return netip.Addr{}, errFull
	}
	ip, err := netip.ParseAddr(asked)
	switch {
	case err != nil:
		return ip, nil // validation says so
	case c.s.ips[ip] == c.svc.UID && c.svc.UID != "":
		return ip, nil // it has it
	case !slices.ContainsFunc(ranges, func(r ipRange) bool { return r.holds(ip) }):
		return ip, fmt.Errorf("the provided IP (%v) is not in the valid range. The range of valid IPs is %s", ip, prefixes(ranges))
	case !free(ip):
		return ip, errIPTaken
	}
	c.keep(ip)
	return ip, nil
}

func (c *claim) keep(ip netip.Addr) {
	c.s.pending[ip] = c.svc.UID
	c.ips = append(c.ips, ip)
}

// nodePorts gives the Service the ports of the nodes that its type wants.
func (c *claim) nodePorts() error {
	spec := &c.svc.Spec
	wants := spec.Type == corev1.ServiceTypeNodePort ||
		spec.Type == corev1.ServiceTypeLoadBalancer && (spec.AllocateLoadBalancerNodePorts == nil || *spec.AllocateLoadBalancerNodePorts)
	may := wants || spec.Type == corev1.ServiceTypeLoadBalancer
	mine := map[int32]map[corev1.Protocol]bool{}
	for i := range spec.Ports { // those that are named come first: others must not take them
		p := &spec.Ports[i]
		if p.NodePort == 0 || !may {
			continue
		}
		if mine[p.NodePort] == nil {
			if err := c.port(p.NodePort); err != nil {
				return c.invalid(field.Invalid(field.NewPath("spec", "ports").Index(i).Child("nodePort"), p.NodePort, err.Error()))
			}
			mine[p.NodePort] = map[corev1.Protocol]bool{}
		}
		mine[p.NodePort][p.Protocol] = true
	}
	for i := range spec.Ports {
		p := &spec.Ports[i]
		if p.NodePort != 0 || !wants {
			continue
		}
		for _, other := range spec.Ports { // the same port by another protocol gets the same node port
			if other.Port == p.Port && other.Protocol != p.Protocol && other.NodePort != 0 && !mine[other.NodePort][p.Protocol] {
				p.NodePort = other.NodePort
			}
		}
		if p.NodePort == 0 {
			n, err := c.anyPort()
			if err != nil {
				return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %w", err))
			}
			p.NodePort, mine[n] = n, map[corev1.Protocol]bool{}
		}
		mine[p.NodePort][p.Protocol] = true
	}
	if spec.Type != corev1.ServiceTypeLoadBalancer || spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return nil
	}
	if p := spec.HealthCheckNodePort; p != 0 {
		if err := c.port(p); err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate requested HealthCheck NodePort %v: %v", p, err))
		}
		return nil
	}
	n, err := c.anyPort()
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate a HealthCheck NodePort %v: %v", n, err))
	}
	spec.HealthCheckNodePort = n
	return nil
}

// port reserves the one asked for.
func (c *claim) port(p int32) error {
	if owner, held := c.s.taken[p]; held && owner == c.svc.UID {
		return nil
	}
	if p < c.s.ports.From || p > c.s.ports.To {
		return fmt.Errorf("provided port is not in the valid range. The range of valid ports is %d-%d", c.s.ports.From, c.s.ports.To)
	}
	if !c.free(p) {
		return errPortTaken
	}
	c.s.waiting[p] = c.svc.UID
	c.ports = append(c.ports, p)
	return nil
}

func (c *claim) free(p int32) bool {
	_, held := c.s.taken[p]
	_, pending := c.s.waiting[p]
	return !held && !pending
}

// staticPorts are left to those who ask for one by number as long as there are others.
func (p Ports) static() int32 {
	n := p.To - p.From + 1
	return min(max(16, n/32), 128) * min(1, n/16)
}

func (c *claim) anyPort() (int32, error) {
	from, n, static := c.s.ports.From, c.s.ports.To-c.s.ports.From+1, c.s.ports.static()
	for _, band := range [][2]int32{{static, n}, {0, static}} {
		size := band[1] - band[0]
		if size <= 0 {
			continue
		}
		start := rand.Int32N(size)
		for i := range size {
			p := from + band[0] + (start+i)%size
			if c.free(p) {
				c.s.waiting[p] = c.svc.UID
				c.ports = append(c.ports, p)
				return p, nil
			}
		}
	}
	return 0, errFull
}
