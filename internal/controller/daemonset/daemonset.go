// Package daemonset keeps one pod of a template on every node that a DaemonSet
// is for.
package daemonset

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/controller/history"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/owned"
)

var gvk = appsv1.SchemeGroupVersion.WithKind("DaemonSet")

// Controller of DaemonSets.
type Controller struct {
	queue   *loop.Queue
	in      *client.Informer[*appsv1.DaemonSet]
	podsIn  *client.Informer[*corev1.Pod]
	nodesIn *client.Informer[*corev1.Node]
	revsIn  *client.Informer[*appsv1.ControllerRevision]
	sets    client.Client[*appsv1.DaemonSet]
	pods    client.Client[*corev1.Pod]
	history history.Keeper
	guard   owned.Guard[*corev1.Pod]
	backoff *flowcontrol.Backoff // of replacing pods that fail, by set and node
	record  *event.Recorder
	now     func() time.Time
}

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		queue:   loop.NewQueue("daemonset", log),
		in:      client.Shared[*appsv1.DaemonSet](in, client.Scope{}),
		podsIn:  client.Shared[*corev1.Pod](in, client.Scope{}),
		nodesIn: client.Shared[*corev1.Node](in, client.Scope{}),
		revsIn:  client.Shared[*appsv1.ControllerRevision](in, client.Scope{}),
		sets:    client.For[*appsv1.DaemonSet](in.Conn()),
		pods:    client.For[*corev1.Pod](in.Conn()),
		history: history.Keeper{Revisions: client.For[*appsv1.ControllerRevision](in.Conn()), Owner: gvk, HashLabel: appsv1.DefaultDaemonSetUniqueLabelKey},
		backoff: flowcontrol.NewBackOff(time.Second, 15*time.Minute),
		record:  event.New(in.Conn(), "daemonset-controller", "", log),
		now:     time.Now,
	}
	c.in.OnChange(func(old, now *appsv1.DaemonSet) {
		if now == nil {
			c.guard.Forget(client.Key(old.Namespace, old.Name))
		} else {
			c.queue.AddObject(now)
		}
	})
	c.podsIn.OnChange(owned.Changed[*appsv1.DaemonSet, *corev1.Pod](c.queue, gvk.Kind, c.in, func(ds *appsv1.DaemonSet) *metav1.LabelSelector { return ds.Spec.Selector }))
	c.nodesIn.OnChange(c.nodeChanged)
	c.revsIn.OnChange(owned.Gone[*appsv1.ControllerRevision](c.queue, gvk.Kind))
	return c
}

// nodeChanged wakes the sets for which the change makes a difference.
func (c *Controller) nodeChanged(old, now *corev1.Node) {
	if old != nil && now != nil && equality.Semantic.DeepEqual(old.Labels, now.Labels) && equality.Semantic.DeepEqual(old.Spec.Taints, now.Spec.Taints) {
		return
	}
	for _, ds := range c.in.List("", nil) {
		if old != nil && now != nil {
			run1, stay1 := wanted(ds, old)
			if run2, stay2 := wanted(ds, now); run1 == run2 && stay1 == stay2 {
				continue
			}
		}
		c.queue.AddObject(ds)
	}
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	go c.record.Run(ctx)
	return c.queue.Run(ctx, 2, c.reconcile, c.in.Synced(), c.podsIn.Synced(), c.nodesIn.Synced(), c.revsIn.Synced())
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name := loop.Split(key)
	ds, err := c.sets.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	sel, ok := owned.Selector(ds.Spec.Selector)
	if !ok {
		return 0, nil
	}
	revs, err := c.history.Sync(ctx, ds, sel, &ds.Spec.Template, ds.Status.CollisionCount)
	if err != nil {
		return 0, err
	}
	if revs.Collided {
		out := ds.DeepCopy()
		out.Status.CollisionCount = ptr.To(ptr.Deref(ds.Status.CollisionCount, 0) + 1)
		_, err := c.sets.UpdateStatus(ctx, out)
		return time.Millisecond, err
	}
	s := &state{ds: ds, nodes: c.nodesIn.List("", nil), hash: revs.Current.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]}
	slices.SortFunc(s.nodes, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	var again time.Duration
	var failure error
	if ds.DeletionTimestamp == nil {
		again, failure = c.act(ctx, s, sel, (*state).manage)
		if failure == nil {
			_, failure = c.act(ctx, s, sel, (*state).update)
		}
	}
	if err := c.look(ctx, s, sel); err != nil {
		return 0, err
	}
	st, ready := s.status()
	if !equality.Semantic.DeepEqual(ds.Status, st) {
		out := ds.DeepCopy()
		out.Status = st
		if _, err := c.sets.UpdateStatus(ctx, out); err != nil {
			return 0, err
		}
	}
	if failure != nil {
		return 0, failure
	}
	if ready > 0 && (again == 0 || ready < again) {
		again = ready
	}
	return again, c.history.Truncate(ctx, revs, ptr.Deref(ds.Spec.RevisionHistoryLimit, 10), func(h *appsv1.ControllerRevision) bool {
		return slices.ContainsFunc(s.pods, func(p *corev1.Pod) bool {
			return p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == h.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]
		})
	})
}

