package scheduler

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	configv1 "k8s.io/kube-scheduler/config/v1"
)

// args of a plugin: profiles[].pluginConfig[].
func (r *reader) args(name string, raw []byte, o *Options, p *field.Path) {
	at := p.Child("args")
	switch name {
	case "DefaultPreemption":
		decode(r, raw, at, func(a *configv1.DefaultPreemptionArgs) { r.preemptionArgs(a, o, at) })
	case "DynamicResources":
		decode(r, raw, at, func(a *configv1.DynamicResourcesArgs) { r.deviceArgs(a, o, at) })
	case "InterPodAffinity":
		decode(r, raw, at, func(a *configv1.InterPodAffinityArgs) {
			if w := a.HardPodAffinityWeight; w != nil {
				r.within(at.Child("hardPodAffinityWeight"), int64(*w), 0, 100, "not in valid range [0, 100]")
				o.hardAffinity = int64(*w)
			}
			o.ignorePreferred = a.IgnorePreferredTermsOfExistingPods
		})
	case "NodeAffinity":
		decode(r, raw, at, func(a *configv1.NodeAffinityArgs) { r.affinityArgs(a.AddedAffinity, o, at.Child("addedAffinity")) })
	case "NodeResourcesBalancedAllocation":
		decode(r, raw, at, func(a *configv1.NodeResourcesBalancedAllocationArgs) { r.balanceArgs(a, o, at.Child("resources")) })
	case "NodeResourcesFit":
		decode(r, raw, at, func(a *configv1.NodeResourcesFitArgs) { r.fitArgs(a, o, at) })
	case "PodTopologySpread":
		decode(r, raw, at, func(a *configv1.PodTopologySpreadArgs) { r.spreadArgs(a, o, at) })
	case "VolumeBinding":
		decode(r, raw, at, func(a *configv1.VolumeBindingArgs) {
			if s := a.BindTimeoutSeconds; s != nil {
				r.within(at.Child("bindTimeoutSeconds"), *s, 0, -1, "should not be a negative value")
				o.volumeTimeout = time.Duration(*s) * time.Second
			}
			if a.Shape != nil {
				r.errs = append(r.errs, field.Forbidden(at.Child("shape"), "scoring by storage capacity (StorageCapacityScoring) is not on in this version"))
			}
		})
	default:
		known := []string{"DefaultPreemption", "DynamicResources", "InterPodAffinity", "NodeAffinity", "NodeResourcesBalancedAllocation", "NodeResourcesFit", "PodTopologySpread", "VolumeBinding"}
		r.errs = append(r.errs, field.NotSupported(p.Child("name"), name, known))
	}
}

// decode arguments and read them. What apiVersion and kind they say, if they do, has
// to be theirs: a field that is not known is an error anyway.
func decode[T any](r *reader, raw []byte, at *field.Path, read func(*T)) {
	a := new(T)
	if len(raw) > 0 {
		if err := strictly(raw, a, at); err != nil {
			r.invalid(at, field.OmitValueType{}, err.Error())
			return
		}
	}
	read(a)
}

func (r *reader) preemptionArgs(a *configv1.DefaultPreemptionArgs, o *Options, at *field.Path) {
	if v := a.MinCandidateNodesPercentage; v != nil {
		r.within(at.Child("minCandidateNodesPercentage"), int64(*v), 0, 100, "not in valid range [0, 100]")
		o.victimPercent = int(*v)
	}
	if v := a.MinCandidateNodesAbsolute; v != nil {
		r.within(at.Child("minCandidateNodesAbsolute"), int64(*v), 0, -1, "not in valid range [0, inf)")
		o.victimLeast = int(*v)
	}
	if o.victimPercent == 0 && o.victimLeast == 0 {
		r.invalid(at.Child("minCandidateNodesPercentage"), 0, "cannot be zero at the same time as minCandidateNodesAbsolute")
	}
}

