package simulate

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	helper "k8s.io/component-helpers/resource"
)

// tally counts what is where.
type tally struct {
	shapes []Shape
	nodes  map[string]*load
	order  []string
	work   map[string]*work
	pods   int
	placed int
}

type load struct {
	shape       string
	pods        int
	cpu, memory float64 // shares requested
	ofCPU       float64
	ofMemory    float64
}

type work struct {
	pods, placed int
	nodes        map[string]bool
}

func newTally(shapes []Shape, nodes []*corev1.Node) *tally {
	t := &tally{shapes: shapes, nodes: map[string]*load{}, work: map[string]*work{}}
	i := 0
	for _, s := range shapes {
		for range s.Count {
			n := nodes[i]
			t.nodes[n.Name] = &load{shape: s.Name, ofCPU: n.Status.Allocatable.Cpu().AsApproximateFloat64(), ofMemory: n.Status.Allocatable.Memory().AsApproximateFloat64()}
			t.order = append(t.order, n.Name)
			i++
		}
	}
	return t
}

func (t *tally) pod(p *corev1.Pod) {
	t.pods++
	name := p.Namespace + "/" + ownerOf(p)
	w := t.work[name]
	if w == nil {
		w = &work{nodes: map[string]bool{}}
		t.work[name] = w
	}
	w.pods++
	l := t.nodes[p.Spec.NodeName]
	if l == nil {
		return
	}
	t.placed++
	w.placed++
	w.nodes[p.Spec.NodeName] = true
	asked := helper.PodRequests(p, helper.PodResourcesOptions{})
	l.pods++
	if l.ofCPU > 0 {
		l.cpu += asked.Cpu().AsApproximateFloat64() / l.ofCPU
	}
	if l.ofMemory > 0 {
		l.memory += asked.Memory().AsApproximateFloat64() / l.ofMemory
	}
}

// ownerOf a pod: its owner's name, without the hash of a ReplicaSet's template, or
// its own without the number at its end.
func ownerOf(p *corev1.Pod) string {
	name := p.Name
	if o := metav1.GetControllerOf(p); o != nil {
		name = o.Name
		if hash := p.Labels["pod-template-hash"]; hash != "" {
			name = strings.TrimSuffix(name, "-"+hash)
		}
		return name
	}
	return strings.TrimRight(strings.TrimRight(name, "0123456789"), "-")
}

func (t *tally) result(took time.Duration, why map[string]int) *Result {
	r := &Result{Nodes: len(t.order), Pods: t.pods, Placed: t.placed, Pending: t.pods - t.placed, Seconds: took.Seconds()}
	if took > 0 {
		r.PerSecond = math.Round(float64(t.placed) / took.Seconds())
	}
	for text, n := range why {
		r.Why = append(r.Why, Reason{text, n})
	}
	slices.SortFunc(r.Why, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Pods, a.Pods), cmp.Compare(a.Message, b.Message))
	})
	var sum, squares float64
	for _, s := range t.shapes {
		out := ShapeResult{Name: s.Name, Nodes: s.Count}
		for _, name := range t.order {
			l := t.nodes[name]
			if l.shape != s.Name {
				continue
			}
			if l.pods == 0 {
				out.Empty++
			}
			out.Pods += l.pods
			out.CPU += l.cpu * 100 / float64(s.Count)
			out.Memory += l.memory * 100 / float64(s.Count)
			sum += l.cpu
			squares += l.cpu * l.cpu
		}
		r.Shapes = append(r.Shapes, out)
	}
	n := float64(len(t.order))
	r.Spread = math.Sqrt(max(0, squares/n-(sum/n)*(sum/n)))
	for _, name := range slices.Sorted(maps.Keys(t.work)) {
		w := t.work[name]
		r.Work = append(r.Work, WorkResult{name, w.pods, w.placed, len(w.nodes)})
	}
	return r
}
