package scheduler

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// podChanged takes in a pod that came, changed or (now nil) went.
func (s *Scheduler) podChanged(old, now *corev1.Pod) {
	obj := now
	if obj == nil {
		obj = old
	}
	key, at := obj.Namespace+"/"+obj.Name, time.Now()
	switch {
	case now == nil || over(now):
		s.podGone(key, at)
	case now.Spec.NodeName != "":
		s.podBound(key, now, at)
	case s.responsible(now):
		s.podWaits(key, now, at)
	default:
		s.dropHope(key, at)
		s.queue.remove(key)
	}
}

// over: the pod has run, and takes no room any more.
func over(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// responsible: the pod asks for this scheduler, and is held back by nothing.
func (s *Scheduler) responsible(p *corev1.Pod) bool {
	o := s.config.Profiles[p.Spec.SchedulerName]
	return o != nil && p.DeletionTimestamp == nil && (len(p.Spec.SchedulingGates) == 0 || !o.filters.has(schedulingGates))
}

func (s *Scheduler) podGone(key string, at time.Time) {
	if wait := s.preparing[key]; wait != nil {
		select {
		case wait <- struct{}{}:
		default:
		}
	}
	s.dropHope(key, at)
	s.queue.remove(key)
	if have := s.world.placed[key]; have != nil {
		s.world.remove(key)
		s.queue.wake(s.world, happening{what: podGone, pod: have.class}, at)
	}
}

// dropHope of a pod: what it hoped for is free for others.
func (s *Scheduler) dropHope(key string, at time.Time) {
	if h := s.world.hopes[key]; h != nil {
		delete(s.world.hopes, key)
		s.queue.wake(s.world, happening{what: podGone, pod: h.class}, at)
	}
}

func (s *Scheduler) podBound(key string, now *corev1.Pod, at time.Time) {
	s.queue.remove(key)
	delete(s.world.hopes, key)
	have := s.world.placed[key]
	class := s.world.classOf(now)
	if have != nil && have.on == now.Spec.NodeName && have.obj.UID == now.UID && class == have.class {
		have.pod.obj, have.assumed = now, false
		return
	}
	s.world.place(s.world.newPod(now), now.Spec.NodeName, false)
	switch {
	case have == nil:
		s.queue.wake(s.world, happening{what: podCame, pod: class}, at)
	case have.on != now.Spec.NodeName || have.obj.UID != now.UID:
		s.queue.wake(s.world, happening{what: podGone, pod: have.class}, at)
		s.queue.wake(s.world, happening{what: podCame, pod: class}, at)
	default:
		e := happening{what: podLabels, pod: have.class, now: class}
		if class.requests.less(&have.class.requests) {
			e.what |= podShrunk
		}
		s.queue.wake(s.world, e, at)
	}
}

func (s *Scheduler) podWaits(key string, now *corev1.Pod, at time.Time) {
	if have := s.world.placed[key]; have != nil && have.assumed && have.obj.UID == now.UID {
		return // bound as far as we know; the API server will say so
	}
	have := s.queue.all[key]
	if have != nil && have.obj.UID == now.UID && sameSpec(have.obj, now) {
		was := have.obj
		have.obj = now // only its status or metadata changed
		if w := s.queue.waiting[key]; w != nil && have.devices && !equality.Semantic.DeepEqual(was.Status.ResourceClaimStatuses, now.Status.ResourceClaimStatuses) {
			s.queue.rouse(w, at) // its claims were made
		}
		s.setHope(have, now)
		return
	}
	p := s.world.newPod(now)
	s.setHope(p, now)
	s.queue.put(p, at)
}

// setHope of a pod to the node that its status names: what this scheduler wrote, or
// somebody else did.
func (s *Scheduler) setHope(p *pod, now *corev1.Pod) {
	switch h := s.world.hopes[p.key]; {
	case h != nil:
		h.pod = p
	case now.Status.NominatedNodeName != "":
		s.world.hopes[p.key] = &hope{pod: p, on: now.Status.NominatedNodeName}
	}
}

// nodeChanged takes in a node that came, changed or (now nil) went.
func (s *Scheduler) nodeChanged(old, now *corev1.Node) {
	at := time.Now()
	if now == nil {
		s.world.removeNode(old.Name)
		s.queue.wake(s.world, happening{what: nodeGone}, at)
		return
	}
	s.world.setNode(now)
	what := nodeCame
	if old != nil {
		what = changed(old, now)
	}
	if what != 0 {
		s.queue.wake(s.world, happening{what: what, node: s.world.byName[now.Name]}, at)
	}
}