func (r *reader) deviceArgs(a *configv1.DynamicResourcesArgs, o *Options, at *field.Path) {
	if d := a.FilterTimeout; d != nil && d.Duration < 0 {
		r.invalid(at.Child("filterTimeout"), d.Duration.String(), "must be zero or positive")
	} else if d != nil {
		o.allocateTimeout = d.Duration
	}
	if d := a.BindingTimeout; d != nil && d.Duration < time.Second {
		r.invalid(at.Child("bindingTimeout"), d.Duration.String(), "must be at least 1 second")
	} else if d != nil {
		o.deviceTimeout = d.Duration
	}
}

func (r *reader) affinityArgs(a *corev1.NodeAffinity, o *Options, at *field.Path) {
	if a == nil {
		return
	}
	if s := a.RequiredDuringSchedulingIgnoredDuringExecution; s != nil {
		p := at.Child("requiredDuringSchedulingIgnoredDuringExecution")
		added, err := nodeaffinity.NewNodeSelector(s)
		if err != nil {
			r.invalid(p, field.OmitValueType{}, err.Error())
		}
		o.added = added
	}
	if terms := a.PreferredDuringSchedulingIgnoredDuringExecution; len(terms) > 0 {
		p := at.Child("preferredDuringSchedulingIgnoredDuringExecution")
		added, err := nodeaffinity.NewPreferredSchedulingTerms(terms)
		if err != nil {
			r.invalid(p, field.OmitValueType{}, err.Error())
		}
		o.addedPreferred = added
	}
}

func (r *reader) balanceArgs(a *configv1.NodeResourcesBalancedAllocationArgs, o *Options, at *field.Path) {
	if len(a.Resources) > 0 {
		o.balance = nil
	}
	for i, s := range a.Resources {
		if slices.Contains(o.balance, corev1.ResourceName(s.Name)) {
			r.errs = append(r.errs, field.Duplicate(at.Index(i).Child("name"), s.Name))
		}
		if s.Weight > 1 || s.Weight < 0 {
			r.invalid(at.Index(i).Child("weight"), s.Weight, "must be 1")
		}
		o.balance = append(o.balance, corev1.ResourceName(s.Name))
	}
}

func (r *reader) fitArgs(a *configv1.NodeResourcesFitArgs, o *Options, at *field.Path) {
	o.ignored, o.ignoring = map[corev1.ResourceName]bool{}, map[string]bool{}
	for i, name := range a.IgnoredResources {
		r.errs = append(r.errs, metavalidation.ValidateLabelName(name, at.Child("ignoredResources").Index(i))...)
		o.ignored[corev1.ResourceName(name)] = true
	}
	for i, name := range a.IgnoredResourceGroups {
		p := at.Child("ignoredResourceGroups").Index(i)
		if strings.Contains(name, "/") {
			r.invalid(p, name, "resource group name can't contain '/'")
		} else {
			r.errs = append(r.errs, metavalidation.ValidateLabelName(name, p)...)
		}
		o.ignoring[name] = true
	}
	if a.ScoringStrategy != nil {
		r.strategy(a.ScoringStrategy, &o.fit, at.Child("scoringStrategy"))
	}
}

func (r *reader) strategy(s *configv1.ScoringStrategy, into *scoring, at *field.Path) {
	into.usual = false
	switch s.Type {
	case configv1.LeastAllocated:
		into.kind = leastFull
	case configv1.MostAllocated:
		into.kind = mostFull
	case configv1.RequestedToCapacityRatio:
		into.kind = byRatio
	default:
		r.errs = append(r.errs, field.NotSupported(at.Child("type"), s.Type, []configv1.ScoringStrategyType{configv1.LeastAllocated, configv1.MostAllocated, configv1.RequestedToCapacityRatio}))
	}
	if len(s.Resources) > 0 {
		into.resources = nil
	}
	for i, one := range s.Resources {
		if one.Weight == 0 {
			one.Weight = 1
		}
		r.within(at.Child("resources").Index(i).Child("weight"), one.Weight, 1, 100, "resource weight of "+one.Name+" not in valid range (0, 100]")
		into.resources = append(into.resources, weightedResource{corev1.ResourceName(one.Name), one.Weight})
	}
	into.usual = into.kind == leastFull && slices.Equal(into.resources, usualScoring().resources)
	p := at.Child("requestedToCapacityRatio")
	switch ratio := s.RequestedToCapacityRatio; {
	case into.kind != byRatio && ratio != nil:
		r.errs = append(r.errs, field.Forbidden(p, "must be nil when type is not RequestedToCapacityRatio"))
	case into.kind == byRatio && ratio == nil:
		r.errs = append(r.errs, field.Required(p, "must be specified when type is RequestedToCapacityRatio"))
	case into.kind == byRatio:
		into.shape = r.shape(ratio.Shape, p.Child("shape"))
	}
}

