package resourceclaim

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/owned"
)

// mostBase is how long the generated part of a claim's name may be, so that a
// hyphen and the random end fit into 63 bytes.
const mostBase = 57

// ended: nothing of the pod runs, or ever will.
func ended(p *corev1.Pod) bool {
	return owned.Ended(p) || p.DeletionTimestamp != nil && p.Spec.NodeName == ""
}

// needsWork says whether there may be something to do for a pod's claims, as far
// as one sees; get returns nil for a claim that is not there.
func needsWork(p *corev1.Pod, get func(name string) *resourcev1.ResourceClaim) bool {
	if p.DeletionTimestamp != nil || ended(p) {
		return false
	}
	return slices.ContainsFunc(p.Spec.ResourceClaims, func(use corev1.PodResourceClaim) bool {
		name, mine, err := resourceclaim.Name(p, &use)
		if err != nil {
			return use.ResourceClaimTemplateName != nil
		}
		if name == nil {
			return false
		}
		claim := get(*name)
		switch {
		case claim == nil:
			return mine
		case mine && resourceclaim.IsForPod(p, claim, false) != nil:
			return true
		}
		return unreserved(p, claim)
	})
}

// unreserved: the pod has a node, and the claim is allocated but not for it.
func unreserved(p *corev1.Pod, claim *resourcev1.ResourceClaim) bool {
	return p.Spec.NodeName != "" && claim.Status.Allocation != nil && !resourceclaim.IsReservedForPod(p, claim, false)
}

// podPlan is what to do so that a pod has its claims.
type podPlan struct {
	names  map[string]string         // of generated claims that are there, by the pod's name for them
	write  bool                      // names are not in the pod's status yet
	create []corev1.PodResourceClaim // from their templates
}

// decidePod looks at what there is of the claims that are generated for a pod:
// owned are the claims that the pod controls.
func decidePod(p *corev1.Pod, owned []*resourcev1.ResourceClaim) podPlan {
	plan := podPlan{names: map[string]string{}}
	for _, use := range p.Spec.ResourceClaims {
		if use.ResourceClaimTemplateName == nil {
			continue
		}
		name, _, err := resourceclaim.Name(p, &use)
		if err == nil && name == nil {
			continue // somebody said that it needs none
		}
		said := ""
		if err == nil {
			said = *name
		}
		if claim := generated(owned, use.Name, said); claim == nil {
			plan.create = append(plan.create, use)
		} else {
			plan.names[use.Name] = claim.Name
			plan.write = plan.write || claim.Name != said
		}
	}
	return plan
}

// generated is the claim for one entry of a pod: the one that the pod's status
// says, or one that was made but not yet written there.
func generated(owned []*resourcev1.ResourceClaim, entry, said string) (best *resourcev1.ResourceClaim) {
	for _, c := range owned {
		if c.Name == said {
			return c
		}
		if c.Annotations[resourcev1.PodResourceClaimAnnotation] == entry && c.DeletionTimestamp == nil && (best == nil || c.Name < best.Name) {
			best = c
		}
	}
	return best
}

// fromTemplate is the claim for one entry of a pod.
func fromTemplate(p *corev1.Pod, entry string, t *resourcev1.ResourceClaimTemplate) *resourcev1.ResourceClaim {
	about := maps.Clone(t.Spec.Annotations)
	if about == nil {
		about = map[string]string{}
	}
	about[resourcev1.PodResourceClaimAnnotation] = entry
	return &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, GenerateName: baseName(p.Name, entry), Labels: maps.Clone(t.Spec.Labels), Annotations: about,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID, Controller: ptr.To(true)}},
		},
		Spec: *t.Spec.Spec.DeepCopy(),
	}
}

// baseName is POD-ENTRY- or, where that is too long, as much of each as is its part.
func baseName(pod, entry string) string {
	base := pod + "-" + entry + "-"
	if n := len(base); n > mostBase {
		return pod[:len(pod)*mostBase/n] + "-" + entry[:len(entry)*mostBase/n]
	}
	return base
}

// claimPlan is what to do about a claim that lost consumers, in this order.
type claimPlan struct {
	reserved   []resourcev1.ResourceClaimConsumerReference // who is left
	write      bool                                        // reserved, and that it is allocated no more
	deallocate bool
	unprotect  bool // take the finalizer off
	remove     bool // it was generated for a pod that needs it no more
}

// decideClaim of what is left of a claim's consumers. uses says whether a pod is
// there and may run; owner is the pod that the claim was generated for, nil = none
// or not known.
//
// A claim is deallocated as its last consumer goes, so that the next one need not go
// where that was; one that nobody has used yet stays as it is.
func decideClaim(c *resourcev1.ResourceClaim, uses func(resourcev1.ResourceClaimConsumerReference) bool, owner *corev1.Pod) claimPlan {
	var plan claimPlan
	unused := superseded(c, owner)
	for _, r := range c.Status.ReservedFor {
		if !isPod(r) || uses(r) && !unused {
			plan.reserved = append(plan.reserved, r)
		}
	}
	if len(plan.reserved) > 0 {
		plan.write = len(plan.reserved) < len(c.Status.ReservedFor)
		return plan
	}
	protected := slices.Contains(c.Finalizers, resourcev1.Finalizer)
	lost := len(c.Status.ReservedFor) > 0
	plan.deallocate = protected && c.Status.Allocation != nil && (lost || c.DeletionTimestamp != nil)
	plan.write = lost || plan.deallocate
	plan.unprotect = protected && (plan.deallocate || lost || c.DeletionTimestamp != nil)
	if name, uid := owningPod(c); name != "" && owner != nil && c.DeletionTimestamp == nil {
		plan.remove = owner.UID != uid || ended(owner) || unused
	}
	return plan
}

// superseded: the claim was made for a pod's extended resources, but the pod is on its
// node with another one. The scheduler tried twice, and nobody answered when it made
// this one or took it back.
func superseded(c *resourcev1.ResourceClaim, owner *corev1.Pod) bool {
	if c.Annotations[resourcev1.ExtendedResourceClaimAnnotation] != "true" || owner == nil || owner.Spec.NodeName == "" || !metav1.IsControlledBy(c, owner) {
		return false
	}
	has := owner.Status.ExtendedResourceClaimStatus
	return has != nil && has.ResourceClaimName != c.Name
}

func isPod(r resourcev1.ResourceClaimConsumerReference) bool {
	return r.APIGroup == "" && r.Resource == "pods"
}

// owningPod that a claim was generated for, "" = none.
func owningPod(c *resourcev1.ResourceClaim) (name string, uid types.UID) {
	if ref := metav1.GetControllerOfNoCopy(c); ref != nil && ref.APIVersion == "v1" && ref.Kind == "Pod" {
		return ref.Name, ref.UID
	}
	return "", ""
}

// wants are the keys ("c/…" claims, "t/…" templates) under which a pod is woken.
func wants(p *corev1.Pod) (keys []string) {
	for _, name := range owned.ClaimNames(p) {
		keys = append(keys, "c/"+client.Key(p.Namespace, name))
	}
	for i := range p.Spec.ResourceClaims {
		if t := p.Spec.ResourceClaims[i].ResourceClaimTemplateName; t != nil {
			keys = append(keys, "t/"+client.Key(p.Namespace, *t))
		}
	}
	return keys
}
