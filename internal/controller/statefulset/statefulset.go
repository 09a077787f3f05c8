// Package statefulset keeps the numbered pods of a StatefulSet, each with a name
// and volumes of its own that outlive it.
package statefulset

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/controller/history"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/owned"
)

var gvk = appsv1.SchemeGroupVersion.WithKind("StatefulSet")

// Controller of StatefulSets.
type Controller struct {
	queue    *loop.Queue
	in       *client.Informer[*appsv1.StatefulSet]
	podsIn   *client.Informer[*corev1.Pod]
	claimsIn *client.Informer[*corev1.PersistentVolumeClaim]
	revsIn   *client.Informer[*appsv1.ControllerRevision]
	sets     client.Client[*appsv1.StatefulSet]
	pods     client.Client[*corev1.Pod]
	claims   client.Client[*corev1.PersistentVolumeClaim]
	history  history.Keeper
	record   *event.Recorder
	now      func() time.Time
}

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		queue:    loop.NewQueue("statefulset", log),
		in:       client.Shared[*appsv1.StatefulSet](in, client.Scope{}),
		podsIn:   client.Shared[*corev1.Pod](in, client.Scope{}),
		claimsIn: client.Shared[*corev1.PersistentVolumeClaim](in, client.Scope{}),
		revsIn:   client.Shared[*appsv1.ControllerRevision](in, client.Scope{}),
		sets:     client.For[*appsv1.StatefulSet](in.Conn()),
		pods:     client.For[*corev1.Pod](in.Conn()),
		claims:   client.For[*corev1.PersistentVolumeClaim](in.Conn()),
		history:  history.Keeper{Revisions: client.For[*appsv1.ControllerRevision](in.Conn()), Owner: gvk, HashLabel: "controller.kubernetes.io/hash"},
		record:   event.New(in.Conn(), "statefulset-controller", "", log),
		now:      time.Now,
	}
	c.in.OnChange(func(_, now *appsv1.StatefulSet) {
		if now != nil {
			c.queue.AddObject(now)
		}
	})
	c.podsIn.OnChange(owned.Changed[*appsv1.StatefulSet, *corev1.Pod](c.queue, gvk.Kind, c.in, func(set *appsv1.StatefulSet) *metav1.LabelSelector { return set.Spec.Selector }))
	c.revsIn.OnChange(owned.Gone[*appsv1.ControllerRevision](c.queue, gvk.Kind))
	c.claimsIn.OnChange(c.claimGone)
	return c
}

// claimGone wakes the set that a claim was for by its name: it waits with a pod until a
// claim that is being deleted is gone, and makes another.
func (c *Controller) claimGone(old, now *corev1.PersistentVolumeClaim) {
	if now != nil {
		return
	}
	for _, set := range c.in.List(old.Namespace, nil) {
		for i := range set.Spec.VolumeClaimTemplates {
			if strings.HasPrefix(old.Name, set.Spec.VolumeClaimTemplates[i].Name+"-"+set.Name+"-") {
				c.queue.AddObject(set)
			}
		}
	}
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	go c.record.Run(ctx)
	return c.queue.Run(ctx, 4, c.reconcile, c.in.Synced(), c.podsIn.Synced(), c.claimsIn.Synced(), c.revsIn.Synced())
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name := loop.Split(key)
	set, err := c.sets.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	sel, ok := owned.Selector(set.Spec.Selector)
	if !ok {
		return 0, nil
	}
	revs, err := c.history.Sync(ctx, set, sel, &set.Spec.Template, set.Status.CollisionCount)
	if err != nil {
		return 0, err
	}
	if revs.Collided {
		out := set.DeepCopy()
		out.Status.CollisionCount = ptr.To(ptr.Deref(set.Status.CollisionCount, 0) + 1)
		_, err := c.sets.UpdateStatus(ctx, out)
		return time.Millisecond, err
	}
	s := &state{set: set, update: revision{revs.Current.Name, &set.Spec.Template}}
	s.current = s.update
	for _, h := range revs.All {
		if h.Name == set.Status.CurrentRevision && h.Name != s.update.name {
			t, err := history.Template(h)
			if err != nil {
				return 0, err
			}
			s.current = revision{h.Name, t}
		}
	}
	if err := c.look(ctx, s, sel); err != nil {
		return 0, err
	}
	failure := c.carryOut(ctx, set, s.decide())
	if err := c.look(ctx, s, sel); err != nil {
		return 0, err
	}
	st, again := s.status()
	if !equality.Semantic.DeepEqual(set.Status, st) {
		out := set.DeepCopy()
		out.Status = st
		if _, err := c.sets.UpdateStatus(ctx, out); err != nil {
			return 0, err
		}
	}
	if failure != nil {
		return 0, failure
	}
	return again, c.history.Truncate(ctx, revs, ptr.Deref(set.Spec.RevisionHistoryLimit, 10), func(h *appsv1.ControllerRevision) bool {
		return h.Name == st.CurrentRevision || slices.ContainsFunc(s.pods, func(p *corev1.Pod) bool { return p.Labels[appsv1.StatefulSetRevisionLabel] == h.Name })
	})
}

