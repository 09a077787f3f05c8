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
	by, err := s.write(ctx, &b)
	var due <-chan time.Time
	if at := b.devicesDue(); !at.IsZero() {
		t := time.NewTimer(time.Until(at) + time.Second) // it is written by the second
		defer t.Stop()
		due = t.C
	}
	for err == nil {
		var done bool
		if done, by, err = s.prepared(&b); err != nil {
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
		case <-due:
		case <-late:
			err = fmt.Errorf("binding volumes: %w", context.DeadlineExceeded)
			by = volumeBinding
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if parent.Err() == nil {
		s.bound(b, fmt.Errorf("running PreBind plugin %q: %w", by, err))
	}
}

// write what was decided. An error is of the plugin by.
func (s *Scheduler) write(ctx context.Context, b *bind) (by plugin, err error) {
	if b.storage != nil {
		if err := s.writeStorage(ctx, b); err != nil {
			return volumeBinding, err
		}
	}
	if b.devices != nil {
		return dynamicResources, s.writeDevices(ctx, b)
	}
	return none, nil
}

// prepared says whether everything is as it was decided. An error is of the plugin by.
func (s *Scheduler) prepared(b *bind) (done bool, by plugin, err error) {
	by = volumeBinding
	if b.storage == nil {
		by = dynamicResources
	}
	now, ok := s.podsIn.Get(b.obj.Namespace, b.obj.Name)
	if !ok || now.UID != b.obj.UID {
		return false, by, apierrors.NewNotFound(s.pods.Kind().GroupResource(), b.obj.Name)
	}
	done = true
	if b.storage != nil {
		if done, err = s.stored(b); err != nil {
			return false, by, err
		}
	}
	if b.devices != nil {
		ready, err := s.devicesReady(b, time.Now())
		return done && ready, dynamicResources, err
	}
	return done, by, nil
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
