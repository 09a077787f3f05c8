package core

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podresource "k8s.io/component-helpers/resource"

	"github.com/proa-dev/proa/internal/api/validate"
)

func isHugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// isNative: Kubernetes' own, without a domain or with kubernetes.io in it.
func isNative(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// isExtended: a device's, whose quota name ("requests.NAME") is good as well.
func isExtended(name corev1.ResourceName) bool {
	return !isNative(name) && !strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) &&
		validate.QualifiedName(corev1.DefaultResourceRequestsPrefix+string(name)) == nil
}

func overcommits(name corev1.ResourceName) bool { return isNative(name) && !isHugePages(name) }

// isCounted: an object count, in whole numbers.
func isCounted(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers,
		corev1.ResourceSecrets, corev1.ResourceConfigMaps, corev1.ResourcePersistentVolumeClaims,
		corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers:
		return true
	}
	return false
}

// isQuotaResource: what a quota without a domain in its name may limit.
func isQuotaResource(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsStorage, corev1.ResourceRequestsEphemeralStorage,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage:
		return true
	}
	return isCounted(name) || isHugePages(name) || strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix)
}

// resourceName requires one that is standard, or has a domain.
func resourceName(e *validate.Errs, name corev1.ResourceName, p *validate.Path) {
	if why := validate.QualifiedName(string(name)); why != nil {
		e.Invalids(p, name, why)
	} else if !strings.Contains(string(name), "/") && name != corev1.ResourceStorage && !isQuotaResource(name) {
		e.Invalid(p, name, "must be a standard resource type or fully qualified")
	}
}

func containerResourceName(e *validate.Errs, name corev1.ResourceName, p *validate.Path) {
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return
	}
	resourceName(e, name, p)
	if !strings.Contains(string(name), "/") {
		if !isHugePages(name) {
			e.Invalid(p, name, "must be a standard resource for containers")
		}
	} else if !isNative(name) && !isExtended(name) {
		e.Invalid(p, name, "doesn't follow extended resource name standard")
	}
}

func podResourceName(e *validate.Errs, name corev1.ResourceName, p *validate.Path) {
	n := e.Len()
	resourceName(e, name, p)
	if e.Len() == n && !podresource.IsSupportedPodLevelResource(name) {
		supported := podresource.SupportedPodLevelResources().UnsortedList()
		sort.Slice(supported, func(i, j int) bool { return supported[i] < supported[j] })
		validate.NotSupported(e, p, name, supported...)
	}
}

// resourceQuantity requires a quantity ≥ 0, whole where things are counted.
func resourceQuantity(e *validate.Errs, name corev1.ResourceName, q resource.Quantity, p *validate.Path) {
	if q.Sign() < 0 {
		e.Invalid(p, q.String(), validate.NotNegative)
	}
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory:
		return
	}
	if (isCounted(name) || isExtended(name)) && q.MilliValue()%1000 != 0 {
		e.Invalid(p, q, "must be an integer")
	}
}

// basicQuantity is what capacities have to be.
func basicQuantity(e *validate.Errs, q resource.Quantity, p *validate.Path) {
	if q.Value() < 0 {
		e.Invalid(p, q.Value(), "must be a valid resource quantity")
	}
}

func positiveQuantity(e *validate.Errs, q resource.Quantity, p *validate.Path) {
	if q.Sign() <= 0 {
		e.Invalid(p, q.String(), "must be greater than zero")
	}
}

func hugePagesFit(name corev1.ResourceName, q resource.Quantity) bool {
	size, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
	if err != nil || size.Sign() <= 0 || size.MilliValue()%1000 != 0 {
		return false
	}
	return q.Value()%size.Value() == 0
}

