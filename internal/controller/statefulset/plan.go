package statefulset

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/controller/owned"
)

// state is what a decision is made from.
type state struct {
	set             *appsv1.StatefulSet
	pods            []*corev1.Pod                            // all that the set owns
	claims          map[string]*corev1.PersistentVolumeClaim // by name: those of the set's ordinals
	current, update revision
	now             time.Time
}

// revision of the template, by the name of its ControllerRevision.
type revision struct {
	name     string
	template *corev1.PodTemplateSpec
}

// plan is one step. An ordered set does one thing at a time.
type plan struct {
	claims []*corev1.PersistentVolumeClaim // to be created, before the pods
	create []*corev1.Pod
	remove []*corev1.Pod
	label  []*corev1.Pod                   // private copies with their labels put right
	owners []*corev1.PersistentVolumeClaim // private copies with other owners
}

// replica is one ordinal: its pod, or the one that should be made.
type replica struct {
	n    int
	pod  *corev1.Pod
	made bool // the pod is there
}

func (s *state) decide() plan {
	var p plan
	if s.set.DeletionTimestamp != nil {
		return p
	}
	replicas, condemned := s.split()
	ordered := s.set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement
	s.retain(&p, replicas, false)
	s.retain(&p, condemned, true)
	var firstBad *corev1.Pod
	for _, r := range slices.Concat(replicas, reversed(condemned)) {
		if firstBad == nil && !s.healthy(r) {
			firstBad = r.pod
		}
	}
	for _, r := range replicas {
		if s.keep(&p, r) && ordered {
			return p
		}
	}
	for _, r := range condemned {
		if r.pod.DeletionTimestamp != nil {
			if ordered {
				return p
			}
			continue
		}
		if ordered && !s.healthy(r) && r.pod != firstBad {
			return p
		}
		p.remove = append(p.remove, r.pod)
		if ordered {
			return p
		}
	}
	if len(p.create)+len(p.remove) == 0 {
		s.roll(&p, replicas)
	}
	return p
}

func reversed(all []replica) []replica {
	all = slices.Clone(all)
	slices.Reverse(all)
	return all
}

// split the pods into those of wanted ordinals, with those to be made, and those
// beyond, highest first.
func (s *state) split() (replicas, condemned []replica) {
	first, n := start(s.set), int(ptr.Deref(s.set.Spec.Replicas, 1))
	replicas = make([]replica, n)
	for _, p := range s.pods {
		at := ordinal(s.set, p)
		switch {
		case at < 0:
		case at >= first && at < first+n:
			replicas[at-first] = replica{at, p, true}
		default:
			condemned = append(condemned, replica{at, p, true})
		}
	}
	for i := range replicas {
		if !replicas[i].made {
			r := s.revisionFor(first + i)
			replicas[i] = replica{first + i, podOf(s.set, r.template, r.name, first+i), false}
		}
	}
	slices.SortFunc(condemned, func(a, b replica) int { return cmp.Compare(b.n, a.n) })
	return replicas, condemned
}

// revisionFor a new pod: below the partition the template stays the earlier one.
func (s *state) revisionFor(n int) revision {
	u := s.set.Spec.UpdateStrategy
	if u.Type == appsv1.RollingUpdateStatefulSetStrategyType {
		limit := start(s.set) + int(s.set.Status.CurrentReplicas)
		if u.RollingUpdate != nil {
			limit = start(s.set) + partition(s.set)
		}
		if n < limit {
			return s.current
		}
	}
	return s.update
}

func partition(set *appsv1.StatefulSet) int {
	if r := set.Spec.UpdateStrategy.RollingUpdate; r != nil {
		return int(ptr.Deref(r.Partition, 0))
	}
	return 0
}

