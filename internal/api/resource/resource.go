// Package resource describes the kinds of resource.k8s.io/v1 (KEP-4381): device
// classes, claims and their templates, and the slices in which drivers publish
// devices. That CEL selectors compile is for the scheduler that evaluates them.
package resource

import (
	"strings"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
)

// Kinds of the group. now is the clock that stamps taints.
func Kinds(now func() time.Time) []*api.Kind {
	return []*api.Kind{deviceClass(), claim(), claimTemplate(), slice(now)}
}

func gvk(kind string) schema.GroupVersionKind { return resourcev1.SchemeGroupVersion.WithKind(kind) }

func deviceClass() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("DeviceClass"),
		Stored:           []api.Shape{api.StoredAlike(gvk("DeviceClass"), "v1beta2")},
		Resource:         "deviceclasses",
		Cluster:          true,
		New:              func() api.Object { return &resourcev1.DeviceClass{} },
		NewList:          func() runtime.Object { return &resourcev1.DeviceClassList{} },
		Reset:            reset.Spec(func(c *resourcev1.DeviceClass) *resourcev1.DeviceClassSpec { return &c.Spec }),
		Validate:         api.Validates(validateClass),
		Columns:          []metav1.TableColumnDefinition{table.Name(), table.Age()},
		Row:              api.Rows(func(c *resourcev1.DeviceClass) []any { return []any{c.Name, table.AgeOf(c)} }),
	}
}

func claim() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("ResourceClaim"),
		Stored:           []api.Shape{api.StoredAlike(gvk("ResourceClaim"), "v1beta2")},
		Resource:         "resourceclaims",
		New:              func() api.Object { return &resourcev1.ResourceClaim{} },
		NewList:          func() runtime.Object { return &resourcev1.ResourceClaimList{} },
		Default:          api.Of(func(c *resourcev1.ResourceClaim) { defaultClaim(&c.Spec) }),
		Reset: api.Resets(func(c, old *resourcev1.ResourceClaim, sub string) {
			switch {
			case old == nil:
				c.Status = resourcev1.ResourceClaimStatus{}
			case sub == "status":
				c.Spec = old.Spec
				metav1.ResetObjectMetaForStatus(&c.ObjectMeta, &old.ObjectMeta)
				dropDeallocated(&c.Status)
			default:
				c.Status = old.Status
			}
		}),
		Validate: api.Validates(validateClaim),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("State", "string", "A summary of the current state (allocated, pending, reserved, etc.)."),
			table.Age(),
		},
		Row:          api.Rows(func(c *resourcev1.ResourceClaim) []any { return []any{c.Name, stateCell(c), table.AgeOf(c)} }),
		Subresources: []api.Subresource{{Name: "status"}},
	}
}

func stateCell(c *resourcev1.ResourceClaim) string {
	var states []string
	if c.DeletionTimestamp != nil {
		states = append(states, "deleted")
	}
	if c.Status.Allocation == nil {
		if c.DeletionTimestamp == nil {
			states = append(states, "pending")
		}
		return strings.Join(states, ",")
	}
	states = append(states, "allocated")
	if len(c.Status.ReservedFor) > 0 {
		states = append(states, "reserved")
	}
	return strings.Join(states, ",")
}

// dropDeallocated drops the status of devices that the claim has no longer.
func dropDeallocated(s *resourcev1.ResourceClaimStatus) {
	if s.Devices == nil {
		return
	}
	has := map[[3]string]bool{}
	if s.Allocation != nil {
		for _, r := range s.Allocation.Devices.Results {
			has[[3]string{r.Driver, r.Pool, r.Device}] = true
		}
	}
	var left []resourcev1.AllocatedDeviceStatus
	for _, d := range s.Devices {
		if has[[3]string{d.Driver, d.Pool, d.Device}] {
			left = append(left, d)
		}
	}
	s.Devices = left
}

