package scheduler

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/proa-dev/proa/internal/client/event"
)

// tellers is how many pods' statuses are written at the same time.
const tellers = 4

// told is what is to be written into a pod's status.
type told struct {
	obj       *corev1.Pod
	condition *corev1.PodCondition // nil = as it was
	nominated *string              // nil = as it was, "" = no node
}

// outbox holds what is to be written. What is said of a pod anew takes the place of
// what was not written yet, so it never grows beyond the pods there are, and
// statuses of one pod are written in order.
type outbox struct {
	mu    sync.Mutex
	todo  map[string]told // by key of the pod
	order []string
	wake  chan struct{}
}

func newOutbox() *outbox { return &outbox{todo: map[string]told{}, wake: make(chan struct{}, 1)} }

func (o *outbox) put(t told) {
	key := t.obj.Namespace + "/" + t.obj.Name
	o.mu.Lock()
	if before, ok := o.todo[key]; !ok {
		o.order = append(o.order, key)
	} else if before.obj.UID == t.obj.UID {
		if t.condition == nil {
			t.condition = before.condition
		}
		if t.nominated == nil {
			t.nominated = before.nominated
		}
	}
	o.todo[key] = t
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outbox) take() (t told, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.order) == 0 {
		o.order = nil
		return t, false
	}
	t, o.order = o.todo[o.order[0]], o.order[1:]
	delete(o.todo, t.obj.Namespace+"/"+t.obj.Name)
	return t, true
}

// say puts something into the outbox that its pod's statuses go through.
func (s *Scheduler) say(t told) {
	sum := 0
	for i := range len(t.obj.Name) {
		sum += int(t.obj.Name[i])
	}
	s.outboxes[sum%tellers].put(t)
}

// tell writes what is in an outbox until ctx ends.
func (s *Scheduler) tell(ctx context.Context, o *outbox) error {
	for {
		for {
			t, ok := o.take()
			if !ok {
				break
			}
			if err := s.status(ctx, t); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
				s.log.Warn("a pod's status was not written", "pod", t.obj.Name, "namespace", t.obj.Namespace, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-o.wake:
		}
	}
}

// tellPending says why a pod waits: as an Event, and as its PodScheduled condition.
// nominated: nil = as it was, "" = for no node.
func (s *Scheduler) tellPending(p *corev1.Pod, reason, text string, nominated *string) {
	s.record[p.Spec.SchedulerName].Warning(event.Ref(s.pods.Kind(), p), "FailedScheduling", "%s", shortened(text))
	if nominated != nil && *nominated == p.Status.NominatedNodeName {
		nominated = nil
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == reason && c.Message == text && nominated == nil {
			return
		}
	}
	s.say(told{p, &corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: reason, Message: text}, nominated})
}

// shortened to what an Event can say.
func shortened(text string) string {
	const most = 1024
	if len(text) <= most {
		return text
	}
	return text[:most-4] + " ..."
}