// resources checks requests and limits of a container, or of the pod.
func (c *specCheck) resources(r *corev1.ResourceRequirements, ofPod bool, p *validate.Path) {
	e := c.e
	common, huge := false, false
	check := func(name corev1.ResourceName, q resource.Quantity, p *validate.Path) {
		if ofPod {
			podResourceName(e, name, p)
		} else {
			containerResourceName(e, name, p)
		}
		resourceQuantity(e, name, q, p)
		if isHugePages(name) {
			huge = true
			if !hugePagesFit(name, q) && !oddHugePages(c.old) {
				e.Invalid(p, q.String(), fmt.Sprintf("%s is not positive integer multiple of %s", q.String(), name))
			}
		}
		common = common || name == corev1.ResourceCPU || name == corev1.ResourceMemory
	}
	for name, q := range r.Limits {
		check(name, q, p.Child("limits").Key(string(name)))
	}
	for name, q := range r.Requests {
		check(name, q, p.Child("requests").Key(string(name)))
		limit, limited := r.Limits[name]
		switch {
		case limited && !overcommits(name) && q.Cmp(limit) != 0:
			e.Invalid(p.Child("requests"), q.String(), fmt.Sprintf("must be equal to %s limit of %s", name, limit.String()))
		case limited && q.Cmp(limit) > 0:
			e.Invalid(p.Child("requests"), q.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", name, limit.String()))
		case !limited && !overcommits(name):
			e.Required(p.Child("limits"), "Limit must be set for non overcommitable resources")
		}
	}
	if huge && !common {
		e.Forbidden(p, "HugePages require cpu or memory")
	}
	c.usedClaims(r.Claims, p.Child("claims"))
}

// oddHugePages: the old spec has huge pages that are no multiple of their size.
func oddHugePages(s *corev1.PodSpec) bool {
	odd := false
	if s != nil {
		eachContainer(s, func(_ string, _ int, ctr *corev1.Container) {
			for _, list := range []corev1.ResourceList{ctr.Resources.Limits, ctr.Resources.Requests} {
				for name, q := range list {
					odd = odd || isHugePages(name) && !hugePagesFit(name, q)
				}
			}
		})
	}
	return odd
}

// usedClaims: each entry is a claim of the pod, or one request of it, and is
// named once.
func (c *specCheck) usedClaims(claims []corev1.ResourceClaim, p *validate.Path) {
	used := map[string]bool{}
	for i, claim := range claims {
		at := p.Index(i)
		if claim.Name == "" {
			c.e.Required(at, "")
			continue
		}
		if used[claim.Name] {
			c.e.Duplicate(at, claim.Name)
		} else {
			key := claim.Name
			if claim.Request != "" {
				label(c.e, claim.Request, at.Child("request"))
				key += "/" + claim.Request
			}
			if used[key] {
				c.e.Duplicate(at, key)
			} else if claim.Request == "" {
				for other := range used {
					if name, _, part := strings.Cut(other, "/"); part && name == claim.Name {
						c.e.Duplicate(at, claim.Name)
					}
				}
			}
			used[key] = true
		}
		var names []string
		found := false
		for _, pc := range c.spec.ResourceClaims {
			found = found || pc.Name == claim.Name
			if pc.Name != "" && !slices.Contains(names, pc.Name) {
				names = append(names, pc.Name)
			}
		}
		if !found {
			missing := field.NotFound(at.Field(), claim.Name)
			missing.Detail = "must be one of the names in pod.spec.resourceClaims which is empty"
			if len(names) > 0 {
				sort.Strings(names)
				missing.Detail = "must be one of the names in pod.spec.resourceClaims: " + strings.Join(names, ", ")
			}
			c.e.Add(missing)
		}
	}
}

// podResources checks requests and limits of the pod as a whole (KEP-2837)
// against those of its containers.
func (c *specCheck) podResources(p *validate.Path) {
	r, e := c.spec.Resources, c.e
	if r == nil {
		return
	}
	if c.spec.OS != nil && c.spec.OS.Name == corev1.Windows {
		e.Forbidden(p, "may not be set for a windows pod")
		return
	}
	if r.Claims != nil {
		e.Forbidden(p.Child("claims"), "claims may not be set for Resources at pod-level")
	}
	c.resources(r, true, p)

	pod := &corev1.Pod{Spec: *c.spec}
	for name, sum := range podresource.AggregateContainerRequests(pod, podresource.PodResourcesOptions{}) {
		if own, set := r.Requests[name]; set && sum.Cmp(own) > 0 {
			e.Invalid(p.Child("requests").Key(string(name)), own.String(), "must be greater than or equal to aggregate container requests of "+sum.String())
		}
	}
	for name, sum := range podresource.AggregateContainerLimits(pod, podresource.PodResourcesOptions{}) {
		if own, set := r.Limits[name]; set && isHugePages(name) && sum.Cmp(own) > 0 {
			e.Invalid(p.Child("limits").Key(string(name)), own.String(), "must be greater than or equal to aggregate container limits of "+sum.String())
		}
	}
	for i := range c.spec.Containers {
		for name, limit := range c.spec.Containers[i].Resources.Limits {
			if own, set := r.Limits[name]; set && limit.Cmp(own) > 0 {
				e.Invalid(p.Child("containers").Index(i).Key(string(name)).Child("limits"), limit.String(), "must be less than or equal to pod limits of "+own.String())
			}
		}
	}
}
