package scheduler

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// ParseConfiguration reads a KubeSchedulerConfiguration of
// kubescheduler.config.k8s.io/v1, YAML or JSON. Errors name the field that is
// wrong and say what can be there.
//
// What is about a process of its own (leaderElection, clientConnection, parallelism
// and the like) is read and has no effect. So has percentageOfNodesToScore: all
// nodes are always scored.
func ParseConfiguration(text []byte) (*Configuration, error) {
	raw, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, err
	}
	var c configv1.KubeSchedulerConfiguration
	if err := strictly(raw, &c, nil); err != nil {
		return nil, err
	}
	r := reader{out: DefaultConfiguration()}
	r.configuration(&c)
	if len(r.errs) > 0 {
		return nil, r.errs.ToAggregate()
	}
	return r.out, nil
}

// strictly decodes JSON, and says where a field is that is not known.
func strictly(raw []byte, into any, at *field.Path) error {
	strict, err := json.UnmarshalStrict(raw, into)
	var all field.ErrorList
	for _, e := range strict {
		name, known := strings.CutPrefix(e.Error(), "unknown field ")
		name = strings.Trim(name, `"`)
		switch {
		case known && at == nil:
			all = append(all, field.Invalid(field.NewPath(name), field.OmitValueType{}, "there is no such field"))
		case known:
			all = append(all, field.Invalid(at.Child(name), field.OmitValueType{}, "there is no such field"))
		default:
			all = append(all, field.Invalid(at, field.OmitValueType{}, e.Error()))
		}
	}
	if err != nil {
		all = append(all, field.Invalid(at, field.OmitValueType{}, err.Error()))
	}
	return all.ToAggregate()
}

// reader collects what is read, and all that is wrong with it.
type reader struct {
	out  *Configuration
	errs field.ErrorList
}

func (r *reader) invalid(p *field.Path, value any, detail string) {
	r.errs = append(r.errs, field.Invalid(p, value, detail))
}

// within says that a number has to be in a range; most below least: there is no most.
func (r *reader) within(p *field.Path, v, least, most int64, detail string) {
	if v < least || most >= least && v > most {
		r.invalid(p, v, detail)
	}
}

func (r *reader) configuration(c *configv1.KubeSchedulerConfiguration) {
	if c.APIVersion != configv1.SchemeGroupVersion.String() {
		r.errs = append(r.errs, field.NotSupported(field.NewPath("apiVersion"), c.APIVersion, []string{configv1.SchemeGroupVersion.String()}))
	}
	if c.Kind != "KubeSchedulerConfiguration" {
		r.errs = append(r.errs, field.NotSupported(field.NewPath("kind"), c.Kind, []string{"KubeSchedulerConfiguration"}))
	}
	if c.Parallelism != nil {
		r.within(field.NewPath("parallelism"), int64(*c.Parallelism), 1, 0, "should be an integer value greater than zero")
	}
	r.percentage(field.NewPath("percentageOfNodesToScore"), c.PercentageOfNodesToScore)
	if s := c.PodInitialBackoffSeconds; s != nil {
		r.within(field.NewPath("podInitialBackoffSeconds"), *s, 1, 0, "must be greater than 0")
		r.out.BackoffFirst = time.Duration(*s) * time.Second
	}
	if s := c.PodMaxBackoffSeconds; s != nil {
		r.out.BackoffMost = time.Duration(*s) * time.Second
	}
	if r.out.BackoffMost < r.out.BackoffFirst {
		r.invalid(field.NewPath("podMaxBackoffSeconds"), int64(r.out.BackoffMost/time.Second), "must be greater than or equal to podInitialBackoffSeconds")
	}
	if len(c.Profiles) > 0 {
		r.out.Profiles = map[string]*Options{}
	}
	for i := range c.Profiles {
		r.profile(&c.Profiles[i], len(c.Profiles) == 1, field.NewPath("profiles").Index(i))
	}
	r.extenders(c.Extenders, field.NewPath("extenders"))
}

func (r *reader) percentage(p *field.Path, v *int32) {
	if v != nil {
		r.within(p, int64(*v), 0, 100, "not in valid range [0-100]")
	}
}

func (r *reader) profile(c *configv1.KubeSchedulerProfile, alone bool, p *field.Path) {
	name := corev1.DefaultSchedulerName
	switch {
	case c.SchedulerName != nil && *c.SchedulerName != "":
		name = *c.SchedulerName
	case !alone || c.SchedulerName != nil:
		r.errs = append(r.errs, field.Required(p.Child("schedulerName"), "each of several profiles has a name of its own"))
		return
	}
	if r.out.Profiles[name] != nil {
		r.errs = append(r.errs, field.Duplicate(p.Child("schedulerName"), name))
	}
	o := DefaultOptions(name)
	r.out.Profiles[name] = o
	r.percentage(p.Child("percentageOfNodesToScore"), c.PercentageOfNodesToScore)
	if c.Plugins != nil {
		r.plugins(c.Plugins, o, p.Child("plugins"))
	}
	seen := sets.New[string]()
	for i, a := range c.PluginConfig {
		at := p.Child("pluginConfig").Index(i)
		if seen.Has(a.Name) {
			r.errs = append(r.errs, field.Duplicate(at.Child("name"), a.Name))
		}
		seen.Insert(a.Name)
		r.args(a.Name, a.Args.Raw, o, at)
	}
}

