package quota

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helper "k8s.io/component-helpers/resource"
	"k8s.io/utils/ptr"
)

// podUsage: ended pods, and those that should long be gone, count as objects only.
func podUsage(p *corev1.Pod, now time.Time) corev1.ResourceList {
	if p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		return nil
	}
	if p.DeletionTimestamp != nil && p.DeletionGracePeriodSeconds != nil &&
		now.After(p.DeletionTimestamp.Add(time.Duration(*p.DeletionGracePeriodSeconds)*time.Second)) {
		return nil
	}
	opts := helper.PodResourcesOptions{UseStatusResources: true}
	use := named(helper.PodRequests(p, opts), helper.PodLimits(p, opts))
	use[corev1.ResourcePods] = *one()
	return use
}

// named gives requests and limits the names that quotas have for them.
func named(requests, limits corev1.ResourceList) corev1.ResourceList {
	use := corev1.ResourceList{}
	for name, v := range requests {
		switch {
		case name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix):
			use[name], use["requests."+name] = v, v
		case strings.Contains(string(name), "/"):
			use["requests."+name] = v
		}
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if v, ok := limits[name]; ok {
			use["limits."+name] = v
		}
	}
	return use
}

// mustBeSet are the resources that, once a quota limits them, every container has
// to name.
var mustBeSet = []corev1.ResourceName{
	corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory,
}

// Missing says what a new pod's containers leave open although the quota limits
// it: "must specify limits.cpu for: a,b; …". "" = nothing.
func Missing(q *corev1.ResourceQuota, p *corev1.Pod) string {
	if r := p.Spec.Resources; r != nil && len(r.Requests)+len(r.Limits) > 0 {
		return ""
	}
	var parts []string
	for name := range q.Spec.Hard {
		if !slices.Contains(mustBeSet, name) {
			continue
		}
		var without []string
		for _, list := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
			for i := range list {
				if _, ok := named(list[i].Resources.Requests, list[i].Resources.Limits)[name]; !ok {
					without = append(without, list[i].Name)
				}
			}
		}
		if len(without) > 0 {
			slices.Sort(without)
			parts = append(parts, fmt.Sprintf("%s for: %s", name, strings.Join(slices.Compact(without), ",")))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	slices.Sort(parts)
	return "must specify " + strings.Join(parts, "; ")
}

func serviceUsage(s *corev1.Service) corev1.ResourceList {
	ports, balancers := 0, 0
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		ports = len(s.Spec.Ports)
	case corev1.ServiceTypeLoadBalancer:
		balancers, ports = 1, len(s.Spec.Ports)
		if !ptr.Deref(s.Spec.AllocateLoadBalancerNodePorts, true) {
			ports = 0
			for i := range s.Spec.Ports {
				if s.Spec.Ports[i].NodePort != 0 {
					ports++
				}
			}
		}
	}
	return corev1.ResourceList{
		corev1.ResourceServices: *one(), corev1.ResourceServicesNodePorts: *number(ports), corev1.ResourceServicesLoadBalancers: *number(balancers),
	}
}

const classSuffix = ".storageclass.storage.k8s.io/"

func claimUsage(c *corev1.PersistentVolumeClaim) corev1.ResourceList {
	use := corev1.ResourceList{corev1.ResourcePersistentVolumeClaims: *one()}
	class := c.Annotations[corev1.BetaStorageClassAnnotation]
	if class == "" {
		class = ptr.Deref(c.Spec.StorageClassName, "")
	}
	if class != "" {
		use[corev1.ResourceName(class+classSuffix+"persistentvolumeclaims")] = *one()
	}
	if v, ok := storage(c); ok {
		use[corev1.ResourceRequestsStorage] = v
		if class != "" {
			use[corev1.ResourceName(class+classSuffix+"requests.storage")] = v
		}
	}
	return use
}

// storage that a claim asks for, or has been given if that is more.
func storage(c *corev1.PersistentVolumeClaim) (resource.Quantity, bool) {
	v, ok := c.Spec.Resources.Requests[corev1.ResourceStorage]
	if given, is := c.Status.AllocatedResources[corev1.ResourceStorage]; is && given.Cmp(v) > 0 {
		return given, true
	}
	return v, ok
}

func podInScope(p *corev1.Pod, s corev1.ScopedResourceSelectorRequirement) bool {
	switch s.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return p.Spec.ActiveDeadlineSeconds != nil
	case corev1.ResourceQuotaScopeNotTerminating:
		return p.Spec.ActiveDeadlineSeconds == nil
	case corev1.ResourceQuotaScopeBestEffort:
		return bestEffort(p)
	case corev1.ResourceQuotaScopeNotBestEffort:
		return !bestEffort(p)
	case corev1.ResourceQuotaScopePriorityClass:
		return selects(s, p.Spec.PriorityClassName)
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return crossNamespace(p)
	}
	return false
}

func claimInScope(c *corev1.PersistentVolumeClaim, s corev1.ScopedResourceSelectorRequirement) bool {
	if s.ScopeName != corev1.ResourceQuotaScopeVolumeAttributesClass {
		return false
	}
	names := []string{ptr.Deref(c.Spec.VolumeAttributesClassName, ""), ptr.Deref(c.Status.CurrentVolumeAttributesClassName, "")}
	return slices.ContainsFunc(names, func(n string) bool { return selects(s, n) })
}

// selects says whether a scope's expression is true of a name, "" = none.
func selects(s corev1.ScopedResourceSelectorRequirement, name string) bool {
	switch s.Operator {
	case corev1.ScopeSelectorOpExists:
		return name != ""
	case corev1.ScopeSelectorOpDoesNotExist:
		return name == ""
	case corev1.ScopeSelectorOpIn:
		return name != "" && slices.Contains(s.Values, name)
	case corev1.ScopeSelectorOpNotIn:
		return !slices.Contains(s.Values, name)
	}
	return false
}

// bestEffort: no container asks for, or is limited in, CPU or memory.
func bestEffort(p *corev1.Pod) bool {
	none := func(r *corev1.ResourceRequirements) bool {
		for _, list := range []corev1.ResourceList{r.Requests, r.Limits} {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				if v, ok := list[name]; ok && v.Sign() > 0 {
					return false
				}
			}
		}
		return true
	}
	if p.Spec.Resources != nil && !none(p.Spec.Resources) {
		return false
	}
	for _, list := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for i := range list {
			if !none(&list[i].Resources) {
				return false
			}
		}
	}
	return true
}

func crossNamespace(p *corev1.Pod) bool {
	if p.Spec.Affinity == nil {
		return false
	}
	far := func(t *corev1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil }
	any := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) bool {
		return slices.ContainsFunc(required, func(t corev1.PodAffinityTerm) bool { return far(&t) }) ||
			slices.ContainsFunc(preferred, func(t corev1.WeightedPodAffinityTerm) bool { return far(&t.PodAffinityTerm) })
	}
	a, b := p.Spec.Affinity.PodAffinity, p.Spec.Affinity.PodAntiAffinity
	return a != nil && any(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution) ||
		b != nil && any(b.RequiredDuringSchedulingIgnoredDuringExecution, b.PreferredDuringSchedulingIgnoredDuringExecution)
}
