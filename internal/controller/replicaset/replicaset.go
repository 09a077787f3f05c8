// Package replicaset keeps as many pods of a template as a ReplicaSet, or a
// ReplicationController, asks for.
package replicaset

import (
	"context"
	"errors"
	"log/slog"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/index"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/owned"
)

// Controller of sets of type T, which it sees as ReplicaSets.
type Controller[T api.Object] struct {
	shape[T]
	queue    *loop.Queue
	sets     *client.Informer[T]
	podsIn   *client.Informer[*corev1.Pod]
	writeSet client.Client[T]
	pods     client.Client[*corev1.Pod]
	guard    owned.Guard[*corev1.Pod]
	record   *event.Recorder
	now      func() time.Time
}

// shape is how a type of set is seen as a ReplicaSet. view may share parts with
// the set; apply changes a private copy.
type shape[T api.Object] struct {
	gvk   schema.GroupVersionKind
	view  func(T) *appsv1.ReplicaSet
	apply func(T, appsv1.ReplicaSetStatus) T
}

// New controller of ReplicaSets.
func New(in *client.Informers, log *slog.Logger) *Controller[*appsv1.ReplicaSet] {
	return newController(in, "replicaset", "replicaset-controller", log, shape[*appsv1.ReplicaSet]{
		gvk:  appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
		view: func(rs *appsv1.ReplicaSet) *appsv1.ReplicaSet { return rs },
		apply: func(rs *appsv1.ReplicaSet, st appsv1.ReplicaSetStatus) *appsv1.ReplicaSet {
			out := rs.DeepCopy()
			out.Status = st
			return out
		},
	})
}

func newController[T api.Object](in *client.Informers, name, component string, log *slog.Logger, sh shape[T]) *Controller[T] {
	c := &Controller[T]{
		shape:    sh,
		queue:    loop.NewQueue(name, log),
		sets:     client.Shared[T](in, client.Scope{}),
		podsIn:   client.Shared[*corev1.Pod](in, client.Scope{}),
		writeSet: client.For[T](in.Conn()),
		pods:     client.For[*corev1.Pod](in.Conn()),
		record:   event.New(in.Conn(), component, "", log),
		now:      time.Now,
	}
	var none T
	c.sets.OnChange(func(old, now T) {
		switch {
		case api.Object(now) == api.Object(none):
			c.guard.Forget(client.Key(old.GetNamespace(), old.GetName()))
		case api.Object(old) == api.Object(none) || old.GetGeneration() != now.GetGeneration() || old.GetUID() != now.GetUID() || old.GetDeletionTimestamp() != now.GetDeletionTimestamp():
			c.queue.AddObject(now)
		case !equality.Semantic.DeepEqual(c.view(old).Status, c.view(now).Status): // somebody else may have written it
			c.queue.AddObject(now)
		}
	})
	c.podsIn.OnChange(owned.Changed[T, *corev1.Pod](c.queue, sh.gvk.Kind, c.sets, func(set T) *metav1.LabelSelector { return sh.view(set).Spec.Selector }))
	return c
}

// Run implements loop.Controller.
func (c *Controller[T]) Run(ctx context.Context) error {
	go c.record.Run(ctx)
	return c.queue.Run(ctx, 4, c.reconcile, c.sets.Synced(), c.podsIn.Synced())
}

func (c *Controller[T]) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name := loop.Split(key)
	set, err := c.writeSet.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	rs := c.view(set)
	sel, ok := owned.Selector(rs.Spec.Selector)
	if !ok {
		return 0, nil
	}
	pods, err := owned.Claim(ctx, c.pods, set, c.gvk, sel)
	if err != nil {
		return 0, err
	}
	if err := c.guard.Check(ctx, c.pods, set, sel, pods); err != nil {
		c.record.Warning(event.Ref(c.writeSet.Kind(), set), "FailedCreate", "Error creating: %v", err)
		return 0, err
	}
	now := c.now()
	p := decide(rs, pods, c.siblings(ctx, rs, pods), now)
	failure := c.carryOut(ctx, set, rs, p)
	st, again := status(rs, pods, p, failure, now)
	if err := c.write(ctx, set, st); err != nil {
		return 0, err
	}
	return again, failure
}

// siblings are the pods of all sets that the same Deployment owns.
func (c *Controller[T]) siblings(ctx context.Context, rs *appsv1.ReplicaSet, pods []*corev1.Pod) []*corev1.Pod {
	ref := metav1.GetControllerOfNoCopy(rs)
	if ref == nil {
		return pods
	}
	all := pods
	for _, s := range c.sets.ByIndex(index.Owner, string(ref.UID)) {
		if s.GetUID() == rs.UID {
			continue
		}
		if more, err := c.pods.List(ctx, rs.Namespace, client.ListOptions{Index: index.Owner, Value: string(s.GetUID())}); err == nil {
			all = append(all[:len(all):len(all)], more...)
		}
	}
	return all
}

// carryOut creates slowly at first and deletes all at once.
func (c *Controller[T]) carryOut(ctx context.Context, set T, rs *appsv1.ReplicaSet, p plan) error {
	about := event.Ref(c.writeSet.Kind(), set)
	_, err := owned.SlowStart(p.create, func(int) error {
		pod, err := c.pods.Create(ctx, owned.FromTemplate(&rs.Spec.Template, rs.Name, rs.Namespace, owned.Ref(rs, c.gvk)))
		switch {
		case err == nil:
			c.guard.Made(client.Key(rs.Namespace, rs.Name), pod)
			c.record.Normal(about, "SuccessfulCreate", "Created pod: %s", pod.Name)
		case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			return nil // everything goes; nothing to say
		default:
			c.record.Warning(about, "FailedCreate", "Error creating: %v", err)
		}
		return err
	})
	if err != nil {
		return err
	}
	return owned.Each(len(p.delete), func(i int) error {
		pod := p.delete[i]
		err := c.pods.Delete(ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})
		switch {
		case err == nil:
			c.record.Normal(about, "SuccessfulDelete", "Deleted pod: %s", pod.Name)
		case apierrors.IsConflict(err):
			return err // look again
		case !apierrors.IsNotFound(err):
			c.record.Warning(about, "FailedDelete", "Error deleting: %v", err)
			return err
		}
		return nil
	})
}

func (c *Controller[T]) write(ctx context.Context, set T, st appsv1.ReplicaSetStatus) error {
	out := c.apply(set, st)
	if equality.Semantic.DeepEqual(c.view(set).Status, c.view(out).Status) {
		return nil
	}
	_, err := c.writeSet.UpdateStatus(ctx, out)
	if err != nil && (apierrors.IsNotFound(err) || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}