// point is where plugins take part: the names of a configuration.
type point struct {
	name string
	set  *configv1.PluginSet
	has  plugins // that can take part
}

func points(c *configv1.Plugins) []point {
	of := func(all ...plugin) (s plugins) {
		for _, p := range all {
			s = s.with(p)
		}
		return s
	}
	before := of(nodeAffinity, nodePorts, nodeResourcesFit, volumeRestrictions, nodeVolumeLimits, volumeBinding, volumeZone, podTopologySpread, interPodAffinity, dynamicResources, nodeDeclaredFeatures)
	scores := of(taintToleration, nodeAffinity, nodeResourcesFit, podTopologySpread, interPodAffinity, balancedAllocation, volumeBinding)
	return []point{
		{"preEnqueue", &c.PreEnqueue, of(schedulingGates, dynamicResources, defaultPreemption)},
		{"queueSort", &c.QueueSort, of(prioritySort)},
		{"preFilter", &c.PreFilter, before},
		{"filter", &c.Filter, before | of(nodeUnschedulable, nodeName, taintToleration)},
		{"postFilter", &c.PostFilter, of(dynamicResources, defaultPreemption)},
		{"preScore", &c.PreScore, scores},
		{"score", &c.Score, scores | of(dynamicResources, imageLocality)},
		{"reserve", &c.Reserve, of(volumeBinding, dynamicResources)},
		{"permit", &c.Permit, 0},
		{"preBind", &c.PreBind, of(volumeBinding, dynamicResources)},
		{"bind", &c.Bind, of(defaultBinder)},
		{"postBind", &c.PostBind, 0},
		{"placementGenerate", &c.PlacementGenerate, 0},
		{"placementScore", &c.PlacementScore, 0},
	}
}

// plugins of a profile: what multiPoint says holds everywhere, and what is said of
// one point goes before it.
func (r *reader) plugins(c *configv1.Plugins, o *Options, p *field.Path) {
	every := point{"multiPoint", &c.MultiPoint, 1<<extended - 2}
	on, weights := r.set(every, every.has, usualWeights, p)
	for _, at := range points(c) {
		taking, own := r.set(at, on&at.has, weights, p)
		switch at.name {
		case "preEnqueue":
			o.keep(schedulingGates, taking)
		case "filter":
			for f := none; f < extended; f++ {
				if at.has.has(f) {
					o.keep(f, taking)
				}
			}
		case "postFilter":
			o.keep(defaultPreemption, taking)
		case "score":
			o.weights = [pluginCount]int64{}
			for f := none; f < extended; f++ {
				if taking.has(f) {
					o.weights[f] = own[f]
				}
			}
		case "queueSort", "bind":
			if taking == 0 {
				r.invalid(p.Child(at.name), field.OmitValueType{}, "one plugin has to be enabled")
			}
		}
	}
}

func (o *Options) keep(p plugin, on plugins) {
	if !on.has(p) {
		o.filters = o.filters.without(p)
	}
}

// set applies what is said of one point to the plugins that take part there.
func (r *reader) set(at point, on plugins, weights [pluginCount]int64, p *field.Path) (plugins, [pluginCount]int64) {
	p = p.Child(at.name)
	for i, d := range at.set.Disabled {
		if d.Name == "*" {
			on = 0
		} else {
			on = on.without(r.plugin(d.Name, at, p.Child("disabled").Index(i).Child("name")))
		}
	}
	var seen plugins
	for i, e := range at.set.Enabled {
		path := p.Child("enabled").Index(i)
		name := r.plugin(e.Name, at, path.Child("name"))
		if seen.has(name) && name != none {
			r.errs = append(r.errs, field.Duplicate(path.Child("name"), e.Name))
		}
		seen, on = seen.with(name), on.with(name)
		weights[name] = 1
		if e.Weight != nil && *e.Weight != 0 {
			r.within(path.Child("weight"), int64(*e.Weight), 0, -1, "must not be below 0")
			weights[name] = int64(*e.Weight)
		}
	}
	return on.without(none), weights
}

func (r *reader) plugin(name string, at point, p *field.Path) plugin {
	found := pluginNamed(name)
	if at.has.has(found) {
		return found
	}
	var known []string
	for f := none + 1; f < extended; f++ {
		if at.has.has(f) {
			known = append(known, f.String())
		}
	}
	slices.Sort(known)
	r.errs = append(r.errs, field.NotSupported(p, name, known))
	return none
}
