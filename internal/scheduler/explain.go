package scheduler

import (
	"context"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/proa-dev/proa/internal/api"
)

// World is a picture of a cluster, to decide on pods without a scheduler that
// runs: to explain a decision, or to try out what would fit. It is not safe for
// concurrent use.
type World struct{ w *world }

// NewWorld is empty. The same seed and the same calls give the same decisions.
// config nil means upstream's defaults.
func NewWorld(seed uint64, config *Configuration) *World { return &World{newWorld(seed, config)} }

// Set takes in objects: Nodes, Namespaces, Pods that are on a node, what selects pods
// (Services, ReplicaSets, …), what is storage, and what is devices. Others are passed over.
func (w *World) Set(all ...api.Object) {
	v := &w.w.volumes
	for _, o := range all {
		key := o.GetNamespace() + "/" + o.GetName()
		switch o := o.(type) {
		case *corev1.Node:
			w.w.setNode(o)
		case *corev1.Namespace:
			w.w.setNamespace(o.Name, labels.Set(o.Labels))
		case *corev1.Pod:
			if o.Spec.NodeName != "" && !over(o) {
				w.w.place(w.w.newPod(o), o.Spec.NodeName, false)
			}
		case *corev1.PersistentVolumeClaim:
			v.claims[key] = o
		case *corev1.PersistentVolume:
			v.pvs[o.Name] = o
		case *storagev1.StorageClass:
			v.classes[o.Name] = o
		case *storagev1.CSINode:
			v.nodes[o.Name] = o
		case *storagev1.CSIDriver:
			v.drivers[o.Name] = o
		case *storagev1.CSIStorageCapacity:
			v.capacities[key] = o
		case *storagev1.VolumeAttachment:
			v.attach(nil, o)
		case *resourcev1.ResourceClaim:
			w.w.devices.setClaim(nil, o)
		case *resourcev1.ResourceSlice:
			w.w.devices.setSlice(nil, o)
		case *resourcev1.DeviceClass:
			w.w.devices.setClass(nil, o)
		case *corev1.Service, *corev1.ReplicationController, *appsv1.ReplicaSet, *appsv1.StatefulSet:
			w.w.owners.set(nil, o)
		}
	}
	v.epoch++
}

// Schedule puts a pod on the best node and names it or, when none takes it, says
// why in the words of FailedScheduling.
func (w *World) Schedule(ctx context.Context, obj *corev1.Pod) (node, why string) {
	p := w.w.newPod(obj)
	r := w.w.decide(ctx, p, w.w.config.interested(obj))
	switch {
	case r.err != nil:
		return "", r.err.Error()
	case r.node == nil:
		return "", r.why.text
	}
	w.w.assumeDevices(r.devices)
	w.w.place(p, r.node.name, true)
	return r.node.name, ""
}

// Explanation of where a pod goes.
type Explanation struct {
	Pod     string            `json:"pod"`               // namespace/name
	Bound   string            `json:"bound,omitempty"`   // the node it is on
	Node    string            `json:"node,omitempty"`    // that it would go to now
	Message string            `json:"message,omitempty"` // why it can go nowhere
	Nodes   []NodeExplanation `json:"nodes"`
}

// NodeExplanation is one node's part in it: which filter said no and why or, when
// none did, how the score comes about.
type NodeExplanation struct {
	Node    string   `json:"node"`
	Filter  string   `json:"filter,omitempty"`
	Reasons []string `json:"reasons,omitempty"`
	Scores  []Score  `json:"scores,omitempty"`
	Total   int64    `json:"total"`
}

// Score of a plugin, 0 to 100, that counts Weight times.
type Score struct {
	Plugin string `json:"plugin"`
	Score  int64  `json:"score"`
	Weight int64  `json:"weight"`
}

// Explain where a pod would go. A pod that is on a node is looked at as if it were
// not there yet. budgets are those that preemption would have to heed.
func (w *World) Explain(ctx context.Context, obj *corev1.Pod, budgets []*policyv1.PodDisruptionBudget) Explanation {
	world := w.w
	p := world.newPod(obj)
	if have := world.placed[p.key]; have != nil {
		world.remove(p.key)
		defer world.place(have.pod, have.on, have.assumed)
	}
	out := Explanation{Pod: p.key, Bound: obj.Spec.NodeName}
	switch r := world.decide(ctx, p, world.config.interested(obj)); {
	case r.err != nil:
		out.Message = r.err.Error()
	case r.node != nil:
		out.Node = r.node.name
	default:
		out.Message = world.explain(ctx, p, r.why, budgets)
	}
	b := world.boardOf(p.class)
	cells, feasible := b.judge()
	if feasible > 0 {
		b.grade(cells, feasible)
	}
	for _, n := range world.nodes {
		e := NodeExplanation{Node: n.name}
		v := b.verdict(n.slot)
		if v == nil {
			v = world.withHopes(p, n)
		}
		if v == nil && p.need != nil {
			v = world.explainDevices(ctx, p, n)
		}
		if v != nil {
			e.Filter, e.Reasons = v.plugin.String(), v.reason
		} else {
			e.Scores = b.scores(b.line(n.slot))
			if p.need != nil && p.need.ranked && p.need.on[n.slot] != nil {
				e.Scores = append(e.Scores, Score{dynamicResources.String(), p.need.grade(n.slot), p.options.weights[dynamicResources]})
			}
			for _, s := range e.Scores {
				e.Total += s.Score * s.Weight
			}
		}
		out.Nodes = append(out.Nodes, e)
	}
	return out
}

// explain why a pod fits nowhere, and what preemption would make of it.
func (w *world) explain(ctx context.Context, p *pod, why *refusal, budgets []*policyv1.PodDisruptionBudget) string {
	if len(w.nodes) == 0 || why.hopeless() {
		return why.text
	}
	var said []string
	if p.options.filters.has(dynamicResources) {
		said = append(said, p.need.relief(p.obj).said)
	}
	if p.options.filters.has(defaultPreemption) {
		all, reason, _ := w.preempt(ctx, p, why, budgets)
		if len(all) > 0 {
			return why.text
		}
		said = append(said, reason)
	}
	return strings.TrimSpace(why.text + " " + strings.Join(said, ", "))
}

func (b *board) scores(l *line) []Score {
	c, n, o := b.c, l.node, b.c.options
	var g [4]int64
	if l.cell != nil {
		g = l.cell.grades
	}
	all := []struct {
		by    plugin
		score int64
	}{
		{nodeResourcesFit, o.fit.score(c, n)}, {balancedAllocation, o.balanced(c, n)}, {imageLocality, b.w.imageLocality(c, n)},
		{taintToleration, g[gradeTaints]}, {nodeAffinity, g[gradeAffinity]}, {podTopologySpread, g[gradeSpread]}, {interPodAffinity, g[gradePods]},
	}
	out := make([]Score, len(all))
	for i, a := range all {
		out[i] = Score{a.by.String(), a.score, o.weights[a.by]}
	}
	return out
}
