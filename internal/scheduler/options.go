package scheduler

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"sigs.k8s.io/yaml"
)

// Options of how nodes are filtered and scored for the pods of one scheduler name.
type Options struct {
	Disabled map[string]bool  // plugins that do not take part
	Weights  map[string]int64 // of scores; those not named have upstream's defaults
	Added    *corev1.NodeSelector

	added *nodeaffinity.NodeSelector
}

func (o *Options) weight(plugin string, usual int64) int64 {
	if o.Disabled[plugin] {
		return 0
	}
	if w, ok := o.Weights[plugin]; ok {
		return w
	}
	return usual
}

// plugins that there are, and may be turned off.
var plugins = []string{
	"NodeUnschedulable", "TaintToleration", "NodeAffinity", "NodePorts", "NodeResourcesFit", "NodeResourcesBalancedAllocation",
	"ImageLocality", "VolumeRestrictions", "NodeVolumeLimits", "VolumeBinding", "VolumeZone", "PodTopologySpread", "InterPodAffinity",
	"DefaultPreemption",
}

// configuration is what is read of a KubeSchedulerConfiguration.
type configuration struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Profiles   []struct {
		SchedulerName string               `json:"schedulerName"`
		Plugins       map[string]pluginSet `json:"plugins"`
		PluginConfig  []struct {
			Name string `json:"name"`
			Args struct {
				AddedAffinity *corev1.NodeAffinity `json:"addedAffinity"`
			} `json:"args"`
		} `json:"pluginConfig"`
	} `json:"profiles"`
}

type pluginSet struct {
	Enabled, Disabled []struct {
		Name   string `json:"name"`
		Weight int64  `json:"weight"`
	}
}

// ParseConfiguration reads the profiles of a kubescheduler.config.k8s.io/v1
// KubeSchedulerConfiguration, by scheduler name: plugins that are turned off,
// weights of scores, and the affinity that NodeAffinity adds. The error says which
// field is wrong.
func ParseConfiguration(text []byte) (map[string]*Options, error) {
	var c configuration
	if err := yaml.Unmarshal(text, &c); err != nil {
		return nil, fmt.Errorf("not a KubeSchedulerConfiguration: %w", err)
	}
	if c.APIVersion != "kubescheduler.config.k8s.io/v1" || c.Kind != "KubeSchedulerConfiguration" {
		return nil, fmt.Errorf("%s %s: write apiVersion: kubescheduler.config.k8s.io/v1 and kind: KubeSchedulerConfiguration", c.APIVersion, c.Kind)
	}
	out := map[string]*Options{}
	for i, p := range c.Profiles {
		if p.SchedulerName == "" {
			p.SchedulerName = corev1.DefaultSchedulerName
		}
		if out[p.SchedulerName] != nil {
			return nil, fmt.Errorf("profiles[%d].schedulerName: %q is there twice", i, p.SchedulerName)
		}
		o := &Options{Disabled: map[string]bool{}, Weights: map[string]int64{}}
		for point, set := range p.Plugins {
			if err := o.take(point, set); err != nil {
				return nil, fmt.Errorf("profiles[%d].plugins.%s: %w", i, point, err)
			}
		}
		for j, a := range p.PluginConfig {
			if a.Name == "NodeAffinity" && a.Args.AddedAffinity != nil {
				o.Added = a.Args.AddedAffinity.RequiredDuringSchedulingIgnoredDuringExecution
			} else {
				return nil, fmt.Errorf("profiles[%d].pluginConfig[%d]: of the arguments of plugins only NodeAffinity's addedAffinity can be set, not %s's", i, j, a.Name)
			}
		}
		if o.Added != nil {
			added, err := nodeaffinity.NewNodeSelector(o.Added)
			if err != nil {
				return nil, fmt.Errorf("profiles[%d].pluginConfig: addedAffinity: %w", i, err)
			}
			o.added = added
		}
		out[p.SchedulerName] = o
	}
	return out, nil
}

func (o *Options) take(point string, set pluginSet) error {
	enabled := map[string]bool{}
	for _, p := range set.Enabled {
		if !slices.Contains(plugins, p.Name) {
			return fmt.Errorf("there is no plugin %q; there are %v", p.Name, plugins)
		}
		enabled[p.Name] = true
		if p.Weight > 0 {
			o.Weights[p.Name] = p.Weight
		}
	}
	for _, p := range set.Disabled {
		names := []string{p.Name}
		if p.Name == "*" {
			names = plugins
		} else if !slices.Contains(plugins, p.Name) {
			return fmt.Errorf("there is no plugin %q; there are %v", p.Name, plugins)
		}
		for _, name := range names {
			switch {
			case enabled[name]:
			case point == "score":
				o.Weights[name] = 0
			default:
				o.Disabled[name] = true
			}
		}
	}
	return nil
}
