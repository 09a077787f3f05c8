// Package quota says what an object counts for in a ResourceQuota. The quota
// controller sums it up for status.used; admission asks whether one more object
// still fits. All but Pending is pure.
package quota

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
)

// ObjectCount is the resource name that counts objects of a kind:
// "count/deployments.apps", "count/pods".
func ObjectCount(r schema.GroupResource) corev1.ResourceName {
	return corev1.ResourceName("count/" + r.String())
}

// aliases are the older names for counts of some kinds.
var aliases = map[string]corev1.ResourceName{
	"configmaps": corev1.ResourceConfigMaps, "resourcequotas": corev1.ResourceQuotas,
	"replicationcontrollers": corev1.ResourceReplicationControllers, "secrets": corev1.ResourceSecrets,
}

// Usage is what one object of a kind counts for, under every name that a quota
// might list it by, whether a quota does or not. Nothing counts that is for one
// moment (events) or not in a namespace. d is looked at for ResourceClaims alone.
func Usage(k *api.Kind, obj api.Object, d Devices, now time.Time) corev1.ResourceList {
	if k.Cluster || k.Virtual || k.Resource == "events" {
		return nil
	}
	use := corev1.ResourceList{ObjectCount(k.GroupResource()): *one()}
	if c, ok := obj.(*resourcev1.ResourceClaim); ok && isDeviceClaim(k) {
		maps.Copy(use, deviceUsage(c, d, now))
	}
	if k.Group != "" {
		return use
	}
	if name, ok := aliases[k.Resource]; ok {
		use[name] = *one()
	}
	switch o := obj.(type) {
	case *corev1.Pod:
		maps.Copy(use, podUsage(o, now))
	case *corev1.Service:
		maps.Copy(use, serviceUsage(o))
	case *corev1.PersistentVolumeClaim:
		maps.Copy(use, claimUsage(o))
	}
	return use
}

func one() *resource.Quantity { return number(1) }

func number(n int) *resource.Quantity { return resource.NewQuantity(int64(n), resource.DecimalSI) }

// Counts says whether a kind's objects may count for a quota's resource name at all.
func Counts(k *api.Kind, name corev1.ResourceName, d Devices) bool {
	if k.Cluster || k.Virtual {
		return false
	}
	if name == ObjectCount(k.GroupResource()) {
		return true
	}
	if isDeviceClaim(k) {
		return countsDevices(name, d)
	}
	if k.Group != "" {
		return false
	}
	text := string(name)
	switch k.Resource {
	case "pods":
		_, extended := extendedOf(name)
		return extended || slices.Contains(podNames, name) || strings.HasPrefix(strings.TrimPrefix(text, requests), corev1.ResourceHugePagesPrefix)
	case "services":
		return name == corev1.ResourceServices || name == corev1.ResourceServicesNodePorts || name == corev1.ResourceServicesLoadBalancers
	case "persistentvolumeclaims":
		return name == corev1.ResourcePersistentVolumeClaims || name == corev1.ResourceRequestsStorage || strings.Contains(text, classSuffix)
	}
	return aliases[k.Resource] == name
}

var podNames = []corev1.ResourceName{
	corev1.ResourcePods, corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
	corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage,
	corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage,
}

// Matches says whether an object is within a quota's scopes. Quotas with scopes
// are about pods, and about claims by their VolumeAttributesClass.
func Matches(q *corev1.ResourceQuota, obj api.Object) bool {
	for _, s := range Scopes(q) {
		switch o := obj.(type) {
		case *corev1.Pod:
			if !podInScope(o, s) {
				return false
			}
		case *corev1.PersistentVolumeClaim:
			if !claimInScope(o, s) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// Scopes of a quota, both forms.
func Scopes(q *corev1.ResourceQuota) []corev1.ScopedResourceSelectorRequirement {
	var all []corev1.ScopedResourceSelectorRequirement
	for _, s := range q.Spec.Scopes {
		all = append(all, corev1.ScopedResourceSelectorRequirement{ScopeName: s, Operator: corev1.ScopeSelectorOpExists})
	}
	if q.Spec.ScopeSelector != nil {
		all = append(all, q.Spec.ScopeSelector.MatchExpressions...)
	}
	return all
}

// Used sums up what objects of one kind count for, among the names that a quota
// limits.
func Used(q *corev1.ResourceQuota, k *api.Kind, objs []api.Object, d Devices, now time.Time) corev1.ResourceList {
	sum := corev1.ResourceList{}
	for name := range q.Spec.Hard {
		if Counts(k, name, d) {
			sum[name] = *resource.NewQuantity(0, q.Spec.Hard.Name(name, resource.DecimalSI).Format)
		}
	}
	if len(sum) == 0 {
		return sum
	}
	for _, o := range objs {
		if Matches(q, o) {
			Add(sum, Usage(k, o, d, now))
		}
	}
	return sum
}

// Add to sum what more has of the names that sum has.
func Add(sum, more corev1.ResourceList) {
	for name, v := range sum {
		if m, ok := more[name]; ok {
			v.Add(m)
			sum[name] = v
		}
	}
}

// Exceeds returns the names of those of use that, added to used, are beyond hard,
// in order.
func Exceeds(use, used, hard corev1.ResourceList) []corev1.ResourceName {
	var bad []corev1.ResourceName
	for name, v := range use {
		limit, ok := hard[name]
		if !ok || v.Sign() <= 0 {
			continue
		}
		have := used[name].DeepCopy()
		have.Add(v)
		if have.Cmp(limit) > 0 {
			bad = append(bad, name)
		}
	}
	slices.Sort(bad)
	return bad
}
