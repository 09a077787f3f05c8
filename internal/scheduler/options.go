package scheduler

import (
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Options of how nodes are filtered and scored for the pods of one scheduler name:
// a profile. See ParseConfiguration and DefaultOptions.
type Options struct {
	name    string             // spec.schedulerName
	filters plugins            // that take part in filtering, gating and preempting
	weights [pluginCount]int64 // of scores, 0 = takes no part

	fit      scoring
	balance  []corev1.ResourceName
	ignored  map[corev1.ResourceName]bool // extended resources that are not looked at
	ignoring map[string]bool              // and those of these groups (what is before the /)

	hardAffinity    int64 // what required affinity of pods that are there weighs for others
	ignorePreferred bool  // of pods that are there, for pods that prefer nothing

	spread       []corev1.TopologySpreadConstraint // for pods that have none
	systemSpread bool                              // spread is upstream's own: nodes without the labels count, too

	added          *nodeaffinity.NodeSelector
	addedPreferred *nodeaffinity.PreferredSchedulingTerms

	volumeTimeout time.Duration // for a pod's volumes to be bound or made
	deviceTimeout time.Duration // for a pod's devices to be ready
	// allocateTimeout is how long it may take to find devices on one node; 0 = no limit
	allocateTimeout time.Duration
	victimPercent   int // of the nodes that may be looked at for victims …
	victimLeast     int // … but at least so many
}

// systemSpread is upstream's: softly over hosts and zones.
var systemSpread = []corev1.TopologySpreadConstraint{
	{TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway, MaxSkew: 3},
	{TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.ScheduleAnyway, MaxSkew: 5},
}

// DefaultOptions are those of upstream's default profile.
func DefaultOptions(name string) *Options {
	return &Options{
		name: name, filters: math.MaxUint32, weights: usualWeights, fit: usualScoring(),
		balance: []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}, hardAffinity: 1,
		spread: systemSpread, systemSpread: true, volumeTimeout: 10 * time.Minute, deviceTimeout: 10 * time.Minute, allocateTimeout: 10 * time.Second,
		victimPercent: 10, victimLeast: 100,
	}
}

// Configuration of a scheduler.
type Configuration struct {
	Profiles     map[string]*Options // by spec.schedulerName
	Extenders    []*Extender         // asked in turn
	BackoffFirst time.Duration       // before a pod that did not fit is tried again, doubled with each try …
	BackoffMost  time.Duration       // … up to this
}

// DefaultConfiguration has one profile, default-scheduler.
func DefaultConfiguration() *Configuration {
	return &Configuration{
		Profiles:     map[string]*Options{corev1.DefaultSchedulerName: DefaultOptions(corev1.DefaultSchedulerName)},
		BackoffFirst: time.Second, BackoffMost: 10 * time.Second,
	}
}

// profile of a scheduler name; the usual one for a name that is nobody's, whose
// pods only count.
func (c *Configuration) profile(name string) *Options {
	if o := c.Profiles[name]; o != nil {
		return o
	}
	return DefaultOptions(name)
}
