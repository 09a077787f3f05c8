package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
)

// binders is how many bind at the same time.
const binders = 8

// bulk is how many binds one transaction takes at the most.
const bulk = 256

// bindAll makes decisions true. What is decided while a transaction is on its
// way goes into the next one, so a burst of pods costs few transactions and one
// pod alone never waits for others.
func (s *Scheduler) bindAll(ctx context.Context) error {
	for {
		var batch []bind
		select {
		case <-ctx.Done():
			return ctx.Err()
		case b := <-s.binds:
			batch = append(batch, b)
		}
		for more := true; more && len(batch) < bulk; {
			select {
			case b := <-s.binds:
				batch = append(batch, b)
			default:
				more = false
			}
		}
		for i, err := range s.commit(ctx, batch) {
			if err != nil && s.nodeOf(ctx, &batch[i]) != batch[i].node { // or only the answer was lost
				s.bound(batch[i], fmt.Errorf("running Bind plugin %q: %w", defaultBinder, err))
				continue
			}
			s.bound(batch[i], nil)
		}
	}
}

// nodeOf a pod, as the API server has it; "" = it is on none, as far as one can tell.
// What a pod that is on a node has reserved is its own, and must not be given back.
func (s *Scheduler) nodeOf(ctx context.Context, b *bind) string {
	now, err := s.pods.Get(ctx, b.obj.Namespace, b.obj.Name)
	if err != nil || now.UID != b.obj.UID {
		return ""
	}
	return now.Spec.NodeName
}

func (s *Scheduler) commit(ctx context.Context, batch []bind) []error {
	if len(s.config.Extenders) == 0 {
		return s.bindThem(ctx, batch)
	}
	errs := make([]error, len(batch))
	var rest []bind
	var at []int
	for i, b := range batch {
		bound, err := s.bindOutside(ctx, b)
		if errs[i] = err; !bound {
			rest, at = append(rest, b), append(at, i)
		}
	}
	for i, err := range s.bindThem(ctx, rest) {
		errs[at[i]] = err
	}
	return errs
}

// bindOutside lets an extender bind a pod; bound is false when none wants to.
func (s *Scheduler) bindOutside(ctx context.Context, b bind) (bound bool, err error) {
	for _, e := range s.config.interested(b.obj) {
		if e.bind == "" {
			continue
		}
		if err := e.bindPod(ctx, b.obj, b.node); err == nil || !e.ignorable {
			return true, err
		}
	}
	return false, nil
}

func (s *Scheduler) bindThem(ctx context.Context, batch []bind) []error {
	if len(batch) == 0 {
		return nil
	}
	all := make([]client.Binding, len(batch))
	for i, b := range batch {
		all[i] = client.Binding{Namespace: b.obj.Namespace, Name: b.obj.Name, UID: b.obj.UID, Node: b.node}
	}
	if many, ok := s.conn.(client.Binder); ok {
		return many.BindAll(ctx, all)
	}
	errs := make([]error, len(batch))
	for i, b := range all {
		_, errs[i] = s.conn.Post(ctx, s.pods.Kind(), b.Namespace, b.Name, "binding", &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: b.Namespace, Name: b.Name, UID: b.UID},
			Target:     corev1.ObjectReference{Kind: "Node", Name: b.Node},
		})
	}
	return errs
}

// bound tells what became of a decision.
func (s *Scheduler) bound(b bind, err error) {
	if err == nil {
		s.record[b.options.name].Normal(event.Ref(s.pods.Kind(), b.obj), "Scheduled", "Successfully assigned %s to %s", b.key, b.node)
		return
	}
	s.unreserve(&b)
	s.inbox.put(func() {
		s.world.dropStorage(b.storage)
		if b.devices != nil {
			s.world.dropDevices(b.devices)
		}
		if have := s.world.placed[b.key]; have != nil && have.assumed && have.obj.UID == b.obj.UID {
			s.world.remove(b.key)
			s.queue.wake(s.world, happening{what: podGone, pod: b.class}, time.Now())
		}
		now, ok := s.podsIn.Get(b.obj.Namespace, b.obj.Name)
		if !ok || now.UID != b.obj.UID || now.Spec.NodeName != "" || !s.responsible(now) {
			return
		}
		s.log.Warn("a pod was not bound", "pod", b.key, "node", b.node, "err", err)
		fresh := s.world.newPod(now)
		fresh.tries, fresh.errors = b.tries, b.errors
		s.queue.again(fresh, time.Now())
		s.tellPending(now, corev1.PodReasonSchedulerError, err.Error(), new(""))
	})
}

// evict the victims of a preemption.
func (s *Scheduler) evict(ctx context.Context, p *pod, obj *corev1.Pod, victims []*corev1.Pod) {
	var failed error
	for _, v := range victims {
		if v.DeletionTimestamp != nil {
			continue
		}
		if err := s.preemptOne(ctx, obj, v); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			if ctx.Err() == nil {
				s.log.Warn("a pod could not be preempted", "pod", v.Name, "namespace", v.Namespace, "for", obj.Name, "err", err)
			}
			failed = err
			break
		}
	}
	s.inbox.put(func() { s.evicted(p, failed) })
}

// status writes something into a pod's status.
func (s *Scheduler) status(ctx context.Context, t told) error {
	status := map[string]any{}
	if c := t.condition; c != nil {
		c.LastTransitionTime = metav1.Now()
		c.ObservedGeneration = t.obj.Generation
		for _, have := range t.obj.Status.Conditions {
			if have.Type == c.Type && have.Status == c.Status {
				c.LastTransitionTime = have.LastTransitionTime
			}
		}
		status["conditions"] = []corev1.PodCondition{*c}
	}
	if t.nominated != nil {
		status["nominatedNodeName"] = *t.nominated
		if *t.nominated == "" {
			status["nominatedNodeName"] = nil
		}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": t.obj.UID}, "status": status})
	if err != nil {
		return err
	}
	_, err = s.pods.Patch(ctx, t.obj.Namespace, t.obj.Name, client.Patch{Type: types.StrategicMergePatchType, Data: patch}, client.WriteOptions{Subresource: "status"})
	return err
}

func (s *Scheduler) preemptOne(ctx context.Context, p, victim *corev1.Pod) error {
	err := s.status(ctx, told{obj: victim, condition: &corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler,
		Message: fmt.Sprintf("%s: preempting to accommodate a higher priority pod", p.Spec.SchedulerName),
	}})
	if err != nil {
		return err
	}
	uid := victim.UID
	if err := s.pods.Delete(ctx, victim.Namespace, victim.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); err != nil {
		return err
	}
	s.record[p.Spec.SchedulerName].Normal(event.Ref(s.pods.Kind(), victim), "Preempted", "Preempted by pod %s on node %s", p.UID, victim.Spec.NodeName)
	return nil
}

// sameSpec: a waiting pod need not be tried again.
func sameSpec(a, b *corev1.Pod) bool {
	return sameLabels(a.Labels, b.Labels) && equality.Semantic.DeepEqual(a.Spec, b.Spec)
}
