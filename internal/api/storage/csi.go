package storage

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/node"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func csiDriver() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("CSIDriver"),
		Resource:         "csidrivers",
		Cluster:          true,
		New:              func() api.Object { return &storagev1.CSIDriver{} },
		NewList:          func() runtime.Object { return &storagev1.CSIDriverList{} },
		Default:          api.Of(defaultDriver),
		StrictUpdate:     true,
		Reset: api.Resets(func(d, old *storagev1.CSIDriver, _ string) {
			if old == nil {
				d.Spec.PreventPodSchedulingIfMissing = nil // behind a gate that is off in 1.36
				return
			}
			if old.Spec.PreventPodSchedulingIfMissing == nil {
				d.Spec.PreventPodSchedulingIfMissing = nil
			}
			reset.Generation(d, old, reset.Differ(d.Spec, old.Spec))
		}),
		Validate: api.Validates(validateDriver),
		Warn:     api.Warns(warnDriver),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("AttachRequired", "boolean", storagev1.CSIDriverSpec{}.SwaggerDoc()["attachRequired"]),
			table.Col("PodInfoOnMount", "boolean", storagev1.CSIDriverSpec{}.SwaggerDoc()["podInfoOnMount"]),
			table.Col("StorageCapacity", "boolean", storagev1.CSIDriverSpec{}.SwaggerDoc()["storageCapacity"]),
			table.Col("TokenRequests", "string", storagev1.CSIDriverSpec{}.SwaggerDoc()["tokenRequests"]),
			table.Col("RequiresRepublish", "boolean", storagev1.CSIDriverSpec{}.SwaggerDoc()["requiresRepublish"]),
			table.Col("Modes", "string", storagev1.CSIDriverSpec{}.SwaggerDoc()["volumeLifecycleModes"]),
			table.Age(),
		},
		Row: api.Rows(func(d *storagev1.CSIDriver) []any {
			s, tokens := &d.Spec, "<unset>"
			if s.TokenRequests != nil {
				var audiences []string
				for _, t := range s.TokenRequests {
					audiences = append(audiences, t.Audience)
				}
				tokens = strings.Join(audiences, ",")
			}
			var modes []string
			for _, m := range s.VolumeLifecycleModes {
				modes = append(modes, string(m))
			}
			return []any{d.Name, or(s.AttachRequired, true), or(s.PodInfoOnMount, false), or(s.StorageCapacity, false), tokens,
				or(s.RequiresRepublish, false), table.None(strings.Join(modes, ",")), table.AgeOf(d)}
		}),
	}
}

func defaultDriver(d *storagev1.CSIDriver) {
	s := &d.Spec
	defaults.Ptr(&s.AttachRequired, true)
	defaults.Ptr(&s.PodInfoOnMount, false)
	defaults.Ptr(&s.StorageCapacity, false)
	defaults.Ptr(&s.FSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	if len(s.VolumeLifecycleModes) == 0 {
		s.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
	defaults.Ptr(&s.RequiresRepublish, false)
	defaults.Ptr(&s.SELinuxMount, false)
}

func validateDriver(d, old *storagev1.CSIDriver, _ string) field.ErrorList {
	var e validate.Errs
	p, s := validate.Root("spec"), &d.Spec
	for _, f := range []struct {
		name  string
		value *bool
	}{{"attachedRequired", s.AttachRequired}, {"podInfoOnMount", s.PodInfoOnMount}, {"storageCapacity", s.StorageCapacity}, {"seLinuxMount", s.SELinuxMount}} {
		if f.value == nil {
			e.Required(p.Child(f.name), "")
		}
	}
	if g := s.FSGroupPolicy; g != nil {
		validate.OneOf(&e, p.Child("fsGroupPolicy"), *g, storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	}
	tokenRequests(&e, s.TokenRequests, p.Child("tokenRequests"))
	for _, m := range s.VolumeLifecycleModes {
		validate.OneOf(&e, p.Child("volumeLifecycleModes"), m, storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral)
	}
	if n := s.NodeAllocatableUpdatePeriodSeconds; n != nil && *n < 10 {
		e.Invalid(p.Child("nodeAllocatableUpdatePeriodSeconds"), *n, "must be greater than or equal to 10 seconds")
	}
	if t := s.ServiceAccountTokenInSecrets; t != nil && len(s.TokenRequests) == 0 {
		e.Invalid(p.Child("serviceAccountTokenInSecrets"), *t, "serviceAccountTokenInSecrets is set but no tokenRequests are specified")
	}
	if old != nil {
		e.Immutable(p.Child("attachedRequired"), s.AttachRequired, old.Spec.AttachRequired)
		e.Immutable(p.Child("volumeLifecycleModes"), s.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes)
	}
	return e.List()
}

func tokenRequests(e *validate.Errs, requests []storagev1.TokenRequest, p *validate.Path) {
	seen := map[string]bool{}
	for i, r := range requests {
		at := p.Index(i)
		if seen[r.Audience] {
			e.Duplicate(at.Child("audience"), r.Audience)
			continue
		}
		seen[r.Audience] = true
		if r.ExpirationSeconds == nil {
			continue
		}
		if *r.ExpirationSeconds < 600 {
			e.Invalid(at.Child("expirationSeconds"), *r.ExpirationSeconds, "may not specify a duration less than 10 minutes")
		}
		if *r.ExpirationSeconds > 1<<32 {
			e.Invalid(at.Child("expirationSeconds"), *r.ExpirationSeconds, "may not specify a duration larger than 2^32 seconds")
		}
	}
}

func csiNode() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("CSINode"),
		Resource:         "csinodes",
		Cluster:          true,
		New:              func() api.Object { return &storagev1.CSINode{} },
		NewList:          func() runtime.Object { return &storagev1.CSINodeList{} },
		StrictUpdate:     true,
		Validate:         api.Validates(validateNode),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Drivers", "integer", "Drivers indicates the number of CSI drivers registered on the node"),
			table.Age(),
		},
		Row: api.Rows(func(n *storagev1.CSINode) []any { return []any{n.Name, int64(len(n.Spec.Drivers)), table.AgeOf(n)} }),
	}
}

