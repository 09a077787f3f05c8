package deployment

import (
	"cmp"
	"math"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// state is what a decision is made from.
type state struct {
	d    *appsv1.Deployment
	sets []*appsv1.ReplicaSet // all that the Deployment owns
	// busy says that pods of old sets are still there, ended or not: a Recreate
	// strategy waits for them to be gone.
	busy bool
	now  time.Time
}

// plan is one step towards the spec. After it is carried out the watch brings
// the next. Objects in it are private copies.
type plan struct {
	create   *appsv1.ReplicaSet   // the set of the current template
	update   []*appsv1.ReplicaSet // sets with changed replicas or annotations
	scaled   []scaling            // what of that is scaling, for the events
	remove   []*appsv1.ReplicaSet // history beyond the limit
	revision string               // for the Deployment's annotation, "" = as it is
	status   appsv1.DeploymentStatus
	again    time.Duration // look again though nothing happened, 0 = no need
}

type scaling struct {
	name     string
	from, to int32
}

// sets in a decision, told apart.
type parts struct {
	state
	new *appsv1.ReplicaSet // of the current template, nil if there is none yet
	old []*appsv1.ReplicaSet
	p   *plan
}

// decide makes one step: status alone for what is being deleted; scaling alone
// for what is paused or was scaled by its user; else a step of the rollout.
func decide(s state) plan {
	p := plan{}
	w := &parts{state: s, p: &p}
	w.new, w.old = split(s.d, s.sets)
	st := s.d.DeepCopy()
	pauseCondition(st, s.now)
	w.d = st
	switch {
	case s.d.DeletionTimestamp != nil:
	case s.d.Spec.Paused:
		w.adoptRevision(false)
		w.scale()
		w.tidy()
	case w.scaledByUser():
		w.adoptRevision(false)
		w.scale()
	case s.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		w.recreate()
	default:
		w.roll()
	}
	w.finish()
	return p
}

// split finds the oldest set with the current template; the rest is old.
func split(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) (current *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) {
	sets = slices.Clone(sets)
	slices.SortFunc(sets, byAge)
	for _, rs := range sets {
		if current == nil && sameTemplate(&rs.Spec.Template, &d.Spec.Template) {
			current = rs
		} else {
			old = append(old, rs)
		}
	}
	return current, old
}

func byAge(a, b *appsv1.ReplicaSet) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

// roll: grow the new set as far as the surge allows, then shrink the old ones as
// far as availability allows, never both in one step.
func (w *parts) roll() {
	if w.adoptRevision(true); w.p.create != nil {
		return
	}
	want := *w.d.Spec.Replicas
	have := *w.new.Spec.Replicas
	switch {
	case have > want:
		w.resize(w.new, want)
		return
	case have < want:
		room := want + surge(w.d) - total(w.sets)
		if grow := min(room, want-have); grow > 0 {
			w.resize(w.new, have+grow)
			return
		}
	}
	if w.shrinkOld() {
		return
	}
	if w.complete() {
		w.tidy()
	}
}

// shrinkOld takes away first what of the old sets is not available anyway, then
// as much as may be missing. It says whether it took anything.
func (w *parts) shrinkOld() bool {
	if total(w.old) == 0 {
		return false
	}
	least := *w.d.Spec.Replicas - unavailable(w.d)
	room := total(w.sets) - least - (*w.new.Spec.Replicas - w.new.Status.AvailableReplicas)
	if room <= 0 {
		return false
	}
	size := map[*appsv1.ReplicaSet]int32{}
	for _, rs := range w.old {
		n := *rs.Spec.Replicas
		if sick := min(room, n-rs.Status.AvailableReplicas); n > 0 && sick > 0 {
			n -= sick
			room -= sick
		}
		size[rs] = n
	}
	spare := w.new.Status.AvailableReplicas - least
	for _, rs := range w.old {
		spare += rs.Status.AvailableReplicas
	}
	for _, rs := range w.old {
		if take := min(size[rs], spare); take > 0 {
			size[rs] -= take
			spare -= take
		}
	}
	took := false
	for _, rs := range w.old {
		if size[rs] != *rs.Spec.Replicas {
			w.resize(rs, size[rs])
			took = true
		}
	}
	return took
}

// recreate: all old pods go, and are gone, before the first new one comes.
func (w *parts) recreate() {
	took := false
	for _, rs := range w.old {
		if *rs.Spec.Replicas > 0 {
			w.resize(rs, 0)
			took = true
		}
	}
	if took || w.busy {
		return
	}
	if w.adoptRevision(true); w.p.create != nil {
		return
	}
	if *w.new.Spec.Replicas != *w.d.Spec.Replicas {
		w.resize(w.new, *w.d.Spec.Replicas)
		return
	}
	if w.complete() {
		w.tidy()
	}
}

// scaledByUser: the sets were made for another number of replicas than the spec
// has now.
func (w *parts) scaledByUser() bool {
	for _, rs := range w.sets {
		if *rs.Spec.Replicas > 0 {
			if desired, ok := number(rs, desiredAnnotation); ok && desired != *w.d.Spec.Replicas {
				return true
			}
		}
	}
	return false
}

// scale without rolling: one active set takes it all; in the middle of a rollout
// every set gets its share.
func (w *parts) scale() {
	var active []*appsv1.ReplicaSet
	for _, rs := range w.sets {
		if *rs.Spec.Replicas > 0 {
			active = append(active, rs)
		}
	}
	want := *w.d.Spec.Replicas
	switch {
	case len(active) == 0:
		if w.new != nil {
			w.resize(w.new, want)
		} else if len(w.old) > 0 {
			w.resize(w.old[len(w.old)-1], want)
		}
		return
	case len(active) == 1:
		w.resize(active[0], want)
		return
	case w.new != nil && saturated(w.d, w.new):
		for _, rs := range active {
			if rs != w.new {
				w.resize(rs, 0)
			}
		}
		return
	case w.d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType:
		return
	}
	w.share(active)
}

func (w *parts) share(active []*appsv1.ReplicaSet) {
	allowed := int32(0)
	if *w.d.Spec.Replicas > 0 {
		allowed = *w.d.Spec.Replicas + surge(w.d)
	}
	add := allowed - total(active)
	slices.SortFunc(active, func(a, b *appsv1.ReplicaSet) int {
		age := byAge(a, b) // of equals the older shrinks, the newer grows
		if add > 0 {
			age = -age
		}
		return cmp.Or(cmp.Compare(*b.Spec.Replicas, *a.Spec.Replicas), age)
	})
	sizes := make([]int32, len(active))
	left := add
	for i, rs := range active {
		part := int32(0)
		if left != 0 {
			part = portion(w.d, rs)
			if add > 0 {
				part = min(part, left)
			} else {
				part = max(part, left)
			}
		}
		sizes[i] = *rs.Spec.Replicas + part
		left -= part
	}
	sizes[0] = max(0, sizes[0]+left)
	for i, rs := range active {
		w.resize(rs, sizes[i])
	}
}

// portion of a change of the Deployment's size that a set should take.
func portion(d *appsv1.Deployment, rs *appsv1.ReplicaSet) int32 {
	if *d.Spec.Replicas == 0 {
		return -*rs.Spec.Replicas
	}
	before, ok := number(rs, maxAnnotation)
	if !ok || before == 0 {
		if before = d.Status.Replicas; before == 0 {
			return 0
		}
	}
	size := float64(*rs.Spec.Replicas) * float64(*d.Spec.Replicas+surge(d)) / float64(before)
	return int32(math.Round(size)) - *rs.Spec.Replicas
}

func saturated(d *appsv1.Deployment, rs *appsv1.ReplicaSet) bool {
	desired, ok := number(rs, desiredAnnotation)
	return ok && *rs.Spec.Replicas == *d.Spec.Replicas && desired == *d.Spec.Replicas && rs.Status.AvailableReplicas == *d.Spec.Replicas
}

// resize writes a set's replicas, and what they were decided from.
func (w *parts) resize(rs *appsv1.ReplicaSet, to int32) {
	c := w.changed(rs)
	from := *rs.Spec.Replicas
	if from != to {
		c.Spec.Replicas = &to
		w.p.scaled = append(w.p.scaled, scaling{rs.Name, from, to})
	}
	w.annotateSizes(c)
	w.keep(rs, c)
}

// tidy removes old sets beyond the history limit, the oldest first.
func (w *parts) tidy() {
	if w.d.Spec.RevisionHistoryLimit == nil {
		return
	}
	var spent []*appsv1.ReplicaSet
	for _, rs := range w.old {
		if rs.DeletionTimestamp == nil && *rs.Spec.Replicas == 0 && rs.Status.Replicas == 0 && rs.Generation <= rs.Status.ObservedGeneration {
			spent = append(spent, rs)
		}
	}
	slices.SortFunc(spent, func(a, b *appsv1.ReplicaSet) int {
		return cmp.Or(cmp.Compare(revisionOf(a), revisionOf(b)), byAge(a, b))
	})
	if more := len(spent) - int(*w.d.Spec.RevisionHistoryLimit); more > 0 {
		w.p.remove = spent[:more]
	}
}

func total(sets []*appsv1.ReplicaSet) (n int32) {
	for _, rs := range sets {
		n += *rs.Spec.Replicas
	}
	return n
}

// surge and unavailable resolve percentages: surge is rounded up, unavailable
// down; both zero would stand still, so then one may be missing.
func surge(d *appsv1.Deployment) int32 {
	s, _ := fences(d)
	return s
}

func unavailable(d *appsv1.Deployment) int32 {
	_, u := fences(d)
	return min(u, *d.Spec.Replicas)
}

func fences(d *appsv1.Deployment) (s, u int32) {
	r := d.Spec.Strategy.RollingUpdate
	if d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType || r == nil || *d.Spec.Replicas == 0 {
		return 0, 0
	}
	value := func(v *intstr.IntOrString, up bool) int32 {
		n, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(v, intstr.FromInt32(0)), int(*d.Spec.Replicas), up)
		if err != nil {
			return 0
		}
		return int32(n)
	}
	s, u = value(r.MaxSurge, true), value(r.MaxUnavailable, false)
	if s == 0 && u == 0 {
		u = 1
	}
	return s, u
}

func (w *parts) complete() bool {
	st := w.count()
	return st.UpdatedReplicas == *w.d.Spec.Replicas && st.Replicas == *w.d.Spec.Replicas && st.AvailableReplicas == *w.d.Spec.Replicas
}

func condition(st *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range st.Conditions {
		if st.Conditions[i].Type == t {
			return &st.Conditions[i]
		}
	}
	return nil
}

// setCondition keeps the time of the last transition while the status stays, and
// everything while the reason stays, too.
func setCondition(st *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType, is corev1.ConditionStatus, reason, message string, now time.Time) {
	c := appsv1.DeploymentCondition{
		Type: t, Status: is, Reason: reason, Message: message, LastUpdateTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now),
	}
	if have := condition(st, t); have != nil {
		if have.Status == is && have.Reason == reason {
			return
		}
		if have.Status == is {
			c.LastTransitionTime = have.LastTransitionTime
		}
	}
	dropCondition(st, t)
	st.Conditions = append(st.Conditions, c)
}

func dropCondition(st *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) {
	st.Conditions = slices.DeleteFunc(st.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == t })
}
