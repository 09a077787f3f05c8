package core

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/api/validate"
)

const podDeletionCost = "controller.kubernetes.io/pod-deletion-cost"

// podAnnotations checks those annotations that mean something to Kubernetes.
func podAnnotations(e *validate.Errs, annotations, old map[string]string, s *corev1.PodSpec, p *validate.Path) {
	for k, v := range annotations {
		switch {
		case k == corev1.MirrorPodAnnotationKey:
			if s.NodeName == "" {
				e.Invalid(p.Key(k), v, "must set spec.nodeName if mirror pod annotation is set")
			}
		case k == corev1.TolerationsAnnotationKey && v != "":
			var list []corev1.Toleration
			if err := json.Unmarshal([]byte(v), &list); err != nil {
				e.Invalid(p, k, err.Error())
			} else {
				tolerations(e, list, p.Child(k))
			}
		case k == podDeletionCost:
			if !isDeletionCost(v) && isDeletionCost(old[k]) {
				e.Invalid(p.Key(k), v, "must be a 32bit integer")
			}
		case k == corev1.SeccompPodAnnotationKey, strings.HasPrefix(k, corev1.SeccompContainerAnnotationKeyPrefix):
			switch file, local := strings.CutPrefix(v, corev1.SeccompLocalhostProfileNamePrefix); {
			case v == corev1.SeccompProfileRuntimeDefault, v == corev1.DeprecatedSeccompProfileDockerDefault, v == corev1.SeccompProfileNameUnconfined:
			case local:
				descending(e, file, p.Child(k))
			default:
				e.Invalid(p.Child(k), v, "must be a valid seccomp profile")
			}
		case strings.HasPrefix(k, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix):
			name := strings.TrimPrefix(k, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix)
			found := false
			eachContainer(s, func(_ string, _ int, c *corev1.Container) { found = found || c.Name == name })
			if !found {
				e.Invalid(p.Key(k), name, "container not found")
			}
			if v != "" && v != corev1.DeprecatedAppArmorBetaProfileRuntimeDefault && v != corev1.DeprecatedAppArmorBetaProfileNameUnconfined &&
				!strings.HasPrefix(v, corev1.DeprecatedAppArmorBetaProfileNamePrefix) {
				e.Invalid(p.Key(k), v, fmt.Sprintf("invalid AppArmor profile name: %q", v))
			}
		}
	}
}

// isDeletionCost: a number without needless zeros or signs; absent is good.
func isDeletionCost(v string) bool {
	if v == "" {
		return true
	}
	if (v[0] < '0' || v[0] > '9') && v[0] != '-' || v[0] == '0' && len(v) > 1 {
		return false
	}
	_, err := strconv.ParseInt(v, 10, 32)
	return err == nil
}

// fixedAnnotations: AppArmor's and the mirror pod's cannot be touched later.
func fixedAnnotations(e *validate.Errs, now, old map[string]string, p *validate.Path) {
	armor := corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix
	for k, v := range old {
		if w, there := now[k]; there && w == v {
			continue
		}
		if strings.HasPrefix(k, armor) {
			e.Forbidden(p.Key(k), "may not remove or update AppArmor annotations")
		}
		if k == corev1.MirrorPodAnnotationKey {
			e.Forbidden(p.Key(k), "may not remove or update mirror pod annotation")
		}
	}
	for k := range now {
		if _, there := old[k]; there {
			continue
		}
		if strings.HasPrefix(k, armor) {
			e.Forbidden(p.Key(k), "may not add AppArmor annotations")
		}
		if k == corev1.MirrorPodAnnotationKey {
			e.Forbidden(p.Key(k), "may not add mirror pod annotation")
		}
	}
}

// annotationsAgree: who gives a profile in the old annotation and in the field
// gives the same.
func annotationsAgree(e *validate.Errs, annotations map[string]string, s *corev1.PodSpec, at *validate.Path) {
	if len(annotations) == 0 {
		return
	}
	agree := func(what, annotation, unconfined, runtime, prefix, typ string, file *string, p *validate.Path) {
		switch typ {
		case "Unconfined":
			if annotation != unconfined {
				e.Forbidden(p.Child("type"), what+" type in annotation and field must match")
			}
		case "RuntimeDefault":
			if annotation != runtime && !(what == "seccomp" && annotation == corev1.DeprecatedSeccompProfileDockerDefault) {
				e.Forbidden(p.Child("type"), what+" type in annotation and field must match")
			}
		case "Localhost":
			if !strings.HasPrefix(annotation, prefix) {
				e.Forbidden(p.Child("type"), what+" type in annotation and field must match")
			} else if file == nil || strings.TrimPrefix(annotation, prefix) != *file {
				e.Forbidden(p.Child("localhostProfile"), what+" profile in annotation and field must match")
			}
		}
	}
	secc := func(annotation string, profile *corev1.SeccompProfile, p *validate.Path) {
		agree("seccomp", annotation, corev1.SeccompProfileNameUnconfined, corev1.SeccompProfileRuntimeDefault, corev1.SeccompLocalhostProfileNamePrefix, string(profile.Type), profile.LocalhostProfile, p)
	}
	var ofPod *corev1.AppArmorProfile
	if sc := s.SecurityContext; sc != nil {
		ofPod = sc.AppArmorProfile
		if a, ok := annotations[corev1.SeccompPodAnnotationKey]; ok && sc.SeccompProfile != nil {
			secc(a, sc.SeccompProfile, at.Child("securityContext").Child("seccompProfile"))
		}
	}
	eachContainer(s, func(kind string, i int, c *corev1.Container) {
		at, profile := at.Child(kind).Index(i).Child("securityContext"), ofPod
		if sc := c.SecurityContext; sc != nil {
			if a, ok := annotations[corev1.SeccompContainerAnnotationKeyPrefix+c.Name]; ok && sc.SeccompProfile != nil {
				secc(a, sc.SeccompProfile, at.Child("seccompProfile"))
			}
			if sc.AppArmorProfile != nil {
				profile = sc.AppArmorProfile
			}
		}
		a, ok := annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name]
		if ok && profile != nil && (s.OS == nil || s.OS.Name != corev1.Windows) {
			agree("apparmor", a, corev1.DeprecatedAppArmorBetaProfileNameUnconfined, corev1.DeprecatedAppArmorBetaProfileRuntimeDefault,
				corev1.DeprecatedAppArmorBetaProfileNamePrefix, string(profile.Type), profile.LocalhostProfile, at.Child("appArmorProfile"))
		}
	})
}