func validateNode(n, old *storagev1.CSINode, _ string) field.ErrorList {
	var e validate.Errs
	p := validate.Root("spec").Child("drivers")
	seen := map[string]bool{}
	for i := range n.Spec.Drivers {
		nodeDriver(&e, &n.Spec.Drivers[i], seen, p.Index(i))
	}
	if old == nil {
		return e.List()
	}
	for _, was := range old.Spec.Drivers {
		for _, now := range n.Spec.Drivers {
			if was.Name == now.Name { // how many volumes fit may change (KEP-4876)
				was.Allocatable, now.Allocatable = nil, nil
				e.Immutable(p, now, was)
			}
		}
	}
	return e.List()
}

func nodeDriver(e *validate.Errs, d *storagev1.CSINodeDriver, seen map[string]bool, p *validate.Path) {
	const maxNodeID = 256
	driverName(e, d.Name, p.Child("name"))
	if d.NodeID == "" {
		e.Required(p.Child("nodeID"), "")
	}
	if len(d.NodeID) > maxNodeID {
		e.Invalid(p.Child("nodeID"), d.NodeID, fmt.Sprintf("must be %d characters or less", maxNodeID))
	}
	if a := d.Allocatable; a != nil && a.Count != nil {
		validate.NotBelowZero(e, *a.Count, p.Child("allocatable").Child("count"))
	}
	if seen[d.Name] {
		e.Duplicate(p.Child("name"), d.Name)
	}
	seen[d.Name] = true
	keys := map[string]bool{}
	for _, k := range d.TopologyKeys {
		if k == "" {
			e.Required(p, "")
		}
		if keys[k] {
			e.Duplicate(p, k)
		}
		keys[k] = true
		e.Invalids(p, k, validate.QualifiedName(k))
	}
}

func driverName(e *validate.Errs, name string, p *validate.Path) {
	const most = 63
	if name == "" {
		e.Required(p, "")
		return
	}
	if len(name) > most {
		e.TooLong(p, most)
	}
	lower := strings.ToLower(name)
	e.Invalids(p, name, validate.Subdomain(lower))
}

func capacity() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("CSIStorageCapacity"),
		Resource:         "csistoragecapacities",
		New:              func() api.Object { return &storagev1.CSIStorageCapacity{} },
		NewList:          func() runtime.Object { return &storagev1.CSIStorageCapacityList{} },
		StrictUpdate:     true,
		Validate:         api.Validates(validateCapacity),
		Warn:             api.Warns(warnCapacity),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("StorageClassName", "string", storagev1.CSIStorageCapacity{}.SwaggerDoc()["storageClassName"]),
			table.Col("Capacity", "string", storagev1.CSIStorageCapacity{}.SwaggerDoc()["capacity"]),
		},
		Row: api.Rows(func(c *storagev1.CSIStorageCapacity) []any {
			size := "<unset>"
			if c.Capacity != nil {
				size = c.Capacity.String()
			}
			return []any{c.Name, c.StorageClassName, size}
		}),
	}
}

func validateCapacity(c, old *storagev1.CSIStorageCapacity, _ string) field.ErrorList {
	var e validate.Errs
	var was *metav1.LabelSelector
	if old != nil {
		was = old.NodeTopology
	}
	validate.SelectorUpdate(&e, c.NodeTopology, was, validate.Root("nodeTopology"))
	e.Invalids(validate.Root("storageClassName"), c.StorageClassName, validate.Subdomain(c.StorageClassName))
	if c.Capacity != nil && c.Capacity.Sign() < 0 {
		e.Invalid(validate.Root("capacity"), c.Capacity.String(), validate.NotNegative)
	}
	if old != nil {
		e.Immutable(validate.Root("nodeTopology"), c.NodeTopology, old.NodeTopology)
		e.Immutable(validate.Root("storageClassName"), c.StorageClassName, old.StorageClassName)
	}
	return e.List()
}

func warnCapacity(c, _ *storagev1.CSIStorageCapacity) []string {
	if c.NodeTopology == nil {
		return nil
	}
	var warnings []string
	for i, r := range c.NodeTopology.MatchExpressions {
		if why, ok := node.DeprecatedLabel(r.Key); ok {
			warnings = append(warnings, fmt.Sprintf("nodeTopology.matchExpressions[%d].key: %s", i, why))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.NodeTopology.MatchLabels)) {
		if why, ok := node.DeprecatedLabel(key); ok {
			warnings = append(warnings, "nodeTopology.matchLabels."+key+": "+why)
		}
	}
	return warnings
}

func warnDriver(d, old *storagev1.CSIDriver) []string {
	s := &d.Spec
	if len(s.TokenRequests) == 0 || s.ServiceAccountTokenInSecrets != nil || old != nil && !reset.Differ(s.TokenRequests, old.Spec.TokenRequests) {
		return nil
	}
	return []string{"spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"}
}
