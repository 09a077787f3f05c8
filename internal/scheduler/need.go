package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/dynamic-resource-allocation/structured"
)

// allocatorFeatures are those that are on by default in v1.36.
var allocatorFeatures = structured.Features{
	AdminAccess: true, PrioritizedList: true, PartitionableDevices: true, DeviceTaints: true, DeviceBindingAndStatus: true, ConsumableCapacity: true,
}

// compiled selectors that are kept.
const compiled = 32

var (
	saidUnallocatable = noFinal(dynamicResources, "cannot allocate all claims")
	saidElsewhere     = noFinal(dynamicResources, "resourceclaim not available on the node")
	saidInUse         = noFinal(dynamicResources, "resourceclaim in use")
	saidStale         = noFinal(dynamicResources, "cannot schedule extended resource claim")
	saidNoResource    = noFinal(dynamicResources, "cannot fit resource")
)

// need is which devices a pod needs, as things stand, and what was found out about
// nodes in one decision.
type need struct {
	claims    []*resourcev1.ResourceClaim  // the pod's, in its order; then the one for extended resources
	places    []*nodeaffinity.NodeSelector // of claims that are allocated, nil = any node
	failed    []bool                       // claims whose devices do not become ready
	extended  int                          // which of claims is for extended resources, -1 = none
	ranked    bool                         // alternatives make some nodes better than others
	rejected  *verdict                     // no node will do
	allocator structured.Allocator         // nil = all is allocated
	on        map[int32]*devicePlan        // by slot, of nodes that will do
	elsewhere map[int]bool                 // claims that kept the pod off a node
}

// devicePlan is what to do about a pod's claims before it is bound to a node.
type devicePlan struct {
	uses     []deviceUse
	mappings []corev1.ContainerExtendedResourceRequest // of the claim for extended resources
	score    int64
}

// deviceUse is one claim of a pod.
type deviceUse struct {
	claim      *resourcev1.ResourceClaim
	allocation *resourcev1.AllocationResult // to be written, nil = it is allocated
	extended   bool                         // made for the pod's extended resources; has no name until it is
}

// needsDevices: a pod has claims, or asks for a resource that is made of devices.
func (w *world) needsDevices(p *pod) bool {
	c := p.class
	if !c.devices && len(c.extended) == 0 || !c.options.filters.has(dynamicResources) {
		return false
	}
	return c.devices || slices.ContainsFunc(c.extended, func(name corev1.ResourceName) bool { return w.devices.backed[name] != nil })
}

// claimsOf a pod that are there, or why they are not. made is false as long as
// claims are not made yet of their templates.
func (d *devices) claimsOf(p *corev1.Pod) (claims []*resourcev1.ResourceClaim, made bool, err error) {
	for i := range p.Spec.ResourceClaims {
		name, mine, err := resourceclaim.Name(p, &p.Spec.ResourceClaims[i])
		if err != nil {
			return nil, false, err
		}
		if name == nil {
			continue // it needs none
		}
		claim := d.claims[p.Namespace+"/"+*name]
		switch {
		case claim == nil:
			return nil, !mine, fmt.Errorf("could not find v1.ResourceClaim %q", p.Namespace+"/"+*name)
		case claim.DeletionTimestamp != nil:
			return nil, true, fmt.Errorf("resourceclaim %q is being deleted", claim.Name)
		case mine:
			if err := resourceclaim.IsForPod(p, claim, false); err != nil {
				return nil, true, err
			}
		}
		claims = append(claims, claim)
	}
	return claims, true, nil
}