// keep one wanted ordinal in order; busy says that it is not yet as it should be,
// so that an ordered set waits.
func (s *state) keep(p *plan, r replica) (busy bool) {
	switch {
	case !r.made:
		for _, c := range claimsOf(s.set, r.n) {
			if have := s.claims[c.Name]; have == nil {
				p.claims = append(p.claims, c)
			} else if have.DeletionTimestamp != nil {
				return true // the pod would have to do without
			}
		}
		p.create = append(p.create, r.pod)
		return true
	case owned.Ended(r.pod):
		if r.pod.DeletionTimestamp == nil {
			p.remove = append(p.remove, r.pod)
		}
		return true
	}
	if r.pod.Status.Phase == corev1.PodPending && r.pod.DeletionTimestamp == nil {
		for _, c := range claimsOf(s.set, r.n) {
			if s.claims[c.Name] == nil {
				p.claims = append(p.claims, c)
			}
		}
	}
	if r.pod.Labels[appsv1.StatefulSetPodNameLabel] != r.pod.Name && r.pod.DeletionTimestamp == nil {
		c := r.pod.DeepCopy()
		identify(s.set, c, r.n)
		p.label = append(p.label, c)
	}
	return !s.healthy(r)
}

// retain gives claims the owners that the retention policy asks for.
func (s *state) retain(p *plan, all []replica, shrunk bool) {
	for _, r := range all {
		for i := range s.set.Spec.VolumeClaimTemplates {
			c := s.claims[claimName(s.set, s.set.Spec.VolumeClaimTemplates[i].Name, r.n)]
			if c == nil || c.DeletionTimestamp != nil {
				continue
			}
			pod := r.pod
			if !r.made {
				pod = nil
			}
			if refs, changed := ownersOf(s.set, c, pod, shrunk); changed {
				c = c.DeepCopy()
				c.OwnerReferences = refs
				p.owners = append(p.owners, c)
			}
		}
	}
}

// healthy: running, ready for long enough, and staying.
func (s *state) healthy(r replica) bool {
	if !r.made || r.pod.Status.Phase != corev1.PodRunning || r.pod.DeletionTimestamp != nil {
		return false
	}
	ok, _ := owned.Available(r.pod, s.set.Spec.MinReadySeconds, s.now)
	return ok
}

// roll replaces pods of earlier templates, from the highest ordinal down to the
// partition, no more at once than may be unavailable (KEP-961).
func (s *state) roll(p *plan, replicas []replica) {
	u := s.set.Spec.UpdateStrategy
	if u.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return
	}
	most := 1
	if u.RollingUpdate != nil && u.RollingUpdate.MaxUnavailable != nil {
		if n, err := intstr.GetScaledValueFromIntOrPercent(u.RollingUpdate.MaxUnavailable, len(replicas), true); err == nil {
			most = max(1, n)
		}
	}
	down := 0
	for i := len(replicas) - 1; i >= partition(s.set) && down < most; i-- {
		r := replicas[i]
		switch {
		case r.pod.Labels[appsv1.StatefulSetRevisionLabel] != s.update.name && r.pod.DeletionTimestamp == nil:
			p.remove = append(p.remove, r.pod)
			down++
		case !s.healthy(r):
			down++
		}
	}
}

// status as the pods are now, and when one of them will have been ready for long enough.
func (s *state) status() (st appsv1.StatefulSetStatus, again time.Duration) {
	st = appsv1.StatefulSetStatus{
		ObservedGeneration: s.set.Generation, CurrentRevision: s.current.name, UpdateRevision: s.update.name,
		CollisionCount: ptr.To(ptr.Deref(s.set.Status.CollisionCount, 0)), Conditions: s.set.Status.Conditions,
	}
	for _, p := range s.pods {
		st.Replicas++
		if p.Status.Phase == corev1.PodRunning && owned.Ready(p) {
			st.ReadyReplicas++
			ok, in := owned.Available(p, s.set.Spec.MinReadySeconds, s.now)
			if ok {
				st.AvailableReplicas++
			} else if in > 0 && (again == 0 || in < again) {
				again = in
			}
		}
		if p.DeletionTimestamp != nil {
			continue
		}
		switch p.Labels[appsv1.StatefulSetRevisionLabel] {
		case s.update.name:
			st.UpdatedReplicas++
			if s.update.name == s.current.name {
				st.CurrentReplicas++
			}
		case s.current.name:
			st.CurrentReplicas++
		}
	}
	want := ptr.Deref(s.set.Spec.Replicas, 1)
	if s.set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType &&
		st.UpdatedReplicas == want && st.ReadyReplicas == want && st.Replicas == want {
		st.CurrentReplicas, st.CurrentRevision = st.UpdatedReplicas, st.UpdateRevision
	}
	return st, again
}
