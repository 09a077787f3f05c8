package resource

import (
	"encoding/json"
	"fmt"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api/validate"
)

func validateClass(c, _ *resourcev1.DeviceClass, _ string) field.ErrorList {
	var e validate.Errs
	p := validate.Root("spec")
	selectors(&e, c.Spec.Selectors, p.Child("selectors"))
	limit(&e, len(c.Spec.Config), resourcev1.DeviceConfigMaxSize, p.Child("config"))
	for i := range c.Spec.Config {
		configuration(&e, &c.Spec.Config[i].DeviceConfiguration, p.Child("config").Index(i))
	}
	if n := c.Spec.ExtendedResourceName; n != nil && !isExtendedResource(*n) {
		e.Invalid(p.Child("extendedResourceName"), *n, "must be a valid extended resource name")
	}
	return e.List()
}

// isExtendedResource: DOMAIN/NAME, not of Kubernetes' own domain.
func isExtendedResource(name string) bool {
	if !strings.Contains(name, "/") || strings.Contains(name, "kubernetes.io/") || strings.HasPrefix(name, "requests.") {
		return false
	}
	return validate.QualifiedName("requests."+name) == nil
}

func limit(e *validate.Errs, n, most int, p *validate.Path) {
	if n > most {
		e.TooMany(p, n, most)
	}
}

func selectors(e *validate.Errs, list []resourcev1.DeviceSelector, p *validate.Path) {
	limit(e, len(list), resourcev1.DeviceSelectorsMaxSize, p)
	for i, s := range list {
		at := p.Index(i).Child("cel")
		if s.CEL == nil {
			e.Required(at, "")
		} else if len(s.CEL.Expression) > resourcev1.CELSelectorExpressionMaxLength {
			e.TooLong(at.Child("expression"), resourcev1.CELSelectorExpressionMaxLength)
		} else if strings.TrimSpace(s.CEL.Expression) == "" {
			e.Required(at.Child("expression"), "")
		}
	}
}

func configuration(e *validate.Errs, c *resourcev1.DeviceConfiguration, p *validate.Path) {
	at := p.Child("opaque")
	if c.Opaque == nil {
		e.Required(at, "")
		return
	}
	driver(e, c.Opaque.Driver, at.Child("driver"))
	object(e, c.Opaque.Parameters, resourcev1.OpaqueParametersMaxLength, at.Child("parameters"))
}

// object requires a JSON object of at most so many bytes.
func object(e *validate.Errs, raw runtime.RawExtension, most int, p *validate.Path) {
	var v any
	if len(raw.Raw) == 0 {
		e.Required(p, "")
	} else if len(raw.Raw) > most {
		e.TooLong(p, most)
	} else if err := json.Unmarshal(raw.Raw, &v); err != nil {
		e.Invalid(p, "<value omitted>", fmt.Sprintf("error parsing data as JSON: %v", err))
	} else if v == nil {
		e.Required(p, "")
	} else if _, ok := v.(map[string]any); !ok {
		e.Invalid(p, "<value omitted>", "must be a valid JSON object")
	}
}

func driver(e *validate.Errs, name string, p *validate.Path) {
	if name == "" {
		e.Required(p, "")
		return
	}
	if len(name) > resourcev1.DriverNameMaxLength {
		e.TooLong(p, resourcev1.DriverNameMaxLength)
	}
	e.Invalids(p, name, validate.Subdomain(strings.ToLower(name)))
}

func validateTemplate(t, old *resourcev1.ResourceClaimTemplate, _ string) field.ErrorList {
	var e validate.Errs
	p := validate.Root("spec")
	if old != nil {
		e.Immutable(p, t.Spec, old.Spec)
		return e.List()
	}
	validate.Labels(&e, t.Spec.Labels, p.Child("metadata").Child("labels"))
	validate.Annotations(&e, t.Spec.Annotations, p.Child("metadata").Child("annotations"))
	claimSpec(&e, &t.Spec.Spec, p.Child("spec"))
	return e.List()
}

func validateClaim(c, old *resourcev1.ResourceClaim, sub string) field.ErrorList {
	var e validate.Errs
	switch {
	case sub == "status":
		claimStatus(&e, c, old, validate.Root("status"))
	case old != nil:
		e.Immutable(validate.Root("spec"), c.Spec, old.Spec)
	default:
		claimSpec(&e, &c.Spec, validate.Root("spec"))
	}
	return e.List()
}