// need of a pod, worked out once for a decision.
func (w *world) need(ctx context.Context, p *pod, now time.Time) (*need, error) {
	d := &w.devices
	n := &need{extended: -1, on: map[int32]*devicePlan{}, elsewhere: map[int]bool{}}
	claims, _, err := d.claimsOf(p.obj)
	if err != nil {
		n.rejected = noFinal(dynamicResources, err.Error())
		return n, nil
	}
	n.claims = claims
	if special := d.specialClaim(p); special != nil {
		n.extended = len(claims)
		n.claims = append(n.claims, special)
	}
	n.places, n.failed = make([]*nodeaffinity.NodeSelector, len(n.claims)), make([]bool, len(n.claims))
	open := false
	for i, c := range n.claims {
		a := c.Status.Allocation
		if a == nil {
			open = true
			if n.rejected = d.allocatable(c, i == n.extended); n.rejected != nil {
				return n, nil
			}
			n.ranked = n.ranked || slices.ContainsFunc(c.Spec.Devices.Requests, func(r resourcev1.DeviceRequest) bool { return len(r.FirstAvailable) > 0 })
			continue
		}
		if len(c.Status.ReservedFor) >= resourcev1.ResourceClaimReservedForMaxSize && !resourceclaim.IsReservedForPod(p.obj, c, false) {
			n.rejected = saidInUse
			return n, nil
		}
		if a.NodeSelector != nil {
			if n.places[i], err = nodeaffinity.NewNodeSelector(a.NodeSelector); err != nil {
				return nil, err
			}
		}
		ready, err := readyToBind(c)
		n.failed[i] = err != nil || !ready && overdue(c, p.options.deviceTimeout, now)
	}
	if open {
		if d.cel == nil {
			d.cel = cel.NewCache(compiled, cel.Features{EnableConsumableCapacity: true})
		}
		n.allocator, err = structured.NewAllocator(ctx, allocatorFeatures, d.taken, d, d.all(), d.cel)
	}
	return n, err
}

// allocatable says what keeps a claim from being allocated anywhere.
func (d *devices) allocatable(c *resourcev1.ResourceClaim, special bool) *verdict {
	if special {
		return nil
	}
	if d.pending[c.UID] != nil {
		return noFinal(dynamicResources, fmt.Sprintf("resource claim %s/%s is in the process of being allocated", c.Namespace, c.Name))
	}
	missing := func(class, request string) *verdict {
		if d.classes[class] != nil {
			return nil
		}
		return noFinal(dynamicResources, fmt.Sprintf("request %s: device class %s does not exist", request, class))
	}
	for _, r := range c.Spec.Devices.Requests {
		if r.Exactly != nil {
			if v := missing(r.Exactly.DeviceClassName, r.Name); v != nil {
				return v
			}
		}
		for _, sub := range r.FirstAvailable {
			if v := missing(sub.DeviceClassName, resourceclaim.CreateSubRequestRef(r.Name, sub.Name)); v != nil {
				return v
			}
		}
	}
	return nil
}

// fitsDevices says whether a pod can have its devices on a node and, if so, notes
// what is to be done for that. An error is about the pod, whatever the node.
func (w *world) fitsDevices(ctx context.Context, p *pod, n *node) (*verdict, error) {
	need := p.need
	special, mappings, v := w.specialOn(p, n)
	if v != nil {
		return v, nil
	}
	plan, bad := &devicePlan{mappings: mappings}, false
	var open []*resourcev1.ResourceClaim
	for i, c := range need.claims {
		switch {
		case i == need.extended && special == nil:
		case c.Status.Allocation == nil:
			if i == need.extended {
				c = special
			}
			open = append(open, c)
			plan.uses = append(plan.uses, deviceUse{claim: c, extended: i == need.extended})
		case need.failed[i] || need.places[i] != nil && !need.places[i].Match(n.obj):
			bad, need.elsewhere[i] = true, true
		default:
			plan.uses = append(plan.uses, deviceUse{claim: c})
		}
	}
	if bad {
		return saidElsewhere, nil
	}
	if len(open) > 0 {
		results, err := w.allocate(ctx, p, n, open)
		if errors.Is(err, structured.ErrFailedAllocationOnNode) {
			return w.shared(noFinal(dynamicResources, err.Error())), nil
		}
		if err != nil {
			return nil, err
		}
		if len(results) != len(open) {
			return saidUnallocatable, nil
		}
		for i := range plan.uses {
			if u := &plan.uses[i]; u.claim.Status.Allocation == nil {
				u.allocation, results = &results[0], results[1:]
			}
		}
	}
	if need.ranked {
		plan.score = plan.rank()
	}
	need.on[n.slot] = plan
	return nil, nil
}