func (r *reader) shape(list []configv1.UtilizationShapePoint, at *field.Path) (shape []shapePoint) {
	if len(list) == 0 {
		r.errs = append(r.errs, field.Required(at, "at least one point must be specified"))
	}
	for i, s := range list {
		if i > 0 && list[i-1].Utilization >= s.Utilization {
			r.invalid(at.Index(i).Child("utilization"), s.Utilization, "values must be sorted in increasing order")
		}
		r.within(at.Index(i).Child("utilization"), int64(s.Utilization), 0, 100, "not in valid range [0, 100]")
		r.within(at.Index(i).Child("score"), int64(s.Score), 0, 10, "not in valid range [0, 10]")
		shape = append(shape, shapePoint{int64(s.Utilization), int64(s.Score) * 10})
	}
	return shape
}

func (r *reader) spreadArgs(a *configv1.PodTopologySpreadArgs, o *Options, at *field.Path) {
	kind := a.DefaultingType
	if kind == "" {
		kind = configv1.SystemDefaulting
	}
	switch {
	case kind != configv1.SystemDefaulting && kind != configv1.ListDefaulting:
		r.errs = append(r.errs, field.NotSupported(at.Child("defaultingType"), kind, []configv1.PodTopologySpreadConstraintsDefaulting{configv1.SystemDefaulting, configv1.ListDefaulting}))
	case kind == configv1.SystemDefaulting && len(a.DefaultConstraints) > 0:
		r.invalid(at.Child("defaultingType"), kind, "when .defaultConstraints are not empty")
	case kind == configv1.ListDefaulting:
		o.spread, o.systemSpread = a.DefaultConstraints, false
	}
	for i := range a.DefaultConstraints {
		r.constraint(a.DefaultConstraints, i, at.Child("defaultConstraints").Index(i))
	}
}

func (r *reader) constraint(all []corev1.TopologySpreadConstraint, i int, at *field.Path) {
	c := &all[i]
	r.within(at.Child("maxSkew"), int64(c.MaxSkew), 1, 0, "not in valid range (0, inf)")
	if c.TopologyKey == "" {
		r.errs = append(r.errs, field.Required(at.Child("topologyKey"), "can not be empty"))
	} else {
		r.errs = append(r.errs, metavalidation.ValidateLabelName(c.TopologyKey, at.Child("topologyKey"))...)
	}
	if w := c.WhenUnsatisfiable; w != corev1.DoNotSchedule && w != corev1.ScheduleAnyway {
		r.errs = append(r.errs, field.NotSupported(at.Child("whenUnsatisfiable"), w, []corev1.UnsatisfiableConstraintAction{corev1.DoNotSchedule, corev1.ScheduleAnyway}))
	}
	if c.LabelSelector != nil {
		r.errs = append(r.errs, field.Forbidden(at.Child("labelSelector"), "constraint must not define a selector, as they deduced for each pod"))
	}
	if slices.ContainsFunc(all[:i], func(o corev1.TopologySpreadConstraint) bool {
		return o.TopologyKey == c.TopologyKey && o.WhenUnsatisfiable == c.WhenUnsatisfiable
	}) {
		r.errs = append(r.errs, field.Duplicate(at, c.TopologyKey+", "+string(c.WhenUnsatisfiable)))
	}
}

// seconds of a duration that may be left out.
func seconds(d metav1.Duration, usual time.Duration) time.Duration {
	if d.Duration == 0 {
		return usual
	}
	return d.Duration
}
