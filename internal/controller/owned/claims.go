package owned

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
)

// ClaimNames of a pod that are known: those it names, those that were generated for
// it, and the one for its extended resources.
func ClaimNames(p *corev1.Pod) (names []string) {
	for i := range p.Spec.ResourceClaims {
		if name, _, err := resourceclaim.Name(p, &p.Spec.ResourceClaims[i]); err == nil && name != nil {
			names = append(names, *name)
		}
	}
	if x := p.Status.ExtendedResourceClaimStatus; x != nil && x.ResourceClaimName != "" {
		names = append(names, x.ResourceClaimName)
	}
	return names
}