func claimTemplate() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("ResourceClaimTemplate"),
		Stored:           []api.Shape{api.StoredAlike(gvk("ResourceClaimTemplate"), "v1beta2")},
		Resource:         "resourceclaimtemplates",
		New:              func() api.Object { return &resourcev1.ResourceClaimTemplate{} },
		NewList:          func() runtime.Object { return &resourcev1.ResourceClaimTemplateList{} },
		Default:          api.Of(func(t *resourcev1.ResourceClaimTemplate) { defaultClaim(&t.Spec.Spec) }),
		Validate:         api.Validates(validateTemplate),
		Columns:          []metav1.TableColumnDefinition{table.Name(), table.Age()},
		Row:              api.Rows(func(t *resourcev1.ResourceClaimTemplate) []any { return []any{t.Name, table.AgeOf(t)} }),
	}
}

func slice(now func() time.Time) *api.Kind {
	spec := reset.Spec(func(s *resourcev1.ResourceSlice) *resourcev1.ResourceSliceSpec { return &s.Spec })
	return &api.Kind{
		GroupVersionKind: gvk("ResourceSlice"),
		Stored:           []api.Shape{api.StoredAlike(gvk("ResourceSlice"), "v1beta2")},
		Resource:         "resourceslices",
		Cluster:          true,
		New:              func() api.Object { return &resourcev1.ResourceSlice{} },
		NewList:          func() runtime.Object { return &resourcev1.ResourceSliceList{} },
		Reset: func(obj, old api.Object, sub string) {
			stampTaints(obj.(*resourcev1.ResourceSlice), now)
			spec(obj, old, sub)
		},
		Validate: api.Validates(validateSlice),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Node", "string", resourcev1.ResourceSliceSpec{}.SwaggerDoc()["nodeName"]),
			table.Col("Driver", "string", resourcev1.ResourceSliceSpec{}.SwaggerDoc()["driver"]),
			table.Col("Pool", "string", resourcev1.ResourcePool{}.SwaggerDoc()["name"]),
			table.Age(),
		},
		Row: api.Rows(func(s *resourcev1.ResourceSlice) []any {
			return []any{s.Name, nodeOf(s), s.Spec.Driver, s.Spec.Pool.Name, table.AgeOf(s)}
		}),
		Fields: api.FieldsOf(func(s *resourcev1.ResourceSlice) fields.Set {
			return fields.Set{resourcev1.ResourceSliceSelectorNodeName: nodeOf(s), resourcev1.ResourceSliceSelectorDriver: s.Spec.Driver}
		}),
	}
}

func nodeOf(s *resourcev1.ResourceSlice) string {
	if s.Spec.NodeName == nil {
		return ""
	}
	return *s.Spec.NodeName
}

func stampTaints(s *resourcev1.ResourceSlice, now func() time.Time) {
	for i := range s.Spec.Devices {
		taints := s.Spec.Devices[i].Taints
		for j := range taints {
			defaults.Ptr(&taints[j].TimeAdded, metav1.NewTime(now().Truncate(time.Second)))
		}
	}
}

func defaultClaim(s *resourcev1.ResourceClaimSpec) {
	mode := func(m *resourcev1.DeviceAllocationMode, count *int64) {
		defaults.Zero(m, resourcev1.DeviceAllocationModeExactCount)
		if *m == resourcev1.DeviceAllocationModeExactCount {
			defaults.Zero(count, 1)
		}
	}
	for i := range s.Devices.Requests {
		r := &s.Devices.Requests[i]
		if e := r.Exactly; e != nil {
			mode(&e.AllocationMode, &e.Count)
			defaultTolerations(e.Tolerations)
		}
		for j := range r.FirstAvailable {
			mode(&r.FirstAvailable[j].AllocationMode, &r.FirstAvailable[j].Count)
			defaultTolerations(r.FirstAvailable[j].Tolerations)
		}
	}
}

func defaultTolerations(list []resourcev1.DeviceToleration) {
	for i := range list {
		defaults.Zero(&list[i].Operator, resourcev1.DeviceTolerationOpEqual)
	}
}
