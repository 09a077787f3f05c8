package resource

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/blang/semver/v4"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/validate"
)

func pool(e *validate.Errs, name string, p *validate.Path) {
	if name == "" {
		e.Required(p, "")
		return
	}
	if len(name) > resourcev1.PoolNameMaxLength {
		e.TooLong(p, resourcev1.PoolNameMaxLength)
	}
	for part := range strings.SplitSeq(name, "/") {
		e.Invalids(p, part, validate.Subdomain(part))
	}
}

func validateSlice(s, old *resourcev1.ResourceSlice, _ string) field.ErrorList {
	var e validate.Errs
	p, spec := validate.Root("spec"), &s.Spec
	driver(&e, spec.Driver, p.Child("driver"))
	at := p.Child("pool")
	pool(&e, spec.Pool.Name, at.Child("name"))
	if spec.Pool.ResourceSliceCount <= 0 {
		e.Invalid(at.Child("resourceSliceCount"), spec.Pool.ResourceSliceCount, "must be greater than zero")
	}
	if spec.Pool.Generation < 0 {
		e.Invalid(at.Child("generation"), spec.Pool.Generation, "must be greater than or equal to zero")
	}
	if old != nil {
		e.Immutable(at.Child("name"), spec.Pool.Name, old.Spec.Pool.Name)
		e.Immutable(p.Child("driver"), spec.Driver, old.Spec.Driver)
		e.Immutable(p.Child("nodeName"), spec.NodeName, old.Spec.NodeName)
	}
	whose(&e, spec, p)
	if spec.SharedCounters != nil && spec.Devices != nil {
		e.Invalid(p, "", "only one of `sharedCounters` or `devices` is allowed")
	}
	devices(&e, spec, old, p.Child("devices"))
	counterSets(&e, spec.SharedCounters, p.Child("sharedCounters"))
	return e.List()
}

// whose checks that the slice says in one way which nodes its devices are for.
func whose(e *validate.Errs, s *resourcev1.ResourceSliceSpec, p *validate.Path) {
	const exactlyOne = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	var set []string
	if n := s.NodeName; n != nil && *n == "" {
		e.Invalid(p.Child("nodeName"), "", "must be either unset or set to a non-empty string")
	} else if n != nil {
		set = append(set, "`nodeName`")
		e.Invalids(p.Child("nodeName"), *n, validate.Subdomain(*n))
	}
	if n := s.NodeSelector; n != nil {
		set = append(set, "`nodeSelector`")
		if len(n.NodeSelectorTerms) != 1 {
			e.Invalid(p.Child("nodeSelector").Child("nodeSelectorTerms"), n.NodeSelectorTerms, "must have exactly one node selector term")
		}
	}
	for _, f := range []struct {
		name  string
		value *bool
	}{{"allNodes", s.AllNodes}, {"perDeviceNodeSelection", s.PerDeviceNodeSelection}} {
		if f.value != nil && *f.value {
			set = append(set, "`"+f.name+"`")
		} else if f.value != nil {
			e.Invalid(p.Child(f.name), false, "must be either unset or set to true")
		}
	}
	if len(set) == 0 {
		e.Required(p, exactlyOne)
	} else if len(set) > 1 {
		e.Invalid(p, "{"+strings.Join(set, ", ")+"}", exactlyOne+", but multiple fields are set")
	}
}

func devices(e *validate.Errs, s *resourcev1.ResourceSliceSpec, old *resourcev1.ResourceSlice, p *validate.Path) {
	was := map[string]*resourcev1.Device{}
	if old != nil {
		for i := range old.Spec.Devices {
			was[old.Spec.Devices[i].Name] = &old.Spec.Devices[i]
		}
	}
	most := resourcev1.ResourceSliceMaxDevices
	seen := map[string]bool{}
	for i := range s.Devices {
		d := &s.Devices[i]
		if len(d.Taints) > 0 || len(d.ConsumesCounters) > 0 {
			most = resourcev1.ResourceSliceMaxDevicesWithAdvancedFeatures
		}
		device(e, d, was[d.Name], s.PerDeviceNodeSelection != nil && *s.PerDeviceNodeSelection, p.Index(i))
		if seen[d.Name] {
			e.Duplicate(p.Index(i), d.Name)
		}
		seen[d.Name] = true
	}
	limit(e, len(s.Devices), most, p)
}

