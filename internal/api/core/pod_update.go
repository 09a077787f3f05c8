package core

import (
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/validate"
)

func validatePod(e *validate.Errs, p, old *corev1.Pod, sub string) {
	spec, meta := validate.Root("spec"), validate.Root("metadata").Child("annotations")
	var was *corev1.PodSpec
	var annotations map[string]string
	if old != nil {
		was, annotations = &old.Spec, old.Annotations
	}
	if sub == "status" {
		fixedAnnotations(e, p.Annotations, annotations, meta)
		podAnnotations(e, p.Annotations, annotations, &p.Spec, meta)
		podStatus(e, p, old)
		return
	}
	podAnnotations(e, p.Annotations, annotations, &p.Spec, meta)
	c := specCheck{e: e, spec: &p.Spec, old: was, meta: &p.ObjectMeta, pod: true}
	c.run(spec)
	if old == nil {
		if len(p.Spec.EphemeralContainers) > 0 {
			e.Forbidden(spec.Child("ephemeralContainers"), "cannot be set on create")
		}
		if p.Spec.NodeName != "" && len(p.Spec.SchedulingGates) > 0 {
			e.Forbidden(spec.Child("nodeName"), "cannot be set until all schedulingGates have been cleared")
		}
		annotationsAgree(e, p.Annotations, &p.Spec, spec)
		return
	}
	_, mirror := old.Annotations[corev1.MirrorPodAnnotationKey]
	switch sub {
	case "ephemeralcontainers":
		fixedAnnotations(e, p.Annotations, old.Annotations, meta)
		if mirror {
			e.Forbidden(validate.Root(""), "static pods do not support ephemeral containers")
			return
		}
		ephemeralOnlyAdded(e, p, old)
	case "resize":
		if mirror {
			e.Forbidden(validate.Root(""), "static pods cannot be resized")
			return
		}
		resizePod(e, p, old)
	default:
		fixedAnnotations(e, p.Annotations, old.Annotations, meta)
		updatePod(e, p, old, spec)
	}
}

// updatePod: of a pod's spec only a few fields can change.
func updatePod(e *validate.Errs, p, old *corev1.Pod, spec *validate.Path) {
	for _, list := range []struct {
		name     string
		now, old []corev1.Container
	}{{"containers", p.Spec.Containers, old.Spec.Containers}, {"initContainers", p.Spec.InitContainers, old.Spec.InitContainers}} {
		if len(list.now) != len(list.old) {
			e.Forbidden(spec.Child(list.name), "pod updates may not add or remove containers")
			return
		}
	}
	now, was := p.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds
	deadline := spec.Child("activeDeadlineSeconds")
	switch {
	case now == nil && was != nil:
		e.Invalid(deadline, now, "must not update from a positive integer to nil value")
	case now != nil && (*now < 0 || *now > math.MaxInt32):
		e.Invalid(deadline, *now, validation.InclusiveRangeError(0, math.MaxInt32))
		return
	case now != nil && was != nil && *was < *now:
		e.Invalid(deadline, *now, "must be less than or equal to previous value")
		return
	}
	if !reset.Differ(&p.Spec, &old.Spec) {
		return
	}
	tolerationsOnlyAdded(e, p.Spec.Tolerations, old.Spec.Tolerations, spec.Child("tolerations"))
	gatesOnlyRemoved(e, p.Spec.SchedulingGates, old.Spec.SchedulingGates, spec.Child("schedulingGates"))

	// With the fields put back that may change, nothing must differ.
	same := *p.Spec.DeepCopy()
	for i := range same.Containers {
		same.Containers[i].Image = old.Spec.Containers[i].Image
	}
	for i := range same.InitContainers {
		same.InitContainers[i].Image = old.Spec.InitContainers[i].Image
	}
	same.ActiveDeadlineSeconds = old.Spec.ActiveDeadlineSeconds
	same.SchedulingGates = old.Spec.SchedulingGates
	same.Tolerations = old.Spec.Tolerations
	if g, o := same.TerminationGracePeriodSeconds, old.Spec.TerminationGracePeriodSeconds; g != nil && o != nil && *o < 0 && *g == 1 {
		same.TerminationGracePeriodSeconds = o
	}
	if len(old.Spec.SchedulingGates) > 0 {
		narrowGated(e, &same, &old.Spec, spec)
	}
	if !apiequality.Semantic.DeepEqual(same, old.Spec) {
		e.Forbidden(spec, "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"+
			"`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"+
			diff.Diff(old.Spec, same))
	}
}

func tolerationsOnlyAdded(e *validate.Errs, now, old []corev1.Toleration, p *validate.Path) {
	for i := range old {
		found := false
		for j := range now {
			o, n := old[i], now[j]
			o.TolerationSeconds, n.TolerationSeconds = nil, nil
			found = found || o == n
		}
		if !found {
			e.Forbidden(p, "existing toleration can not be modified except its tolerationSeconds")
			return
		}
	}
}