// allocate claims on a node, within the time that one node may take.
func (w *world) allocate(ctx context.Context, p *pod, n *node, open []*resourcev1.ResourceClaim) ([]resourcev1.AllocationResult, error) {
	if most := p.options.allocateTimeout; most > 0 {
		short, cancel := context.WithTimeout(ctx, most)
		defer cancel()
		ctx = short
	}
	results, err := p.need.allocator.Allocate(ctx, n.obj, open)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("node %s: timed out trying to allocate devices", n.name)
	}
	return results, err
}

// rank is higher the earlier among its alternatives each request was satisfied.
func (plan *devicePlan) rank() (sum int64) {
	for _, u := range plan.uses {
		a := u.allocation
		if a == nil {
			a = u.claim.Status.Allocation
		}
		has := map[string]bool{}
		for i := range a.Devices.Results {
			has[a.Devices.Results[i].Request] = true
		}
		for _, r := range u.claim.Spec.Devices.Requests {
			for i, sub := range r.FirstAvailable {
				if has[resourceclaim.CreateSubRequestRef(r.Name, sub.Name)] {
					sum += int64(resourcev1.FirstAvailableDeviceRequestMaxSize - i)
				}
			}
		}
	}
	return sum
}

// readyToBind: all conditions that devices of a claim have to fulfil before a pod
// may be bound (KEP-5007) are; an error says that one never will be.
func readyToBind(c *resourcev1.ResourceClaim) (bool, error) {
	if c.Status.Allocation == nil {
		return false, nil
	}
	for i := range c.Status.Allocation.Devices.Results {
		r := &c.Status.Allocation.Devices.Results[i]
		if len(r.BindingConditions) == 0 {
			continue
		}
		at := slices.IndexFunc(c.Status.Devices, func(s resourcev1.AllocatedDeviceStatus) bool {
			return s.Driver == r.Driver && s.Pool == r.Pool && s.Device == r.Device
		})
		if at < 0 {
			return false, nil
		}
		have := c.Status.Devices[at].Conditions
		for _, name := range r.BindingFailureConditions {
			if f := meta.FindStatusCondition(have, name); f != nil && f.Status == metav1.ConditionTrue {
				return false, fmt.Errorf("device binding failed: claim=%s, reason=%s, message=%q", c.Name, f.Reason, f.Message)
			}
		}
		if slices.ContainsFunc(r.BindingConditions, func(name string) bool { return !meta.IsStatusConditionTrue(have, name) }) {
			return false, nil
		}
	}
	return true, nil
}

// conditional: a claim's devices have such conditions.
func conditional(c *resourcev1.ResourceClaim) bool {
	return c.Status.Allocation != nil && slices.ContainsFunc(c.Status.Allocation.Devices.Results, func(r resourcev1.DeviceRequestAllocationResult) bool {
		return len(r.BindingConditions) > 0
	})
}

// overdue: a claim's devices should have been ready by now.
func overdue(c *resourcev1.ResourceClaim, within time.Duration, now time.Time) bool {
	at := dueBy(c, within)
	return !at.IsZero() && at.Before(now)
}

// dueBy is when a claim's devices should be ready, zero = there is nothing to wait for.
func dueBy(c *resourcev1.ResourceClaim, within time.Duration) time.Time {
	if !conditional(c) || c.Status.Allocation.AllocationTimestamp == nil {
		return time.Time{}
	}
	return c.Status.Allocation.AllocationTimestamp.Add(within)
}

// usesClaim: a pod that waits has to do with a claim (namespace/name): one that it
// names, or that was made for it. It is asked of every such pod for every claim.
func usesClaim(p *corev1.Pod, key string) bool {
	namespace, name, _ := strings.Cut(key, "/")
	if namespace != p.Namespace {
		return false
	}
	for i := range p.Spec.ResourceClaims {
		if named := p.Spec.ResourceClaims[i].ResourceClaimName; named != nil && *named == name {
			return true
		}
	}
	for i := range p.Status.ResourceClaimStatuses {
		if made := p.Status.ResourceClaimStatuses[i].ResourceClaimName; made != nil && *made == name {
			return true
		}
	}
	return false
}