// look at the set's pods as they are now.
func (c *Controller) look(ctx context.Context, s *state, sel labels.Selector) (err error) {
	if s.pods, err = owned.Claim(ctx, c.pods, s.ds, gvk, sel); err != nil {
		return err
	}
	s.now = c.now()
	return c.guard.Check(ctx, c.pods, s.ds, sel, s.pods)
}

// act on one decision.
func (c *Controller) act(ctx context.Context, s *state, sel labels.Selector, decide func(*state) plan) (again time.Duration, err error) {
	about := event.Ref(c.sets.Kind(), s.ds)
	if err := c.look(ctx, s, sel); err != nil {
		c.record.Warning(about, "FailedCreate", "Error creating: %v", err)
		return 0, err
	}
	p := decide(s)
	remove := p.remove
	for _, pod := range p.ended {
		id := string(s.ds.UID) + "/" + pod.Spec.NodeName
		if c.backoff.IsInBackOffSinceUpdate(id, s.now) {
			if d := c.backoff.Get(id); again == 0 || d < again {
				again = d
			}
			continue
		}
		c.backoff.Next(id, s.now)
		if pod.Status.Phase == corev1.PodFailed {
			c.record.Warning(about, "FailedDaemonPod", "Found failed daemon pod %s/%s on node %s, will try to kill it", pod.Namespace, pod.Name, pod.Spec.NodeName)
		} else {
			c.record.Normal(about, "SucceededDaemonPod", "Found succeeded daemon pod %s/%s on node %s, will try to delete it", pod.Namespace, pod.Name, pod.Spec.NodeName)
		}
		remove = append(remove, pod)
	}
	if len(p.create) > burst || len(remove) > burst {
		p.create, remove, again = p.create[:min(burst, len(p.create))], remove[:min(burst, len(remove))], time.Millisecond
	}
	_, first := owned.SlowStart(len(p.create), func(i int) error { return c.create(ctx, s, p.create[i]) })
	err = owned.Each(len(remove), func(i int) error {
		pod := remove[i]
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
	return again, errors.Join(first, err)
}

func (c *Controller) create(ctx context.Context, s *state, node string) error {
	about := event.Ref(c.sets.Kind(), s.ds)
	pod, err := c.pods.Create(ctx, podFor(s.ds, node, s.hash, owned.Ref(s.ds, gvk)))
	switch {
	case err == nil:
		c.guard.Made(client.Key(s.ds.Namespace, s.ds.Name), pod)
		c.record.Normal(about, "SuccessfulCreate", "Created pod: %s", pod.Name)
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	default:
		c.record.Warning(about, "FailedCreate", "Error creating: %v", err)
	}
	return err
}
