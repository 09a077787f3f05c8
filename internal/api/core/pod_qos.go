package core

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	podresource "k8s.io/component-helpers/resource"

	"github.com/proa-dev/proa/internal/api/validate"
)

// podQOS is Guaranteed if every container's cpu and memory are limited and
// requested alike, BestEffort if nothing is asked for, else Burstable. What the
// pod asks for as a whole counts instead of its containers (KEP-2837).
func podQOS(p *corev1.Pod) corev1.PodQOSClass {
	var ask, limit [2]resource.Quantity // cpu, memory
	names := [2]corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}
	guaranteed := true
	count := func(r *corev1.ResourceRequirements) {
		for i, name := range names {
			if q, ok := r.Requests[name]; ok && q.Sign() > 0 {
				ask[i].Add(q)
			}
			if q, ok := r.Limits[name]; ok && q.Sign() > 0 {
				limit[i].Add(q)
			} else {
				guaranteed = false
			}
		}
	}
	if podresource.IsPodLevelResourcesSet(p) {
		count(p.Spec.Resources)
	} else {
		for _, list := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
			for i := range list {
				count(&list[i].Resources)
			}
		}
	}
	asks := false
	for i := range names {
		asks = asks || !ask[i].IsZero() || !limit[i].IsZero()
		guaranteed = guaranteed && ask[i].Cmp(limit[i]) == 0
	}
	switch {
	case !asks:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// appArmorFromAnnotations copies the old annotation into the field where the
// container has none of its own and the pod's differs.
func appArmorFromAnnotations(p *corev1.Pod) {
	if len(p.Annotations) == 0 || p.Spec.OS != nil && p.Spec.OS.Name == corev1.Windows {
		return
	}
	eachContainer(&p.Spec, func(_ string, _ int, c *corev1.Container) {
		a, ok := p.Annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name]
		if !ok || c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
			return
		}
		profile := appArmorProfile(a)
		var e validate.Errs
		appArmor(&e, profile, nil)
		var ofPod *corev1.AppArmorProfile
		if p.Spec.SecurityContext != nil {
			ofPod = p.Spec.SecurityContext.AppArmorProfile
		}
		if profile == nil || e.Len() > 0 || apiequality.Semantic.DeepEqual(profile, ofPod) {
			return
		}
		if c.SecurityContext == nil {
			c.SecurityContext = &corev1.SecurityContext{}
		}
		c.SecurityContext.AppArmorProfile = profile
	})
}

func appArmorProfile(annotation string) *corev1.AppArmorProfile {
	file, local := strings.CutPrefix(annotation, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
	switch {
	case annotation == corev1.DeprecatedAppArmorBetaProfileNameUnconfined:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
	case annotation == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
	case local && file != "":
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &file}
	}
	return nil
}