func device(e *validate.Errs, d, old *resourcev1.Device, ownNodes bool, p *validate.Path) {
	e.Invalids(p.Child("name"), d.Name, validate.Label(d.Name))
	if n, most := len(d.Attributes)+len(d.Capacity), resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice; n > most {
		e.Invalid(p, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", most))
	}
	for name, a := range d.Attributes {
		qualified(e, string(name), p.Child("attributes"))
		attribute(e, &a, p.Child("attributes").Key(string(name)))
	}
	for name := range d.Capacity {
		qualified(e, string(name), p.Child("capacity"))
	}
	if old == nil || reset.Differ(d.Taints, old.Taints) {
		limit(e, len(d.Taints), resourcev1.DeviceTaintsMaxLength, p.Child("taints"))
		for i, t := range d.Taints {
			at := p.Child("taints").Index(i)
			validate.LabelKey(e, t.Key, at.Child("key"))
			e.Invalids(at.Child("value"), t.Value, validate.LabelValue(t.Value))
			effect(e, t.Effect, at.Child("effect"))
		}
	}
	limit(e, len(d.ConsumesCounters), resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice, p.Child("consumesCounters"))
	for i, c := range d.ConsumesCounters {
		at := p.Child("consumesCounters").Index(i)
		counterNames(e, c.CounterSet, c.Counters, at.Child("counterSet"), at.Child("counters"))
	}
	if !ownNodes {
		if d.NodeName != nil || d.NodeSelector != nil || d.AllNodes != nil {
			e.Invalid(p, nil, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec")
		}
		return
	}
	set := 0
	for _, given := range []bool{d.NodeName != nil && *d.NodeName != "", d.NodeSelector != nil, d.AllNodes != nil && *d.AllNodes} {
		if given {
			set++
		}
	}
	if set != 1 {
		e.Required(p, "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec")
	}
}

func attribute(e *validate.Errs, a *resourcev1.DeviceAttribute, p *validate.Path) {
	n := 0
	for _, given := range []bool{a.IntValue != nil, a.BoolValue != nil, a.StringValue != nil, a.VersionValue != nil,
		a.IntValues != nil, a.BoolValues != nil, a.StringValues != nil, a.VersionValues != nil} {
		if given {
			n++
		}
	}
	switch n {
	case 0:
		e.Required(p, "exactly one value must be specified")
	case 1:
	default:
		e.Invalid(p, *a, "exactly one value must be specified")
	}
	if s := a.StringValue; s != nil && len(*s) > resourcev1.DeviceAttributeMaxValueLength {
		e.TooLong(p.Child("string"), resourcev1.DeviceAttributeMaxValueLength)
	}
	if v := a.VersionValue; v != nil {
		version(e, *v, p.Child("version"))
	}
	for i, v := range a.VersionValues {
		version(e, v, p.Child("versions").Index(i))
	}
}

func version(e *validate.Errs, v string, p *validate.Path) {
	if _, err := semver.Parse(v); err != nil {
		e.Invalid(p, v, "must be a string compatible with semver.org spec 2.0.0")
	}
	if len(v) > resourcev1.DeviceAttributeMaxValueLength {
		e.TooLong(p, resourcev1.DeviceAttributeMaxValueLength)
	}
}

func counterSets(e *validate.Errs, sets []resourcev1.CounterSet, p *validate.Path) {
	limit(e, len(sets), resourcev1.ResourceSliceMaxCounterSets, p)
	seen := map[string]bool{}
	for i, s := range sets {
		counterNames(e, s.Name, s.Counters, p.Index(i).Child("name"), p.Index(i).Child("counters"))
		if seen[s.Name] {
			e.Duplicate(p.Index(i), s.Name)
		}
		seen[s.Name] = true
	}
}

func counterNames(e *validate.Errs, set string, counters map[string]resourcev1.Counter, nameAt, at *validate.Path) {
	if set == "" {
		e.Required(nameAt, "")
	} else {
		e.Invalids(nameAt, set, validate.Label(set))
	}
	if len(counters) == 0 {
		e.Required(at, "")
	}
	limit(e, len(counters), resourcev1.ResourceSliceMaxCountersPerCounterSet, at)
	for name := range counters {
		e.Invalids(at, name, validate.Label(name))
	}
}

// qualified is a C identifier, or one of a domain: "example.com/model".
func qualified(e *validate.Errs, name string, p *validate.Path) {
	if name == "" {
		e.Required(p, "name required")
		return
	}
	parts := strings.Split(name, "/")
	switch len(parts) {
	case 1:
		identifier(e, parts[0], p)
	case 2:
		domain(e, parts[0], p)
		identifier(e, parts[1], p)
	default:
		e.Invalid(p, name, "must be either a C identifier or a DNS subdomain followed by a slash and a C identifier")
	}
}

func fullName(e *validate.Errs, name string, p *validate.Path) {
	qualified(e, name, p)
	if name != "" && !strings.Contains(name, "/") {
		e.Invalid(p, name, "must include a domain")
	}
}

func domain(e *validate.Errs, name string, p *validate.Path) {
	if name == "" {
		e.Required(p, "the domain must not be empty")
		return
	}
	if len(name) > resourcev1.DeviceMaxDomainLength {
		e.TooLong(p, resourcev1.DeviceMaxDomainLength)
	}
	e.Invalids(p, name, validate.Subdomain(name))
}

func identifier(e *validate.Errs, name string, p *validate.Path) {
	if name == "" {
		e.Required(p, "the name must not be empty")
		return
	}
	if len(name) > resourcev1.DeviceMaxIDLength {
		e.TooLong(p, resourcev1.DeviceMaxIDLength)
	}
	if !regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`).MatchString(name) {
		e.Invalid(p, name, "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')")
	}
}