// names of requests, with those of their subrequests as "REQUEST/SUBREQUEST".
func names(d *resourcev1.DeviceClaim) map[string]bool {
	all := map[string]bool{}
	for _, r := range d.Requests {
		all[r.Name] = true
		for _, s := range r.FirstAvailable {
			all[r.Name+"/"+s.Name] = true
		}
	}
	return all
}

func claimSpec(e *validate.Errs, s *resourcev1.ResourceClaimSpec, p *validate.Path) {
	d, at := &s.Devices, p.Child("devices")
	known := names(d)
	limit(e, len(d.Requests), resourcev1.DeviceRequestsMaxSize, at.Child("requests"))
	seen := map[string]bool{}
	for i := range d.Requests {
		r := at.Child("requests").Index(i)
		request(e, &d.Requests[i], r)
		if seen[d.Requests[i].Name] {
			e.Duplicate(r, d.Requests[i].Name)
		}
		seen[d.Requests[i].Name] = true
	}
	limit(e, len(d.Constraints), resourcev1.DeviceConstraintsMaxSize, at.Child("constraints"))
	for i, c := range d.Constraints {
		constraint := at.Child("constraints").Index(i)
		requestRefs(e, c.Requests, known, constraint.Child("requests"))
		if c.MatchAttribute != nil {
			fullName(e, string(*c.MatchAttribute), constraint.Child("matchAttribute"))
		} else if c.DistinctAttribute != nil {
			fullName(e, string(*c.DistinctAttribute), constraint.Child("distinctAttribute"))
		} else {
			e.Required(constraint, "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set")
		}
	}
	limit(e, len(d.Config), resourcev1.DeviceConfigMaxSize, at.Child("config"))
	for i := range d.Config {
		config := at.Child("config").Index(i)
		requestRefs(e, d.Config[i].Requests, known, config.Child("requests"))
		configuration(e, &d.Config[i].DeviceConfiguration, config)
	}
}

func requestRefs(e *validate.Errs, refs []string, known map[string]bool, p *validate.Path) {
	limit(e, len(refs), resourcev1.DeviceRequestsMaxSize, p)
	seen := map[string]bool{}
	for i, ref := range refs {
		requestRef(e, ref, known, p.Index(i))
		if seen[ref] {
			e.Duplicate(p.Index(i), ref)
		}
		seen[ref] = true
	}
}

func requestRef(e *validate.Errs, ref string, known map[string]bool, p *validate.Path) {
	const what = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
	parts := strings.Split(ref, "/")
	if len(parts) > 2 {
		e.Invalid(p, ref, what)
		return
	}
	for _, part := range parts {
		e.Invalids(p, part, validate.Label(part))
	}
	if !known[ref] {
		e.Invalid(p, ref, what)
	}
}

func request(e *validate.Errs, r *resourcev1.DeviceRequest, p *validate.Path) {
	const exactlyOne = "exactly one of `exactly` or `firstAvailable` is required"
	e.Invalids(p.Child("name"), r.Name, validate.Label(r.Name))
	first := p.Child("firstAvailable")
	switch x := r.Exactly; {
	case x == nil && len(r.FirstAvailable) == 0:
		e.Required(p, exactlyOne)
	case x != nil && len(r.FirstAvailable) > 0:
		e.Invalid(p, nil, exactlyOne+", but multiple fields are set")
	case x != nil:
		wanted(e, x.DeviceClassName, x.Selectors, x.AllocationMode, x.Count, x.Tolerations, p.Child("exactly"))
	default:
		limit(e, len(r.FirstAvailable), resourcev1.FirstAvailableDeviceRequestMaxSize, first)
		seen := map[string]bool{}
		for i, s := range r.FirstAvailable {
			at := first.Index(i)
			e.Invalids(at.Child("name"), s.Name, validate.Label(s.Name))
			wanted(e, s.DeviceClassName, s.Selectors, s.AllocationMode, s.Count, s.Tolerations, at)
			if seen[s.Name] {
				e.Duplicate(at, s.Name)
			}
			seen[s.Name] = true
		}
	}
}

