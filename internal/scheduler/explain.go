package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/proa-dev/proa/internal/api"
)

// World is a picture of a cluster, to decide on pods without a scheduler that
// runs: to explain a decision, or to try out what would fit. It is not safe for
// concurrent use.
type World struct{ w *world }

// NewWorld is empty. The same seed and the same calls give the same decisions.
func NewWorld(seed uint64, profiles map[string]*Options) *World {
	w := newWorld(seed)
	w.options = profiles
	return &World{w}
}

// Set takes in objects: Nodes, Namespaces, Pods that are on a node, and those of
// storage. Others are passed over.
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
			if o.Spec.NodeName != "" && o.Status.Phase != corev1.PodSucceeded && o.Status.Phase != corev1.PodFailed {
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
		}
	}
	v.epoch++
}

// Schedule puts a pod on the best node and names it or, when none takes it, says
// why in the words of FailedScheduling.
func (w *World) Schedule(obj *corev1.Pod) (node, why string) {
	p := w.w.newPod(obj)
	r := w.w.plan(p)
	if r.node == nil {
		return "", r.why.text
	}
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
func (w *World) Explain(obj *corev1.Pod, budgets []*policyv1.PodDisruptionBudget) Explanation {
	world := w.w
	p := world.newPod(obj)
	if have := world.placed[p.key]; have != nil {
		world.remove(p.key)
		defer world.place(have.pod, have.on, have.assumed)
	}
	out := Explanation{Pod: p.key, Bound: obj.Spec.NodeName}
	if r := world.plan(p); r.node != nil {
		out.Node = r.node.name
	} else {
		out.Message = r.why.text
		if len(world.nodes) > 0 {
			if c, why, _ := world.preempt(p, r.why, budgets); c == nil {
				out.Message += " " + why
			}
		}
	}
	b := world.boardOf(p.class)
	cells, feasible := b.judge()
	if feasible > 0 {
		b.grade(cells, feasible)
	}
	for _, n := range world.nodes {
		e := NodeExplanation{Node: n.name}
		v := b.verdict(n.slot)
		if v.ok() {
			v = world.withHopes(p, n)
		}
		if e.Filter, e.Reasons = v.plugin, v.reason; v.ok() {
			e.Scores = b.scores(&b.lines[n.slot])
			for _, s := range e.Scores {
				e.Total += s.Score * s.Weight
			}
		}
		out.Nodes = append(out.Nodes, e)
	}
	return out
}

func (b *board) scores(l *line) []Score {
	c, n, o := b.c, l.node, b.c.options
	var g [4]int64
	if l.cell != nil {
		g = l.cell.grades
	}
	all := []Score{
		{"NodeResourcesFit", leastAllocated(c, n), 1}, {"NodeResourcesBalancedAllocation", balanced(c, n), 1},
		{"ImageLocality", b.w.imageLocality(c, n), 1}, {"TaintToleration", g[gradeTaints], weightTaints},
		{"NodeAffinity", g[gradeAffinity], weightAffinity}, {"PodTopologySpread", g[gradeSpread], weightSpread},
		{"InterPodAffinity", g[gradePods], weightPods},
	}
	for i := range all {
		all[i].Weight = o.weight(all[i].Plugin, all[i].Weight)
	}
	return all
}
