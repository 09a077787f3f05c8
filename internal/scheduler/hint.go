package scheduler

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	deviceapi "github.com/proa-dev/proa/internal/api/resource"
)

// change is what can make room for a pod that fits nowhere.
type change uint32

const (
	nodeCame change = 1 << iota
	nodeGone
	nodeLabels
	nodeTaints // or spec.unschedulable
	nodeRoom   // allocatable
	nodeFeatures
	podCame
	podGone
	podLabels
	podShrunk // asks for less than it did
	claimChanged
	volumeChanged
	classChanged
	csiChanged // CSINode or CSIDriver
	capacityChanged
	attachmentGone
	deviceClaimChanged
	deviceClassChanged
	deviceSliceChanged
	changes = iota
)

// happening is something that happened: what it is, and about whom.
type happening struct {
	what  change
	node  *node     // of node…
	pod   *class    // of pod…: as it is or, gone, was; for podLabels as it was …
	now   *class    // … and as it is
	claim string    // of claimChanged, deviceClaimChanged: namespace/name
	freed bool      // of deviceClaimChanged: devices that others may have …
	owner types.UID // … and the pod for whose extended resources the claim is or was
	class *resourcev1.DeviceClass
}

// helps says which changes may turn a plugin's no into a yes.
var helps = [pluginCount]change{
	nodeUnschedulable:    nodeCame | nodeTaints,
	taintToleration:      nodeCame | nodeTaints,
	nodeAffinity:         nodeCame | nodeLabels,
	nodePorts:            nodeCame | podGone,
	nodeResourcesFit:     nodeCame | nodeRoom | podGone | podShrunk | deviceClassChanged,
	volumeRestrictions:   nodeCame | podGone | claimChanged,
	nodeVolumeLimits:     nodeCame | podGone | claimChanged | csiChanged | attachmentGone,
	volumeBinding:        nodeCame | nodeLabels | claimChanged | volumeChanged | classChanged | csiChanged | capacityChanged,
	volumeZone:           nodeCame | nodeLabels | claimChanged | volumeChanged | classChanged,
	podTopologySpread:    nodeCame | nodeGone | nodeLabels | nodeTaints | podCame | podGone | podLabels,
	interPodAffinity:     nodeCame | nodeLabels | podCame | podGone | podLabels,
	dynamicResources:     nodeCame | nodeLabels | nodeRoom | deviceClaimChanged | deviceClassChanged | deviceSliceChanged,
	nodeDeclaredFeatures: nodeCame | nodeFeatures,
	extended:             1<<changes - 1,
}

// helpful are the changes that help against any of the plugins that said no.
func (by plugins) helpful() (c change) {
	for p, h := range helps {
		if by.has(plugin(p)) {
			c |= h
		}
	}
	return c
}

// mayHelp says whether an event may let pods of a class fit that plugins refused:
// upstream's queueing hints (KEP-4247), worked out for a whole class at once.
func (w *world) mayHelp(c *class, by plugins, e happening) bool {
	if by.helpful()&e.what == 0 {
		return false
	}
	if by.has(extended) {
		return true
	}
	switch {
	case e.node != nil:
		return w.nodeMayHelp(c, by, e)
	case e.what&(podCame|podGone|podLabels|podShrunk) != 0:
		return w.podMayHelp(c, by, e)
	case e.what == claimChanged:
		return slices.ContainsFunc(c.claims, func(u claimUse) bool { return u.key == e.claim })
	case e.class != nil && !by.has(dynamicResources):
		return c.asksFor(e.class)
	}
	return true
}

// asksFor extended resources that a device class stands for.
func (c *class) asksFor(class *resourcev1.DeviceClass) bool {
	return slices.ContainsFunc(c.extended, func(name corev1.ResourceName) bool {
		return deviceapi.StandsFor(class, name)
	})
}

// mayHelpPod says of one pod what mayHelp says of its class: its claims are its own.
func (w *world) mayHelpPod(p *pod, e happening) bool {
	switch {
	case e.what == deviceClaimChanged:
		return e.freed || p.obj.UID == e.owner || usesClaim(p.obj, e.claim)
	case e.class != nil:
		return p.asksFor(e.class) || w.devices.names(p.obj, e.class.Name)
	}
	return true
}

// nodeMayHelp: the node itself is none that refuses the pods whatever is on it, or
// what pods are counted by has changed.
func (w *world) nodeMayHelp(c *class, by plugins, e happening) bool {
	if by.has(podTopologySpread) || by.has(interPodAffinity) && e.what&(nodeCame|nodeLabels) != 0 {
		return true
	}
	return e.node.obj != nil && w.fitsNode(c, e.node) == nil
}

func (w *world) podMayHelp(c *class, by plugins, e happening) bool {
	gone := e.what&podGone != 0
	switch {
	case by.has(nodeResourcesFit) && e.what&(podGone|podShrunk) != 0:
		return true
	case by.has(nodePorts) && gone && slices.ContainsFunc(c.ports, func(a hostPort) bool {
		return slices.ContainsFunc(e.pod.ports, a.clashes)
	}):
		return true
	case by.has(nodeVolumeLimits) && gone && len(e.pod.claims) > 0:
		return true
	case by.has(volumeRestrictions) && gone && (c.conflicts(e.pod) || c.sharesClaim(e.pod)):
		return true
	case by.has(podTopologySpread) && slices.ContainsFunc(c.spread, func(s spread) bool { return s.hard && w.countsAny(s.term, e) }):
		return true
	case by.has(interPodAffinity):
		return w.affinityMayHelp(c, e)
	}
	return false
}

func (w *world) affinityMayHelp(c *class, e happening) bool {
	near := e.what&(podCame|podLabels) != 0 && slices.ContainsFunc(c.affinity, func(t *term) bool { return w.countsAny(t, e) })
	away := e.what&(podGone|podLabels) != 0 && slices.ContainsFunc(c.anti, func(t *term) bool { return w.countsAny(t, e) })
	return near || away || e.what&(podGone|podLabels) != 0 && slices.ContainsFunc(e.pod.anti, func(t *term) bool { return w.terms.matches(t, c.sample) })
}

// countsAny: a term counts the pod of an event, before or after it.
func (w *world) countsAny(t *term, e happening) bool {
	return w.terms.matches(t, e.pod.sample) || e.now != nil && w.terms.matches(t, e.now.sample)
}

func (c *class) sharesClaim(other *class) bool {
	return slices.ContainsFunc(c.claims, func(a claimUse) bool {
		return slices.ContainsFunc(other.claims, func(b claimUse) bool { return a.key == b.key })
	})
}