func wanted(e *validate.Errs, class string, list []resourcev1.DeviceSelector, mode resourcev1.DeviceAllocationMode, count int64,
	tolerations []resourcev1.DeviceToleration, p *validate.Path) {
	if class == "" {
		e.Required(p.Child("deviceClassName"), "")
	} else {
		e.Invalids(p.Child("deviceClassName"), class, validate.Subdomain(class))
	}
	selectors(e, list, p.Child("selectors"))
	switch mode {
	case resourcev1.DeviceAllocationModeAll:
		if count != 0 {
			e.Invalid(p.Child("count"), count, "must not be specified when allocationMode is 'All'")
		}
	case resourcev1.DeviceAllocationModeExactCount:
		if count <= 0 {
			e.Invalid(p.Child("count"), count, "must be greater than zero")
		}
	default:
		validate.NotSupported(e, p.Child("allocationMode"), mode, resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount)
	}
	for i, t := range tolerations {
		toleration(e, &t, p.Child("tolerations").Index(i))
	}
}

func toleration(e *validate.Errs, t *resourcev1.DeviceToleration, p *validate.Path) {
	if t.Key != "" {
		validate.LabelKey(e, t.Key, p.Child("key"))
	}
	switch t.Operator {
	case resourcev1.DeviceTolerationOpExists:
		if t.Value != "" {
			e.Invalid(p.Child("value"), t.Value, "must be empty for operator `Exists`")
		}
	case resourcev1.DeviceTolerationOpEqual:
		e.Invalids(p.Child("value"), t.Value, validate.LabelValue(t.Value))
	default:
		validate.RequiredOneOf(e, p.Child("operator"), t.Operator, resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists)
	}
	if t.Effect != "" {
		effect(e, t.Effect, p.Child("effect"))
	}
}

func effect(e *validate.Errs, v resourcev1.DeviceTaintEffect, p *validate.Path) {
	validate.RequiredOneOf(e, p, v, resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone)
}

func claimStatus(e *validate.Errs, c, old *resourcev1.ResourceClaim, p *validate.Path) {
	s, was := &c.Status, &old.Status
	at := p.Child("reservedFor")
	limit(e, len(s.ReservedFor), resourcev1.ResourceClaimReservedForMaxSize, at)
	had, seen := map[resourcev1.ResourceClaimConsumerReference]bool{}, map[types.UID]bool{}
	for _, r := range was.ReservedFor {
		had[r] = true
	}
	added := false
	for i, r := range s.ReservedFor {
		for _, f := range []struct{ name, value string }{{"resource", r.Resource}, {"name", r.Name}, {"uid", string(r.UID)}} {
			if f.value == "" {
				e.Required(at.Index(i).Child(f.name), "")
			}
		}
		if seen[r.UID] {
			e.Duplicate(at.Index(i), r.UID)
		}
		seen[r.UID] = true
		added = added || !had[r]
	}
	if len(s.ReservedFor) > 0 && s.Allocation == nil {
		e.Forbidden(at, "may not be specified when `allocated` is not set")
	} else if added && c.DeletionTimestamp != nil {
		e.Forbidden(at, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set")
	}
	if s.Allocation == nil {
		return
	}
	if was.Allocation != nil {
		e.Immutable(p.Child("allocation"), s.Allocation, was.Allocation)
		return
	}
	allocation(e, &s.Allocation.Devices, names(&c.Spec.Devices), p.Child("allocation").Child("devices"))
}

func allocation(e *validate.Errs, d *resourcev1.DeviceAllocationResult, known map[string]bool, p *validate.Path) {
	limit(e, len(d.Results), resourcev1.AllocationResultsMaxSize, p.Child("results"))
	for i, r := range d.Results {
		at := p.Child("results").Index(i)
		requestRef(e, r.Request, known, at.Child("request"))
		driver(e, r.Driver, at.Child("driver"))
		pool(e, r.Pool, at.Child("pool"))
		e.Invalids(at.Child("device"), r.Device, validate.Label(r.Device))
	}
	limit(e, len(d.Config), 2*resourcev1.DeviceConfigMaxSize, p.Child("config")) // the class's and the claim's
	for i := range d.Config {
		at := p.Child("config").Index(i)
		validate.RequiredOneOf(e, at.Child("source"), d.Config[i].Source, resourcev1.AllocationConfigSourceClaim, resourcev1.AllocationConfigSourceClass)
		requestRefs(e, d.Config[i].Requests, known, at.Child("requests"))
		configuration(e, &d.Config[i].DeviceConfiguration, at)
	}
}
