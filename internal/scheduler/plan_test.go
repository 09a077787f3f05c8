package scheduler

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func aNode(name, zone string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name, corev1.LabelTopologyZone: zone}},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("10"),
		}},
	}
	for _, f := range change {
		f(n)
	}
	return n
}

func aPod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name), Labels: map[string]string{"app": "a"}},
		Spec:       corev1.PodSpec{SchedulerName: "default-scheduler", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func cpu(q string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(q)}
	}
}

func priority(v int32) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.Priority = &v } }

func affinity(a corev1.Affinity) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Affinity = &a }
}

func byApp(key string) corev1.PodAffinityTerm {
	return corev1.PodAffinityTerm{TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}}
}

func worldOf(nodes ...*corev1.Node) *world {
	w := newWorld(1, nil)
	for _, n := range nodes {
		w.setNode(n)
	}
	return w
}

// put pods on nodes: "node" → pods.
func (w *world) with(on string, pods ...*corev1.Pod) *world {
	for _, p := range pods {
		w.place(w.newPod(p), on, false)
	}
	return w
}

func TestPlan(t *testing.T) {
	taint := func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "k", Value: "v", Effect: corev1.TaintEffectNoSchedule}}
	}
	spread := func(p *corev1.Pod) {
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}},
		}}
	}
	hostPort := func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}}
	}
	for _, c := range []struct {
		what  string
		world *world
		pod   *corev1.Pod
		want  string // node, or the message
	}{
		{"the emptier node", worldOf(aNode("a", "z"), aNode("b", "z")).with("a", aPod("x", cpu("2"))), aPod("p", cpu("1")), "b"},
		{"no nodes", worldOf(), aPod("p"), "no nodes available to schedule pods"},
		{"too little", worldOf(aNode("a", "z"), aNode("b", "z", taint)), aPod("p", cpu("5")), "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s)."},
		{"tolerated", worldOf(aNode("a", "z", taint)), aPod("p", func(p *corev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpExists}}
		}), "a"},
		{"cordoned", worldOf(aNode("a", "z", func(n *corev1.Node) { n.Spec.Unschedulable = true })), aPod("p"), "0/1 nodes are available: 1 node(s) were unschedulable."},
		{"selected", worldOf(aNode("a", "y"), aNode("b", "z")), aPod("p", func(p *corev1.Pod) {
			p.Spec.NodeSelector = map[string]string{corev1.LabelTopologyZone: "z"}
		}), "b"},
		{"port taken", worldOf(aNode("a", "z")).with("a", aPod("x", hostPort)), aPod("p", hostPort), "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."},
		{"with its like", worldOf(aNode("a", "y"), aNode("b", "z")).with("b", aPod("x")),
			aPod("p", affinity(corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{byApp(corev1.LabelTopologyZone)}}})), "b"},
		{"away from its like", worldOf(aNode("a", "y"), aNode("b", "z")).with("b", aPod("x")),
			aPod("p", affinity(corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{byApp(corev1.LabelTopologyZone)}}})), "a"},
		{"kept away by what is there", worldOf(aNode("a", "y")).with("a", aPod("x", affinity(corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{byApp(corev1.LabelTopologyZone)}}}))),
			aPod("p"), "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules."},
		{"the first of an affine group", worldOf(aNode("a", "y")),
			aPod("p", affinity(corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{byApp(corev1.LabelTopologyZone)}}})), "a"},
		{"spread over zones", worldOf(aNode("a", "y"), aNode("b", "y"), aNode("c", "z")).with("a", aPod("x")), aPod("p", spread), "c"},
		{"spread needs the label", worldOf(aNode("a", "y", func(n *corev1.Node) { n.Labels = nil })), aPod("p", spread),
			"0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label)."},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := c.world.plan(c.world.newPod(c.pod))
			got := ""
			if r.node != nil {
				got = r.node.name
			} else {
				got = r.why.text
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A board that follows says the same as one that begins anew, whatever happens.
func TestBoardFollows(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(seed, nil)
		shapes := []func(*corev1.Pod){
			func(*corev1.Pod) {},
			cpu("100m"),
			priority(3),
			spreadOver3(corev1.DoNotSchedule, corev1.LabelTopologyZone),
			spreadOver3(corev1.DoNotSchedule, corev1.LabelHostname),
			spreadOver3(corev1.ScheduleAnyway, corev1.LabelHostname),
			affinity(corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{byApp(corev1.LabelTopologyZone)}}}),
			affinity(corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{byApp(corev1.LabelHostname), byApp(corev1.LabelTopologyZone)}}}),
			affinity(corev1.Affinity{PodAffinity: &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 3, PodAffinityTerm: byApp(corev1.LabelTopologyZone)}}}}),
			func(p *corev1.Pod) {
				p.Spec.NodeSelector = map[string]string{"big": "1"}
				spreadOver3(corev1.DoNotSchedule, corev1.LabelHostname)(p)
			},
		}
		for step := range 300 {
			name := fmt.Sprint("n", rnd.IntN(12))
			switch rnd.IntN(10) {
			case 0, 1:
				w.setNode(aNode(name, fmt.Sprint("z", rnd.IntN(3)), func(n *corev1.Node) {
					if rnd.IntN(2) == 0 {
						n.Labels["big"] = "1"
					}
					if rnd.IntN(4) == 0 {
						n.Labels[corev1.LabelHostname] = "twin"
					}
				}))
			case 2:
				w.removeNode(name)
			case 3, 4, 5:
				w.with(name, aPod(fmt.Sprint(rnd.IntN(40)), shapes[rnd.IntN(len(shapes))]))
			case 6:
				w.remove("ns/" + fmt.Sprint(rnd.IntN(40)))
			default:
				p := w.newPod(aPod("p", shapes[rnd.IntN(len(shapes))]))
				r := w.plan(p)
				p.class.board = &board{w: w, c: p.class}
				anew := w.plan(p)
				if r.node != anew.node || r.score != anew.score {
					t.Fatalf("seed %d, step %d: %+v, anew %+v", seed, step, r, anew)
				}
				if r.node == nil && r.why.text != anew.why.text {
					t.Fatalf("seed %d, step %d: %q, anew %q", seed, step, r.why.text, anew.why.text)
				}
				if r.node == nil {
					before := len(w.placed)
					w.preempt(t.Context(), p, r.why, nil)
					if len(w.placed) != before {
						t.Fatalf("preemption left %d pods of %d", len(w.placed), before)
					}
				}
			}
		}
	}
}

