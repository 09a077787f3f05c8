// Package deployment rolls a Deployment's pods from one template to the next by
// growing and shrinking ReplicaSets.
package deployment

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api/index"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/owned"
)

// Controller of Deployments.
type Controller struct {
	queue       *loop.Queue
	in          *client.Informer[*appsv1.Deployment]
	setsIn      *client.Informer[*appsv1.ReplicaSet]
	podsIn      *client.Informer[*corev1.Pod]
	deployments client.Client[*appsv1.Deployment]
	sets        client.Client[*appsv1.ReplicaSet]
	pods        client.Client[*corev1.Pod]
	record      *event.Recorder
	now         func() time.Time
}

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		queue:       loop.NewQueue("deployment", log),
		in:          client.Shared[*appsv1.Deployment](in, client.Scope{}),
		setsIn:      client.Shared[*appsv1.ReplicaSet](in, client.Scope{}),
		podsIn:      client.Shared[*corev1.Pod](in, client.Scope{}),
		deployments: client.For[*appsv1.Deployment](in.Conn()),
		sets:        client.For[*appsv1.ReplicaSet](in.Conn()),
		pods:        client.For[*corev1.Pod](in.Conn()),
		record:      event.New(in.Conn(), "deployment-controller", "", log),
		now:         time.Now,
	}
	c.in.OnChange(func(_, now *appsv1.Deployment) {
		if now != nil {
			c.queue.AddObject(now)
		}
	})
	c.setsIn.OnChange(owned.Changed[*appsv1.Deployment, *appsv1.ReplicaSet](c.queue, gvk.Kind, c.in, func(d *appsv1.Deployment) *metav1.LabelSelector { return d.Spec.Selector }))
	c.podsIn.OnChange(func(old, now *corev1.Pod) {
		if now == nil {
			c.podGone(old)
		}
	})
	return c
}

// podGone wakes a Deployment that waits for its old pods to be gone.
func (c *Controller) podGone(p *corev1.Pod) {
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil || ref.Kind != "ReplicaSet" {
		return
	}
	rs, ok := c.setsIn.Get(p.Namespace, ref.Name)
	if !ok {
		return
	}
	if owner := metav1.GetControllerOfNoCopy(rs); owner != nil && owner.Kind == "Deployment" {
		if d, ok := c.in.Get(p.Namespace, owner.Name); ok && d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
			c.queue.AddObject(d)
		}
	}
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	go c.record.Run(ctx)
	return c.queue.Run(ctx, 4, c.reconcile, c.in.Synced(), c.setsIn.Synced(), c.podsIn.Synced())
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name := loop.Split(key)
	d, err := c.deployments.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	sel, ok := owned.Selector(d.Spec.Selector)
	if !ok {
		c.record.Warning(event.Ref(c.deployments.Kind(), d), "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
		return 0, nil
	}
	sets, err := owned.Claim(ctx, c.sets, d, gvk, sel)
	if err != nil {
		return 0, err
	}
	if target, ok := d.Annotations[appsv1.DeprecatedRollbackTo]; ok {
		return 0, c.rollback(ctx, d, sets, target)
	}
	s := state{d: d, sets: sets, now: c.now()}
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		if s.busy, err = c.oldPods(ctx, d, sets); err != nil {
			return 0, err
		}
	}
	p := decide(s)
	return p.again, c.carryOut(ctx, d, &p)
}

// oldPods says whether pods of other templates are there that have not ended.
func (c *Controller) oldPods(ctx context.Context, d *appsv1.Deployment, sets []*appsv1.ReplicaSet) (bool, error) {
	_, old := split(d, sets)
	for _, rs := range old {
		pods, err := c.pods.List(ctx, rs.Namespace, client.ListOptions{Index: index.Owner, Value: string(rs.UID)})
		if err != nil {
			return false, err
		}
		for _, p := range pods {
			if p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded {
				return true, nil
			}
		}
	}
	return false, nil
}

func (c *Controller) carryOut(ctx context.Context, d *appsv1.Deployment, p *plan) error {
	about := event.Ref(c.deployments.Kind(), d)
	if p.create != nil {
		if err := c.create(ctx, d, p); err != nil {
			return err
		}
	}
	for _, rs := range p.update {
		if _, err := c.sets.Update(ctx, rs); err != nil {
			return err
		}
	}
	for _, s := range p.scaled {
		verb := "up"
		if s.to < s.from {
			verb = "down"
		}
		c.record.Normal(about, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d", verb, s.name, s.from, s.to)
	}
	for _, rs := range p.remove {
		err := c.sets.Delete(ctx, rs.Namespace, rs.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &rs.UID}})
		if err != nil && !apierrors.IsNotFound(err) { // after a conflict it is looked at again
			return err
		}
	}
	if p.revision != "" && d.Annotations[revisionAnnotation] != p.revision {
		patch := fmt.Appendf(nil, `{"metadata":{"uid":%q,"annotations":{%q:%q}}}`, d.UID, revisionAnnotation, p.revision)
		fresh, err := c.deployments.Patch(ctx, d.Namespace, d.Name, client.Patch{Type: types.MergePatchType, Data: patch}, client.WriteOptions{Subresource: "status"}) // which leaves the generation as it is
		if err != nil {
			return err
		}
		if fresh.Generation != d.Generation {
			return nil // changed meanwhile: decide again
		}
		d = fresh
	}
	return c.writeStatus(ctx, d, p.status)
}

// create the set of the current template. One of its name with another template
// is a collision of hashes: counted, so that the next name differs.
func (c *Controller) create(ctx context.Context, d *appsv1.Deployment, p *plan) error {
	about := event.Ref(c.deployments.Kind(), d)
	rs, err := c.sets.Create(ctx, p.create.DeepCopy())
	switch {
	case err == nil:
		c.record.Normal(about, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", rs.Name, *rs.Spec.Replicas)
		return nil
	case apierrors.IsAlreadyExists(err):
		have, getErr := c.sets.Get(ctx, d.Namespace, p.create.Name)
		if getErr != nil {
			return getErr
		}
		if ref := metav1.GetControllerOfNoCopy(have); ref != nil && ref.UID == d.UID && sameTemplate(&have.Spec.Template, &d.Spec.Template) {
			return nil
		}
		st := *d.Status.DeepCopy()
		count := int32(1)
		if st.CollisionCount != nil {
			count = *st.CollisionCount + 1
		}
		st.CollisionCount = &count
		if err := c.writeStatus(ctx, d, st); err != nil {
			return err
		}
		return fmt.Errorf("replica set %q is taken by another template: %w", p.create.Name, err)
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	}
	text := fmt.Sprintf("Failed to create new replica set %q: %v", p.create.Name, err)
	c.record.Warning(about, "ReplicaSetCreateError", "%s", text)
	if hasDeadline(d) {
		st := *d.Status.DeepCopy()
		setCondition(&st, appsv1.DeploymentProgressing, corev1.ConditionFalse, "ReplicaSetCreateError", text, c.now())
		if werr := c.writeStatus(ctx, d, st); werr != nil {
			return werr
		}
	}
	return err
}

func (c *Controller) writeStatus(ctx context.Context, d *appsv1.Deployment, st appsv1.DeploymentStatus) error {
	if equality.Semantic.DeepEqual(d.Status, st) {
		return nil
	}
	out := d.DeepCopy()
	out.Status = st
	_, err := c.deployments.UpdateStatus(ctx, out)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