// look at the set's pods and claims as they are now.
func (c *Controller) look(ctx context.Context, s *state, sel labels.Selector) (err error) {
	s.now = c.now()
	s.pods, err = owned.ClaimIf(ctx, c.pods, s.set, gvk, sel, func(p *corev1.Pod) bool { return ordinal(s.set, p) >= 0 })
	if err != nil || len(s.set.Spec.VolumeClaimTemplates) == 0 {
		return err
	}
	s.claims = map[string]*corev1.PersistentVolumeClaim{}
	see := func(n int) error {
		for i := range s.set.Spec.VolumeClaimTemplates {
			claim, err := c.claims.Get(ctx, s.set.Namespace, claimName(s.set, s.set.Spec.VolumeClaimTemplates[i].Name, n))
			if err == nil {
				s.claims[claim.Name] = claim
			} else if !apierrors.IsNotFound(err) {
				return err
			}
		}
		return nil
	}
	for i := range int(ptr.Deref(s.set.Spec.Replicas, 1)) {
		if err := see(start(s.set) + i); err != nil {
			return err
		}
	}
	for _, p := range s.pods {
		if err := see(ordinal(s.set, p)); err != nil {
			return err
		}
	}
	return nil
}

func (c *Controller) carryOut(ctx context.Context, set *appsv1.StatefulSet, p plan) error {
	about := event.Ref(c.sets.Kind(), set)
	for _, claim := range p.owners {
		if _, err := c.claims.Update(ctx, claim); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	for _, claim := range p.claims {
		name, pod := claim.Name, podName(set, ordinalOfClaim(claim.Name))
		_, err := c.claims.Create(ctx, claim)
		switch {
		case err == nil:
			c.record.Normal(about, "SuccessfulCreate", "create Claim %s Pod %s in StatefulSet %s success", name, pod, set.Name)
		case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			return nil
		case !apierrors.IsAlreadyExists(err):
			c.record.Warning(about, "FailedCreate", "create Claim %s for Pod %s in StatefulSet %s failed error: %v", name, pod, set.Name, err)
			return err
		}
	}
	for _, pod := range p.label {
		if _, err := c.pods.Update(ctx, pod); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	_, first := owned.SlowStart(len(p.create), func(i int) error {
		name := p.create[i].Name
		_, err := c.pods.Create(ctx, p.create[i])
		switch {
		case err == nil:
			c.record.Normal(about, "SuccessfulCreate", "create Pod %s in StatefulSet %s successful", name, set.Name)
		case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			return nil
		default:
			c.record.Warning(about, "FailedCreate", "create Pod %s in StatefulSet %s failed error: %v", name, set.Name, err)
		}
		return err
	})
	err := owned.Each(len(p.remove), func(i int) error {
		pod := p.remove[i]
		if owned.Ended(pod) {
			if pod.Status.Phase == corev1.PodFailed {
				c.record.Warning(about, "RecreatingFailedPod", "StatefulSet %s/%s is recreating failed Pod %s", set.Namespace, set.Name, pod.Name)
			} else {
				c.record.Normal(about, "RecreatingTerminatedPod", "StatefulSet %s/%s is recreating terminated Pod %s", set.Namespace, set.Name, pod.Name)
			}
		}
		err := c.pods.Delete(ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})
		switch {
		case err == nil:
			c.record.Normal(about, "SuccessfulDelete", "delete Pod %s in StatefulSet %s successful", pod.Name, set.Name)
		case apierrors.IsConflict(err):
			return err // look again
		case !apierrors.IsNotFound(err):
			c.record.Warning(about, "FailedDelete", "delete Pod %s in StatefulSet %s failed error: %v", pod.Name, set.Name, err)
			return err
		}
		return nil
	})
	return errors.Join(first, err)
}
