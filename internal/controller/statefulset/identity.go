package statefulset

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/controller/owned"
)

// ordinal of a pod of the set, -1 if its name is not that of one.
func ordinal(set *appsv1.StatefulSet, p *corev1.Pod) int {
	tail, ok := strings.CutPrefix(p.Name, set.Name+"-")
	if !ok {
		return -1
	}
	n, err := strconv.ParseInt(tail, 10, 32)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != tail {
		return -1
	}
	return int(n)
}

func start(set *appsv1.StatefulSet) int {
	if set.Spec.Ordinals != nil {
		return int(set.Spec.Ordinals.Start)
	}
	return 0
}

func podName(set *appsv1.StatefulSet, n int) string { return fmt.Sprintf("%s-%d", set.Name, n) }

// claimName of a claim template for an ordinal.
func claimName(set *appsv1.StatefulSet, template string, n int) string {
	return fmt.Sprintf("%s-%s-%d", template, set.Name, n)
}

// podOf an ordinal, of one revision's template.
func podOf(set *appsv1.StatefulSet, t *corev1.PodTemplateSpec, revision string, n int) *corev1.Pod {
	p := owned.FromTemplate(t, set.Name, set.Namespace, owned.Ref(set, gvk))
	p.GenerateName, p.Name = "", podName(set, n)
	identify(set, p, n)
	p.Labels[appsv1.StatefulSetRevisionLabel] = revision
	p.Spec.Hostname, p.Spec.Subdomain = p.Name, set.Spec.ServiceName
	claimed := map[string]bool{}
	var volumes []corev1.Volume
	for i := range set.Spec.VolumeClaimTemplates {
		name := set.Spec.VolumeClaimTemplates[i].Name
		claimed[name] = true
		volumes = append(volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(set, name, n)},
		}})
	}
	for _, v := range p.Spec.Volumes {
		if !claimed[v.Name] {
			volumes = append(volumes, v)
		}
	}
	p.Spec.Volumes = volumes
	return p
}

// identify a pod by the labels that say which one it is.
func identify(set *appsv1.StatefulSet, p *corev1.Pod, n int) {
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[appsv1.StatefulSetPodNameLabel] = podName(set, n)
	p.Labels[appsv1.PodIndexLabel] = strconv.Itoa(n)
}

// claimsOf an ordinal, as they are to be created.
func claimsOf(set *appsv1.StatefulSet, n int) []*corev1.PersistentVolumeClaim {
	var all []*corev1.PersistentVolumeClaim
	for i := range set.Spec.VolumeClaimTemplates {
		c := set.Spec.VolumeClaimTemplates[i].DeepCopy()
		c.Name, c.Namespace = claimName(set, c.Name, n), set.Namespace
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		maps.Copy(c.Labels, set.Spec.Selector.MatchLabels)
		c.Status = corev1.PersistentVolumeClaimStatus{}
		all = append(all, c)
	}
	return all
}

// ownersOf a claim as the set's retention policy wants them (KEP-1847): the set
// when the claim goes with it, the pod (nil while it is not known) when the claim
// goes because the set has shrunk. Owners of other kinds are left alone.
func ownersOf(set *appsv1.StatefulSet, claim *corev1.PersistentVolumeClaim, pod *corev1.Pod, shrunk bool) (refs []metav1.OwnerReference, changed bool) {
	policy := appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
		WhenDeleted: appsv1.RetainPersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.RetainPersistentVolumeClaimRetentionPolicyType,
	}
	if set.Spec.PersistentVolumeClaimRetentionPolicy != nil {
		policy = *set.Spec.PersistentVolumeClaimRetentionPolicy
	}
	goes := appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	toPod := policy.WhenScaled == goes && shrunk && pod != nil
	toSet := policy.WhenDeleted == goes && !(policy.WhenScaled == goes && shrunk)
	foreign := slices.ContainsFunc(claim.OwnerReferences, func(r metav1.OwnerReference) bool {
		return r.Controller != nil && *r.Controller && r.Kind != "Pod" && r.UID != set.UID
	})
	if foreign {
		return nil, false
	}
	for _, r := range claim.OwnerReferences {
		ofSet := r.Kind == gvk.Kind && r.Name == set.Name
		ofPod := r.Kind == "Pod" && strings.HasPrefix(r.Name, set.Name+"-")
		switch {
		case ofSet && r.UID == set.UID && toSet:
			toSet = false
		case ofPod && toPod && r.UID == pod.UID:
			toPod = false
		case ofSet || ofPod:
			changed = true
			continue
		}
		refs = append(refs, r)
	}
	if toSet {
		refs, changed = append(refs, owned.Ref(set, gvk)), true
	}
	if toPod {
		refs, changed = append(refs, owned.Ref(pod, corev1.SchemeGroupVersion.WithKind("Pod"))), true
	}
	return refs, changed
}

// ordinalOfClaim is the number at the end of a claim's name.
func ordinalOfClaim(name string) int {
	n, _ := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
	return n
}