func spreadOver3(when corev1.UnsatisfiableConstraintAction, key string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: when,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}},
		}}
	}
}

func TestPreempt(t *testing.T) {
	w := worldOf(aNode("a", "z"), aNode("b", "z")).
		with("a", aPod("a1", cpu("2"), priority(5)), aPod("a2", cpu("2"), priority(1))).
		with("b", aPod("b1", cpu("4"), priority(3)))
	p := w.newPod(aPod("p", cpu("2"), priority(10)))
	r := w.plan(p)
	if r.node != nil {
		t.Fatalf("fits on %s", r.node.name)
	}
	all, _, _ := w.preempt(t.Context(), p, r.why, nil)
	c := least(all)
	if c == nil || c.node.name != "a" || len(c.victims) != 1 || c.victims[0].obj.Name != "a2" {
		t.Fatalf("got %+v, want a2 to leave a", c)
	}
	if len(w.placed) != 3 {
		t.Errorf("%d pods left in the world, want all 3", len(w.placed))
	}
	for _, c := range []struct {
		pod  *corev1.Pod
		want string
	}{
		{aPod("low", cpu("2")), "preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."},
		{aPod("mid", cpu("3"), priority(2)), "preemption: 0/2 nodes are available: 1 Insufficient cpu, 1 No preemption victims found for incoming pod."},
		{aPod("big", cpu("9"), priority(9)), "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."},
		{aPod("kind", cpu("2"), priority(9), func(p *corev1.Pod) { p.Spec.PreemptionPolicy = new(corev1.PreemptNever) }), "preemption: not eligible due to preemptionPolicy=Never."},
	} {
		p := w.newPod(c.pod)
		if all, why, _ := w.preempt(t.Context(), p, w.plan(p).why, nil); len(all) > 0 || why != c.want {
			t.Errorf("%s: got %+v, %q, want %q", c.pod.Name, all, why, c.want)
		}
	}
}

func TestQueue(t *testing.T) {
	q, w, now := newQueue(DefaultConfiguration()), newWorld(1, nil), time.Unix(1000, 0)
	low, high := w.newPod(aPod("low")), w.newPod(aPod("high", priority(9)))
	q.put(low, now)
	q.put(high, now.Add(time.Second))
	if p := q.pop(now); p != high {
		t.Fatalf("got %s, want the higher priority first", p.key)
	}
	q.failed(high, plugins(0).with(nodeResourcesFit), now)
	q.wake(w, happening{what: podCame, pod: low.class}, now)
	if p := q.pop(now.Add(time.Hour)); p != low {
		t.Fatal("a pod that came does not make room: want low next")
	}
	q.wake(w, happening{what: podGone, pod: low.class}, now)
	fresh := w.newPod(aPod("fresh"))
	q.put(fresh, now)
	if p := q.pop(now); p != fresh {
		t.Errorf("got %s: a pod that failed just now has to back off while there is something else to do", p.key)
	}
	if p := q.pop(now); p != high {
		t.Error("a pod that backs off is taken when there is nothing else to do")
	}
	q.again(high, now)
	if q.pop(now) != nil {
		t.Error("a pod that failed by an error backs off whatever there is to do")
	}
	if p := q.pop(now.Add(time.Second)); p != high {
		t.Error("want high after its back-off")
	}
}

func BenchmarkPlan(b *testing.B) {
	shapes := map[string]func(*corev1.Pod){
		"plain": func(*corev1.Pod) {},
		"default": func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "rs", Controller: new(true)}}
		},
		"spread":   spreadOver3(corev1.DoNotSchedule, corev1.LabelTopologyZone),
		"hosts":    spreadOver3(corev1.DoNotSchedule, corev1.LabelHostname),
		"affinity": affinity(corev1.Affinity{PodAffinity: &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 3, PodAffinityTerm: byApp(corev1.LabelTopologyZone)}}}}),
	}
	for _, nodes := range []int{100, 1000, 5000, 15000} {
		for _, shape := range []string{"plain", "default", "spread", "hosts", "affinity"} {
			b.Run(fmt.Sprintf("%s/%d", shape, nodes), func(b *testing.B) {
				w := newWorld(1, nil)
				for i := range nodes {
					w.setNode(aNode(fmt.Sprintf("n%05d", i), fmt.Sprint(i%3), func(n *corev1.Node) {
						n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("1000000")
						n.Status.Allocatable[corev1.ResourceCPU] = resource.MustParse("1000000")
					}))
				}
				w.owners.set(nil, &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "rs"}, Spec: appsv1.ReplicaSetSpec{
					Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}},
				}})
				b.ResetTimer()
				for i := range b.N {
					p := w.newPod(aPod(fmt.Sprint(i), cpu("100m"), shapes[shape]))
					r := w.plan(p)
					w.place(p, r.node.name, true)
				}
			})
		}
	}
}
