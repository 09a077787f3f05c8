package scheduler

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// prepare what a pod needs on its node before it is bound to it: volumes and
// devices. It writes down what was decided, waits until it is so, and then sends
// the pod to be bound.
func (s *Scheduler) prepare(parent context.Context, b bind) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	var late <-chan time.Time
	if b.storage != nil {
		t := time.NewTimer(b.options.volumeTimeout)
		defer t.Stop()
		late = t.C
	}
	wait := make(chan struct{}, 1)
	s.inbox.put(func() { s.preparing[b.key] = wait })
	defer s.inbox.put(func() { delete(s.preparing, b.key) })
	if b.obj.Status.NominatedNodeName != b.node { // for those who want to know meanwhile (KEP-5278)
		s.say(told{obj: b.obj, nominated: &b.node})
	}
	err := s.write(ctx, &b)
	for err == nil {
		var done bool
		if done, err = s.prepared(&b); err != nil {
			break
		}
		if done {
			s.inbox.put(func() { s.world.dropStorage(b.storage) })
			if err = s.send(ctx, b); err == nil {
				return
			}
			break
		}
		select {
		case <-wait:
		case <-late:
			err = fmt.Errorf("binding volumes: %w", context.DeadlineExceeded)
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if parent.Err() == nil {
		s.bound(b, fmt.Errorf("running PreBind plugin %q: %w", volumeBinding, err))
	}
}

func (s *Scheduler) write(ctx context.Context, b *bind) error {
	if b.storage != nil {
		return s.writeStorage(ctx, b)
	}
	return nil
}

// prepared says whether everything is as it was decided.
func (s *Scheduler) prepared(b *bind) (bool, error) {
	now, ok := s.podsIn.Get(b.obj.Namespace, b.obj.Name)
	if !ok || now.UID != b.obj.UID {
		return false, apierrors.NewNotFound(s.pods.Kind().GroupResource(), b.obj.Name)
	}
	if b.storage != nil {
		return s.stored(b)
	}
	return true, nil
}

// stirred wakes those who wait for volumes or devices to be ready.
func (s *Scheduler) stirred() {
	for _, wait := range s.preparing {
		select {
		case wait <- struct{}{}:
		default:
		}
	}
}
