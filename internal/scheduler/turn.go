package scheduler

import (
	"context"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// one pod's turn.
func (s *Scheduler) one(ctx context.Context, p *pod, now time.Time) error {
	s.world.renew(p)
	if s.held(p, now) {
		return nil
	}
	with := s.config.interested(p.obj)
	r := s.world.decide(ctx, p, with)
	if r.err != nil {
		s.queue.again(p, now)
		s.tellPending(p.obj, corev1.PodReasonSchedulerError, r.err.Error(), new(""))
		return nil
	}
	if r.node != nil {
		delete(s.world.hopes, p.key)
		b := bind{pod: p, obj: p.obj, node: r.node.name, on: r.node.obj}
		if len(p.claims) > 0 {
			b.storage = s.world.assumeStorage(p, r.node)
		}
		b.devices = r.devices
		s.world.assumeDevices(b.devices)
		s.world.place(p, r.node.name, true)
		s.queue.wake(s.world, happening{what: podCame, pod: p.class}, now)
		if b.storage != nil || b.devices != nil {
			go s.prepare(ctx, b)
			return nil
		}
		return s.send(ctx, b)
	}
	s.queue.failed(p, r.why.by, now)
	if r.why.by.has(dynamicResources) {
		s.askForUnseen(ctx)
	}
	text, nominated := s.makeRoom(ctx, p, r.why, with)
	s.tellPending(p.obj, corev1.PodReasonUnschedulable, text, nominated)
	return nil
}

// decide on a pod. Those that nobody else has a say in are decided by boards.
func (w *world) decide(ctx context.Context, p *pod, with []*Extender) result {
	p.need = nil
	if len(with) > 0 || w.needsDevices(p) {
		return w.planNodes(ctx, p, with)
	}
	return w.plan(p)
}

// makeRoom for a pod that fits nowhere, by telling others to go. It returns what to
// tell of the pod, and the node it is nominated for: nil = as before, "" = none.
func (s *Scheduler) makeRoom(ctx context.Context, p *pod, why *refusal, with []*Extender) (text string, nominated *string) {
	text = why.text
	switch {
	case len(s.world.nodes) == 0:
		return text, new("")
	case why.hopeless():
		return text, nil
	}
	var said []string
	if p.options.filters.has(dynamicResources) {
		r := p.need.relief(p.obj)
		said = append(said, r.said)
		if r.claim != nil {
			go s.relieve(ctx, p, r)
		}
	}
	if p.options.filters.has(defaultPreemption) {
		all, reason, eligible := s.world.preempt(ctx, p, why, s.budgets.List("", nil))
		all, err := s.world.narrow(ctx, p, with, all)
		if err != nil {
			reason = "preemption: " + err.Error()
		}
		if c := least(all); c != nil {
			s.nominate(ctx, p, c)
			return text, &c.node.name
		}
		if eligible {
			delete(s.world.hopes, p.key)
			nominated = new("")
		}
		said = append(said, reason)
	}
	return strings.TrimSpace(text + " " + strings.Join(said, ", ")), nominated
}

// hopeless: something is wrong with the pod itself, so nothing is tried. Upstream
// ends such messages with "not found", which is about itself and not about the pod.
func (r *refusal) hopeless() bool { return r.whole != nil && r.whole.plugin < dynamicResources }

// nominate a pod for the node from which others go for it.
func (s *Scheduler) nominate(ctx context.Context, p *pod, c *preemption) {
	for key, other := range s.world.hopes {
		if other.on == c.node.name && other.priority < p.priority {
			delete(s.world.hopes, key) // it hoped for what is taken now
			s.say(told{obj: other.obj, nominated: new("")})
		}
	}
	s.world.hopes[p.key] = &hope{pod: p, on: c.node.name}
	p.gated, p.missed = true, false
	go s.evict(ctx, p, p.obj, c.objects())
}

// evicted: all victims have been told, or (err) one could not be, and then the pod
// that needs the room is looked at again.
func (s *Scheduler) evicted(p *pod, err error) {
	p.gated = false
	w := s.queue.waiting[p.key]
	if w == nil || w.pod != p {
		return
	}
	if err != nil {
		delete(s.world.hopes, p.key)
		s.queue.again(p, time.Now())
	} else if p.missed {
		s.queue.rouse(w, time.Now())
	}
}

func (s *Scheduler) send(ctx context.Context, b bind) error {
	select {
	case s.binds <- b:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// renew the class of a pod that has waited, if the classes were made anew.
func (w *world) renew(p *pod) {
	if w.classes.byID[p.class.id] != p.class {
		p.class = w.classOf(p.obj)
	}
}
