package placement

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	helper "k8s.io/component-helpers/resource"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/scheduler"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

const (
	clusters = 20
	podsEach = 80
)

// Upstream's scheduler decides on one pod after the other. In the very state that it
// decided in, Proa has to find its node among the best, or say why there is none in
// the same words.
func TestAgainstUpstream(t *testing.T) {
	for seed := range uint64(clusters) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := Generate(seed, podsEach)
			u := startUpstream(t, c, "")
			w := scheduler.NewWorld(seed, nil)
			w.Set(u.before()...)
			for _, p := range c.Pods {
				now, why := u.decides(p)
				agree(t, now, why, w.Explain(t.Context(), unbound(now), nil))
				if now.Spec.NodeName != "" {
					w.Set(now)
				}
				if len(p.Spec.Volumes) > 0 {
					w.Set(u.storage()...)
				}
			}
		})
	}
}

// Each decides on all pods for itself: over all clusters Proa places as many, and
// spreads CPU over the nodes no worse. On one cluster alone the two differ by chance:
// upstream throws dice between nodes of one score.
func TestSpread(t *testing.T) {
	var theirs, ours struct {
		placed    int
		deviation float64
	}
	for seed := range uint64(clusters) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := Generate(seed, podsEach)
			u := startUpstream(t, c, "")
			w := scheduler.NewWorld(seed, nil)
			before := u.before()
			w.Set(before...)
			their, our := newTally(before), newTally(before)
			for _, p := range c.Pods {
				if len(p.Spec.Volumes) > 0 {
					continue // what becomes of claims is not for a picture to say
				}
				now, _ := u.decides(p)
				their.add(now)
				mine := unbound(now)
				mine.Spec.NodeName, _ = w.Schedule(t.Context(), mine)
				our.add(mine)
			}
			t.Logf("%d nodes: upstream placed %d, deviation of CPU %.4f; Proa %d, %.4f", len(their.order), their.placed, their.deviation(), our.placed, our.deviation())
			theirs.placed, theirs.deviation = theirs.placed+their.placed, theirs.deviation+their.deviation()
			ours.placed, ours.deviation = ours.placed+our.placed, ours.deviation+our.deviation()
		})
	}
	t.Logf("all clusters: upstream placed %d, deviation %.4f; Proa %d, %.4f", theirs.placed, theirs.deviation/clusters, ours.placed, ours.deviation/clusters)
	if float64(ours.placed) < 0.99*float64(theirs.placed) || ours.deviation > 1.03*theirs.deviation {
		t.Error("Proa places fewer pods, or spreads them worse, than chance explains")
	}
}

func unbound(p *corev1.Pod) *corev1.Pod {
	p = p.DeepCopy()
	p.Spec.NodeName = ""
	return p
}

// agree with one decision of upstream's.
func agree(t *testing.T, p *corev1.Pod, why string, e scheduler.Explanation) {
	t.Helper()
	if p.Spec.NodeName == "" {
		// What upstream says last here is about itself: its DynamicResources plugin was
		// not asked before, and does not find what it would have noted then.
		if e.Message != strings.TrimSuffix(why, " not found") || strings.HasSuffix(why, ". not found") && e.Node != "" {
			t.Errorf("%s\n upstream: %s\n Proa:     %s %s", p.Name, why, e.Node, e.Message)
		}
		return
	}
	best, took := int64(math.MinInt64), scheduler.NodeExplanation{}
	feasible := 0
	for _, n := range e.Nodes {
		if n.Filter == "" {
			best = max(best, n.Total)
			feasible++
		}
		if n.Node == p.Spec.NodeName {
			took = n
		}
	}
	switch {
	case took.Filter != "":
		t.Errorf("%s: upstream took %s, which Proa refuses: %s %v", p.Name, took.Node, took.Filter, took.Reasons)
	case took.Total != best && feasible > 1:
		t.Errorf("%s: upstream took %s, which scores %d; Proa's best %s scores %d\n%v", p.Name, took.Node, took.Total, e.Node, best, scores(e, took.Node, e.Node))
	}
}

func scores(e scheduler.Explanation, names ...string) (text string) {
	for _, n := range e.Nodes {
		if slices.Contains(names, n.Node) {
			text += fmt.Sprintf("  %s: %v\n", n.Node, n.Scores)
		}
	}
	return text
}

// tally of CPU that is asked for, by node.
type tally struct {
	order  []string
	room   map[string]float64
	used   map[string]float64
	placed int
}

func newTally(objects []api.Object) *tally {
	t := &tally{room: map[string]float64{}, used: map[string]float64{}}
	for _, o := range objects {
		if n, ok := o.(*corev1.Node); ok {
			t.order = append(t.order, n.Name)
			t.room[n.Name] = n.Status.Allocatable.Cpu().AsApproximateFloat64()
		}
	}
	return t
}

func (t *tally) add(p *corev1.Pod) {
	if p.Spec.NodeName == "" {
		return
	}
	asked := helper.PodRequests(p, helper.PodResourcesOptions{})
	t.used[p.Spec.NodeName] += asked.Cpu().AsApproximateFloat64()
	t.placed++
}

// deviation of the share of CPU that is asked for, over nodes.
func (t *tally) deviation() float64 {
	var sum, squares float64
	for _, name := range t.order {
		x := t.used[name] / t.room[name]
		sum, squares = sum+x, squares+x*x
	}
	n := float64(len(t.order))
	return math.Sqrt(max(0, squares/n-(sum/n)*(sum/n)))
}