func gatesOnlyRemoved(e *validate.Errs, now, old []corev1.PodSchedulingGate, p *validate.Path) {
	var had seen[string]
	for _, g := range old {
		had.add(g.Name)
	}
	for i := len(now) - 1; i >= 0; i-- {
		if g := now[i]; had.add(g.Name) {
			e.Forbidden(p.Index(i).Child("name"), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", g.Name))
		}
	}
}

// narrowGated: where a gated pod may go can be narrowed (KEP-3838).
func narrowGated(e *validate.Errs, s, old *corev1.PodSpec, p *validate.Path) {
	for k, v := range old.NodeSelector {
		if w, ok := s.NodeSelector[k]; !ok || w != v {
			e.Invalid(p.Child("nodeSelector"), s.NodeSelector, "only additions to spec.nodeSelector are allowed (no mutations or deletions)")
			break
		}
	}
	s.NodeSelector = old.NodeSelector

	var now, was *corev1.NodeAffinity
	if s.Affinity != nil {
		now = s.Affinity.NodeAffinity
	}
	if old.Affinity != nil {
		was = old.Affinity.NodeAffinity
	}
	if apiequality.Semantic.DeepEqual(now, was) {
		return
	}
	narrowAffinity(e, now, was, p.Child("affinity").Child("nodeAffinity"))
	switch {
	case s.Affinity == nil && was != nil:
		s.Affinity = &corev1.Affinity{NodeAffinity: was}
	case s.Affinity != nil && old.Affinity == nil && s.Affinity.PodAffinity == nil && s.Affinity.PodAntiAffinity == nil:
		s.Affinity = nil
	case s.Affinity != nil:
		s.Affinity.NodeAffinity = was
	}
}

func narrowAffinity(e *validate.Errs, now, old *corev1.NodeAffinity, p *validate.Path) {
	if old == nil || old.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return
	}
	at := p.Child("requiredDuringSchedulingIgnoredDuringExecution").Child("nodeSelectorTerms")
	was := old.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	var terms []corev1.NodeSelectorTerm
	if now != nil && now.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		terms = now.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	}
	if len(was) > 0 && len(was) != len(terms) {
		e.Invalid(at, terms, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")
		return
	}
	extends := func(now, old []corev1.NodeSelectorRequirement) bool {
		return len(now) >= len(old) && apiequality.Semantic.DeepEqual(now[:len(old)], old)
	}
	for i := range was {
		empty := len(was[i].MatchExpressions)+len(was[i].MatchFields) == 0
		if empty && len(terms[i].MatchExpressions)+len(terms[i].MatchFields) > 0 ||
			!extends(terms[i].MatchExpressions, was[i].MatchExpressions) || !extends(terms[i].MatchFields, was[i].MatchFields) {
			e.Invalid(at.Index(i), terms[i], "only additions are allowed (no mutations or deletions)")
		}
	}
}

