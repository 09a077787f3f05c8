package dra

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
)

// Uses says whether a pod has claims at all.
func Uses(p *v1.Pod) bool {
	return len(p.Spec.ResourceClaims) > 0 || p.Status.ExtendedResourceClaimStatus != nil
}

// named is a claim of a pod. owned: it was made for the pod, and must be its own.
type named struct {
	name  string
	owned bool
}

// claimsOf a pod: those it names, and those that were made for it. A claim that it
// turned out not to need is not among them.
func claimsOf(p *v1.Pod) (list []named, err error) {
	for i := range p.Spec.ResourceClaims {
		name, owned, err := resourceclaim.Name(p, &p.Spec.ResourceClaims[i])
		if err != nil {
			return nil, err
		}
		if name == nil {
			continue
		}
		if n := (named{*name, owned}); !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	if e := p.Status.ExtendedResourceClaimStatus; e != nil {
		list = append(list, named{e.ResourceClaimName, false})
	}
	return list, nil
}

// allowed says why a pod may not use a claim.
func allowed(p *v1.Pod, c *resourcev1.ResourceClaim, owned bool) error {
	if owned {
		if err := resourceclaim.IsForPod(p, c, false); err != nil {
			return err
		}
	}
	switch {
	case !resourceclaim.IsReservedForPod(p, c, false):
		return fmt.Errorf("pod %s (%s) is not allowed to use ResourceClaim %s (%s)", p.Name, p.UID, c.Name, c.UID)
	case c.Status.Allocation == nil:
		return fmt.Errorf("ResourceClaim %s: %w", c.Name, errors.New("not allocated"))
	}
	return nil
}

// ask of a container for devices of a claim; request "" = all of them.
type ask struct{ claim, request string }

// requested lists what a container asks for.
func requested(p *v1.Pod, c *v1.Container) (list []ask) {
	for i := range p.Spec.ResourceClaims {
		pc := &p.Spec.ResourceClaims[i]
		for _, r := range c.Resources.Claims {
			if r.Name != pc.Name {
				continue
			}
			if name, _, err := resourceclaim.Name(p, pc); err == nil && name != nil {
				list = append(list, ask{*name, r.Request})
			}
		}
	}
	if e := p.Status.ExtendedResourceClaimStatus; e != nil {
		for _, r := range e.RequestMappings {
			if q, ok := c.Resources.Requests[v1.ResourceName(r.ResourceName)]; r.ContainerName == c.Name && ok && !q.IsZero() {
				list = append(list, ask{e.ResourceClaimName, r.RequestName})
			}
		}
	}
	return list
}

func compare(a, b key) int {
	return cmp.Or(strings.Compare(a.namespace, b.namespace), strings.Compare(a.name, b.name))
}
