package daemonset

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/proa-dev/proa/internal/controller/owned"
)

// burst is how many pods one pass creates or deletes at the most.
const burst = 250

// state is what a decision is made from.
type state struct {
	ds    *appsv1.DaemonSet
	nodes []*corev1.Node // all, by name
	pods  []*corev1.Pod  // all that the set owns
	hash  string         // of the current template
	now   time.Time
}

// plan is what one step does about the pods.
type plan struct {
	create []string      // on these nodes
	remove []*corev1.Pod // surplus or outdated
	ended  []*corev1.Pod // to be removed, as often as their back-off allows
}

// byNode sorts pods by the node they are on or are meant for, on each node the
// scheduled and older ones first.
func (s *state) byNode() map[string][]*corev1.Pod {
	m := map[string][]*corev1.Pod{}
	for _, p := range s.pods {
		if node := target(p); node != "" {
			m[node] = append(m[node], p)
		}
	}
	for _, pods := range m {
		slices.SortStableFunc(pods, func(a, b *corev1.Pod) int {
			return cmp.Or(cmp.Compare(bit(a.Spec.NodeName == ""), bit(b.Spec.NodeName == "")), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
		})
	}
	return m
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// manage brings one pod onto every node that should have one, and takes away
// those that should not be.
func (s *state) manage() plan {
	var p plan
	on := s.byNode()
	known := map[string]bool{}
	for _, n := range s.nodes {
		known[n.Name] = true
		run, stay := wanted(s.ds, n)
		pods := on[n.Name]
		switch {
		case run && len(pods) == 0:
			p.create = append(p.create, n.Name)
		case stay:
			s.prune(pods, &p)
		default:
			for _, pod := range pods {
				if pod.DeletionTimestamp == nil {
					p.remove = append(p.remove, pod)
				}
			}
		}
	}
	for node, pods := range on { // meant for nodes that are gone; what runs there is for pod GC
		for _, pod := range pods {
			if !known[node] && pod.Spec.NodeName == "" && pod.DeletionTimestamp == nil {
				p.remove = append(p.remove, pod)
			}
		}
	}
	return p
}

// prune one node's pods to one, or to an old and a new one while the update surges.
func (s *state) prune(pods []*corev1.Pod, p *plan) {
	var running []*corev1.Pod
	for _, pod := range pods {
		switch {
		case pod.DeletionTimestamp != nil:
		case pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded:
			p.ended = append(p.ended, pod)
		default:
			running = append(running, pod)
		}
	}
	if len(running) <= 1 {
		return
	}
	if surge, _ := s.limits(1); surge == 0 {
		p.remove = append(p.remove, running[1:]...)
		return
	}
	var fresh, old *corev1.Pod
	for _, pod := range running {
		switch {
		case s.current(pod) && fresh == nil:
			fresh = pod
		case !s.current(pod) && old == nil:
			old = pod
		default:
			p.remove = append(p.remove, pod)
		}
	}
	if fresh != nil && old != nil && (!owned.Ready(old) || s.available(fresh)) {
		p.remove = append(p.remove, old)
	}
}

func (s *state) current(p *corev1.Pod) bool {
	return s.hash != "" && p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == s.hash
}

func (s *state) available(p *corev1.Pod) bool {
	ok, _ := owned.Available(p, s.ds.Spec.MinReadySeconds, s.now)
	return ok
}

// limits of a rolling update that is to reach so many nodes.
func (s *state) limits(desired int) (surge, unavailable int) {
	r := s.ds.Spec.UpdateStrategy.RollingUpdate
	if r == nil || s.ds.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType {
		return 0, 0
	}
	scale := func(v *intstr.IntOrString) int {
		n, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(v, intstr.FromInt32(0)), desired, true)
		if err != nil {
			return 0
		}
		return n
	}
	surge, unavailable = scale(r.MaxSurge), scale(r.MaxUnavailable)
	if surge == 0 && unavailable == 0 && desired > 0 {
		unavailable = 1
	}
	return surge, unavailable
}

// nodePods are the pods of one node during an update. clean is false while there
// are more than the two there may be.
type nodePods struct {
	node       *corev1.Node
	fresh, old *corev1.Pod
	clean      bool
}

// update replaces pods of earlier templates, as many at once as allowed. desired
// nodes come first, in order of their names, so that the choice is repeatable.
func (s *state) update() plan {
	if s.ds.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType || s.hash == "" {
		return plan{}
	}
	desired := 0
	var all []nodePods
	on := s.byNode()
	for _, n := range s.nodes {
		if run, _ := wanted(s.ds, n); run {
			desired++
		} else if len(on[n.Name]) == 0 {
			continue
		}
		x := nodePods{node: n, clean: true}
		for _, pod := range on[n.Name] {
			slot := &x.old
			if s.current(pod) {
				slot = &x.fresh
			}
			if pod.DeletionTimestamp != nil {
				continue
			}
			if *slot != nil {
				x.clean = false
			}
			*slot = pod
		}
		all = append(all, x)
	}
	surge, unavailable := s.limits(desired)
	if surge == 0 {
		return s.replace(all, unavailable)
	}
	return s.surge(all, surge, desired)
}

func (s *state) replace(all []nodePods, most int) (p plan) {
	down := 0
	var candidates []*corev1.Pod
	for _, x := range all {
		switch {
		case !x.clean || (x.old == nil) == (x.fresh == nil):
			down++
		case x.fresh != nil:
			if !s.available(x.fresh) {
				down++
			}
		case !s.available(x.old): // replacing it makes nothing worse
			p.remove = append(p.remove, x.old)
			down++
		default:
			candidates = append(candidates, x.old)
		}
	}
	n := min(len(candidates), max(0, most-down))
	p.remove = append(p.remove, candidates[:n]...)
	return p
}

func (s *state) surge(all []nodePods, most, desired int) (p plan) {
	surging, available := 0, 0
	var candidates []string
	var sunset []*corev1.Pod // on nodes that should have none, but are still good for the count
	for _, x := range all {
		if !x.clean {
			surging++
			continue
		}
		if x.old != nil && s.available(x.old) || x.old == nil && x.fresh != nil && s.available(x.fresh) {
			available++
		}
		if x.old == nil {
			continue
		}
		run, _ := wanted(s.ds, x.node)
		switch {
		case x.fresh != nil && s.available(x.fresh):
			p.remove = append(p.remove, x.old)
		case x.fresh != nil:
			surging++
		case !s.available(x.old) && !run:
			p.remove = append(p.remove, x.old)
		case !s.available(x.old):
			p.create = append(p.create, x.node.Name)
		case !run:
			sunset = append(sunset, x.old)
		default:
			candidates = append(candidates, x.node.Name)
		}
	}
	p.remove = append(p.remove, sunset[:min(len(sunset), max(0, available-desired))]...)
	p.create = append(p.create, candidates[:min(len(candidates), max(0, most-surging))]...)
	return p
}

// status of the set, and when a pod will have been ready for long enough.
func (s *state) status() (st appsv1.DaemonSetStatus, again time.Duration) {
	st = *s.ds.Status.DeepCopy()
	st.DesiredNumberScheduled, st.CurrentNumberScheduled, st.NumberMisscheduled, st.NumberReady = 0, 0, 0, 0
	st.UpdatedNumberScheduled, st.NumberAvailable = 0, 0
	on := s.byNode()
	for _, n := range s.nodes {
		run, _ := wanted(s.ds, n)
		pods := on[n.Name]
		if !run {
			if len(pods) > 0 {
				st.NumberMisscheduled++
			}
			continue
		}
		st.DesiredNumberScheduled++
		if len(pods) == 0 {
			continue
		}
		st.CurrentNumberScheduled++
		pods = slices.SortedStableFunc(slices.Values(pods), func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
		p := pods[0]
		if owned.Ready(p) {
			st.NumberReady++
			ok, in := owned.Available(p, s.ds.Spec.MinReadySeconds, s.now)
			if ok {
				st.NumberAvailable++
			} else if in > 0 && (again == 0 || in < again) {
				again = in
			}
		}
		if s.current(p) {
			st.UpdatedNumberScheduled++
		}
	}
	st.NumberUnavailable = st.DesiredNumberScheduled - st.NumberAvailable
	st.ObservedGeneration = s.ds.Generation
	return st, again
}

// wanted says whether a node should run a pod of the set, and whether one that
// is there may stay.
func wanted(ds *appsv1.DaemonSet, n *corev1.Node) (run, stay bool) {
	spec := &ds.Spec.Template.Spec
	if spec.NodeName != "" && spec.NodeName != n.Name {
		return false, false
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{NodeSelector: spec.NodeSelector, Affinity: spec.Affinity}}
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(n); err != nil || !ok {
		return false, false
	}
	tolerations := tolerationsOf(spec)
	if owned.Untolerated(n.Spec.Taints, tolerations, corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute) == nil {
		return true, true
	}
	return false, owned.Untolerated(n.Spec.Taints, tolerations, corev1.TaintEffectNoExecute) == nil
}

// tolerationsOf the pods: a daemon stays on a node that is not well.
func tolerationsOf(spec *corev1.PodSpec) []corev1.Toleration {
	out := slices.Clone(spec.Tolerations)
	add := func(key string, effect corev1.TaintEffect) {
		t := corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
		at := slices.IndexFunc(out, func(have corev1.Toleration) bool {
			return have.Key == t.Key && have.Operator == t.Operator && have.Effect == t.Effect && have.Value == t.Value
		})
		if at < 0 {
			out = append(out, t)
		} else {
			out[at] = t
		}
	}
	add(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute)
	add(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute)
	add(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	if spec.HostNetwork {
		add(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule)
	}
	return out
}

// podFor a node: the scheduler puts it there, since it alone matches.
func podFor(ds *appsv1.DaemonSet, node, hash string, owner metav1.OwnerReference) *corev1.Pod {
	p := owned.FromTemplate(&ds.Spec.Template, ds.Name, ds.Namespace, owner)
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	if g := ds.Annotations[appsv1.DeprecatedTemplateGeneration]; g != "" {
		p.Labels["pod-template-generation"] = g
	}
	p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] = hash
	p.Spec.Tolerations = tolerationsOf(&p.Spec)
	pin(&p.Spec, node)
	return p
}

// pin replaces the node terms' field selectors by one for the name.
func pin(spec *corev1.PodSpec, node string) {
	byName := []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}
	if spec.Affinity == nil {
		spec.Affinity = &corev1.Affinity{}
	}
	if spec.Affinity.NodeAffinity == nil {
		spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: byName}},
	}
}

// target node of a pod: where it is, or is meant to be, "" if that cannot be told.
func target(p *corev1.Pod) string {
	if p.Spec.NodeName != "" {
		return p.Spec.NodeName
	}
	if a := p.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			for _, f := range term.MatchFields {
				if f.Key == metav1.ObjectNameField && f.Operator == corev1.NodeSelectorOpIn && len(f.Values) == 1 {
					return f.Values[0]
				}
			}
		}
	}
	return ""
}
