package scheduler

// plugin is one of those of upstream's default profile, in its order: the first
// filter that says no is the one whose words are told.
type plugin uint8

const (
	none plugin = iota
	schedulingGates
	prioritySort
	nodeUnschedulable
	nodeName
	taintToleration
	nodeAffinity
	nodePorts
	nodeResourcesFit
	volumeRestrictions
	nodeVolumeLimits
	volumeBinding
	volumeZone
	podTopologySpread
	interPodAffinity
	dynamicResources
	defaultPreemption
	balancedAllocation
	imageLocality
	defaultBinder
	nodeDeclaredFeatures
	extended // extenders, which are no plugin
	pluginCount
)

var pluginNames = [pluginCount]string{
	schedulingGates: "SchedulingGates", prioritySort: "PrioritySort", nodeUnschedulable: "NodeUnschedulable", nodeName: "NodeName",
	taintToleration: "TaintToleration", nodeAffinity: "NodeAffinity", nodePorts: "NodePorts", nodeResourcesFit: "NodeResourcesFit",
	volumeRestrictions: "VolumeRestrictions", nodeVolumeLimits: "NodeVolumeLimits", volumeBinding: "VolumeBinding", volumeZone: "VolumeZone",
	podTopologySpread: "PodTopologySpread", interPodAffinity: "InterPodAffinity", dynamicResources: "DynamicResources",
	defaultPreemption: "DefaultPreemption", balancedAllocation: "NodeResourcesBalancedAllocation", imageLocality: "ImageLocality",
	defaultBinder: "DefaultBinder", nodeDeclaredFeatures: "NodeDeclaredFeatures", extended: "Extender",
}

func (p plugin) String() string { return pluginNames[p] }

// pluginNamed by a configuration; none = there is no such plugin.
func pluginNamed(name string) plugin {
	for p := none + 1; p < extended; p++ {
		if pluginNames[p] == name {
			return p
		}
	}
	return none
}

// plugins is a set of them.
type plugins uint32

func (s plugins) has(p plugin) bool        { return s&(1<<p) != 0 }
func (s plugins) with(p plugin) plugins    { return s | 1<<p }
func (s plugins) without(p plugin) plugins { return s &^ (1 << p) }

// usualWeights of scores, each of which is 0 to 100.
var usualWeights = [pluginCount]int64{
	taintToleration: 3, nodeAffinity: 2, nodeResourcesFit: 1, podTopologySpread: 2, interPodAffinity: 2,
	dynamicResources: 2, balancedAllocation: 1, imageLocality: 1,
}

// verdict is why a pod cannot be on a node; nil when it can. It is shared and must
// not be changed.
type verdict struct {
	plugin plugin
	reason []string
	final  bool // taking other pods off the node would not help
}

func no(p plugin, reason string) *verdict      { return &verdict{p, []string{reason}, false} }
func noFinal(p plugin, reason string) *verdict { return &verdict{p, []string{reason}, true} }

// What filters say, in upstream's words.
var (
	saidUnschedulable = noFinal(nodeUnschedulable, "node(s) were unschedulable")
	saidTainted       = noFinal(taintToleration, "node(s) had untolerated taint(s)")
	saidNotAdded      = noFinal(nodeAffinity, "node(s) didn't match scheduler-enforced node affinity")
	saidNotAffine     = noFinal(nodeAffinity, "node(s) didn't match Pod's node affinity/selector")
	saidNotNamed      = noFinal(nodeAffinity, "node(s) didn't satisfy plugin(s) [NodeAffinity]")
	saidNamesConflict = noFinal(nodeAffinity, "pod affinity terms conflict")
	saidPorts         = no(nodePorts, "node(s) didn't have free ports for the requested pod ports")
	saidDisk          = no(volumeRestrictions, "node(s) had no available disk")
	saidOncePod       = no(volumeRestrictions, "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod")
	saidVolumeCount   = no(nodeVolumeLimits, "node(s) exceed max volume count")
	saidZone          = noFinal(volumeZone, "node(s) had no available volume zone")
	saidSpreadLabel   = noFinal(podTopologySpread, "node(s) didn't match pod topology spread constraints (missing required label)")
	saidSpread        = no(podTopologySpread, "node(s) didn't match pod topology spread constraints")
	saidNotNear       = noFinal(interPodAffinity, "node(s) didn't match pod affinity rules")
	saidShunned       = no(interPodAffinity, "node(s) didn't match pod anti-affinity rules")
	saidAgainst       = no(interPodAffinity, "node(s) didn't satisfy existing pods anti-affinity rules")
	saidNoVictims     = noFinal(defaultPreemption, "No preemption victims found for incoming pod")
	saidUseless       = noFinal(defaultPreemption, "Preemption is not helpful for scheduling")
	saidExtender      = noFinal(extended, "node(s) were rejected by an extender")
	saidFeatures      = noFinal(nodeDeclaredFeatures, "node(s) didn't match Pod's required features")
)
