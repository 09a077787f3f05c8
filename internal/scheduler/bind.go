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
			s.bound(batch[i], err)
		}
	}
}

func (s *Scheduler) commit(ctx context.Context, batch []bind) []error {
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
		s.record.Normal(event.Ref(s.pods.Kind(), b.obj), "Scheduled", "Successfully assigned %s to %s", b.key, b.node)
		return
	}
	s.inbox.put(func() {
		s.world.dropStorage(b.storage)
		if have := s.world.placed[b.key]; have != nil && have.assumed && have.obj.UID == b.obj.UID {
			s.world.remove(b.key)
			s.queue.wake(podGone, time.Now())
		}
		if apierrors.IsNotFound(err) {
			return
		}
		s.log.Warn("a pod was not bound", "pod", b.key, "node", b.node, "err", err)
		s.record.Warning(event.Ref(s.pods.Kind(), b.obj), "FailedScheduling", "%s", err)
		if now, ok := s.podsIn.Get(b.obj.Namespace, b.obj.Name); ok && now.UID == b.obj.UID && now.Spec.NodeName == "" && s.responsible(now) {
			fresh := s.world.newPod(now)
			fresh.queued, fresh.attempts = b.queued, b.attempts
			s.queue.again(fresh, time.Now())
		}
	})
}

// tellPending writes why a pod waits: as an Event, and as its PodScheduled condition.
func (s *Scheduler) tellPending(ctx context.Context, p *corev1.Pod, text string, nominated *string) {
	s.record.Warning(event.Ref(s.pods.Kind(), p), "FailedScheduling", "%s", text)
	if nominated != nil && *nominated == p.Status.NominatedNodeName {
		nominated = nil
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable && c.Message == text && nominated == nil {
			return
		}
	}
	err := s.condition(ctx, p, corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: text,
	}, nominated)
	if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		s.log.Warn("condition not written", "pod", p.Name, "namespace", p.Namespace, "err", err)
	}
}

// condition writes a condition of a pod and, unless nil, what node it is nominated
// for ("" = none).
func (s *Scheduler) condition(ctx context.Context, obj *corev1.Pod, c corev1.PodCondition, nominated *string) error {
	c.LastTransitionTime = metav1.Now()
	c.ObservedGeneration = obj.Generation
	for _, have := range obj.Status.Conditions {
		if have.Type == c.Type && have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
	}
	status := map[string]any{"conditions": []corev1.PodCondition{c}}
	if nominated != nil {
		status["nominatedNodeName"] = *nominated
		if *nominated == "" {
			status["nominatedNodeName"] = nil
		}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": obj.UID}, "status": status})
	if err != nil {
		return err
	}
	_, err = s.pods.Patch(ctx, obj.Namespace, obj.Name, client.Patch{Type: types.StrategicMergePatchType, Data: patch}, client.WriteOptions{Subresource: "status"})
	return err
}

func (s *Scheduler) preemptOne(ctx context.Context, p, victim *corev1.Pod) error {
	err := s.condition(ctx, victim, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler,
		Message: fmt.Sprintf("%s: preempting to accommodate a higher priority pod", p.Spec.SchedulerName),
	}, nil)
	if err != nil {
		return err
	}
	uid := victim.UID
	if err := s.pods.Delete(ctx, victim.Namespace, victim.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); err != nil {
		return err
	}
	s.record.Normal(event.Ref(s.pods.Kind(), victim), "Preempted", "Preempted by pod %s on node %s", p.UID, victim.Spec.NodeName)
	return nil
}

// sameSpec: a waiting pod need not be tried again.
func sameSpec(a, b *corev1.Pod) bool {
	return sameLabels(a.Labels, b.Labels) && equality.Semantic.DeepEqual(a.Spec, b.Spec)
}