func ephemeralOnlyAdded(e *validate.Errs, p, old *corev1.Pod) {
	at := validate.Root("spec").Child("ephemeralContainers")
	for i := range old.Spec.EphemeralContainers {
		was := &old.Spec.EphemeralContainers[i]
		var now *corev1.EphemeralContainer
		for j := range p.Spec.EphemeralContainers {
			if p.Spec.EphemeralContainers[j].Name == was.Name {
				now = &p.Spec.EphemeralContainers[j]
			}
		}
		if now == nil {
			e.Forbidden(at, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", was.Name))
		} else if !apiequality.Semantic.DeepEqual(was, now) {
			e.Forbidden(at, fmt.Sprintf("existing ephemeral containers %q may not be changed\n%v", was.Name, diff.Diff(*was, *now)))
		}
	}
}

// resizePod: only cpu and memory, of what is there (KEP-1287).
func resizePod(e *validate.Errs, p, old *corev1.Pod) {
	spec := validate.Root("spec")
	if old.Spec.OS != nil && old.Spec.OS.Name == corev1.Windows {
		e.Forbidden(validate.Root(""), "windows pods cannot be resized")
		return
	}
	qos := old.Status.QOSClass
	if qos == "" {
		qos = podQOS(old)
	}
	if qos != podQOS(p) {
		e.Invalid(spec, p.Status.QOSClass, "Pod QOS Class may not change as a result of resizing")
	}
	for i := range old.Status.ContainerStatuses {
		if s := &old.Status.ContainerStatuses[i]; s.State.Running != nil {
			if s.Resources == nil {
				e.Forbidden(spec, "Pod running on node without support for resize")
			}
			break
		}
	}
	same := *p.Spec.DeepCopy()
	if asksForPod(old) || asksForPod(p) {
		resizeWhole(e, p, old, &same, spec)
	}
	if len(old.Status.NodeAllocatableResourceClaimStatuses) > 0 {
		e.Forbidden(spec, "pods with node allocatable resource claims cannot be resized")
	}
	if !sameContainers(e, p.Spec.Containers, old.Spec.Containers, "containers", spec) || !sameContainers(e, p.Spec.InitContainers, old.Spec.InitContainers, "initContainers", spec) {
		return
	}
	for i := range old.Spec.InitContainers {
		if isSidecar(&old.Spec.InitContainers[i]) {
			noneRemoved(e, &p.Spec.InitContainers[i].Resources, &old.Spec.InitContainers[i].Resources, spec.Child("initContainers").Index(i).Child("resources"))
		}
	}
	for i := range old.Spec.Containers {
		noneRemoved(e, &p.Spec.Containers[i].Resources, &old.Spec.Containers[i].Resources, spec.Child("containers").Index(i).Child("resources"))
	}
	for i := range same.Containers {
		putBackCPUAndMemory(&same.Containers[i].Resources, &old.Spec.Containers[i].Resources)
		same.Containers[i].Resources.Claims = nil
		if !apiequality.Semantic.DeepEqual(same.Containers[i], old.Spec.Containers[i]) {
			e.Forbidden(spec, "only cpu and memory resources are mutable")
		}
	}
	for i := range same.InitContainers {
		c, was := &same.InitContainers[i], &old.Spec.InitContainers[i]
		if isSidecar(c) {
			putBackCPUAndMemory(&c.Resources, &was.Resources)
			c.Resources.Claims = nil
			if !apiequality.Semantic.DeepEqual(c, was) {
				e.Forbidden(spec.Child("initContainers").Index(i), "only cpu and memory resources for init or sidecar containers are mutable")
			}
		} else if !apiequality.Semantic.DeepEqual(c, was) {
			e.Forbidden(spec, "resources for non-sidecar init containers are immutable")
		}
	}
	if e.Len() == 0 && !apiequality.Semantic.DeepEqual(same, old.Spec) {
		e.Forbidden(spec, "only cpu and memory resources are mutable")
	}
}

func asksForPod(p *corev1.Pod) bool {
	return p.Spec.Resources != nil && len(p.Spec.Resources.Requests)+len(p.Spec.Resources.Limits) > 0
}

func resizeWhole(e *validate.Errs, p, old *corev1.Pod, same *corev1.PodSpec, spec *validate.Path) {
	at := spec.Child("resources")
	was := old.Spec.Resources
	if was != nil {
		if p.Spec.Resources == nil {
			e.Forbidden(at, "pod-level resources cannot be removed")
			return
		}
		if removed(p.Spec.Resources.Requests, was.Requests) {
			e.Forbidden(at.Child("requests"), "pod-level resource requests cannot be removed")
		}
		if removed(p.Spec.Resources.Limits, was.Limits) {
			e.Forbidden(at.Child("limits"), "pod-level resource limits cannot be removed")
		}
	}
	if same.Resources != nil {
		before := was
		if before == nil {
			before = &corev1.ResourceRequirements{}
		}
		putBackCPUAndMemory(same.Resources, before)
		if r := same.Resources; was == nil && len(r.Requests)+len(r.Limits)+len(r.Claims) == 0 {
			same.Resources = nil
		}
	}
	if !apiequality.Semantic.DeepEqual(same.Resources, was) {
		e.Forbidden(spec, "only cpu and memory resources are mutable at pod-level")
	}
}

func sameContainers(e *validate.Errs, now, old []corev1.Container, name string, spec *validate.Path) bool {
	if len(now) != len(old) {
		e.Forbidden(spec.Child(name), name+" may not be added or removed on resize")
		return false
	}
	same := true
	for i := range now {
		if now[i].Name != old[i].Name {
			e.Forbidden(spec.Child(name).Index(i).Child("name"), name+" may not be renamed or reordered on resize")
			same = false
		}
	}
	return same
}

func noneRemoved(e *validate.Errs, now, old *corev1.ResourceRequirements, p *validate.Path) {
	if removed(now.Requests, old.Requests) {
		e.Forbidden(p.Child("requests"), "resource requests cannot be removed")
	}
	if removed(now.Limits, old.Limits) {
		e.Forbidden(p.Child("limits"), "resource limits cannot be removed")
	}
}

func removed(now, old corev1.ResourceList) bool {
	for name := range old {
		if _, there := now[name]; !there {
			return true
		}
	}
	return false
}

func putBackCPUAndMemory(r, old *corev1.ResourceRequirements) {
	put := func(list *corev1.ResourceList, was corev1.ResourceList) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			delete(*list, name)
			if q, ok := was[name]; ok {
				if *list == nil {
					*list = corev1.ResourceList{}
				}
				(*list)[name] = q
			}
		}
	}
	put(&r.Limits, old.Limits)
	put(&r.Requests, old.Requests)
}
