// Package ttl deletes Jobs some time after they have ended, as their
// ttlSecondsAfterFinished says (KEP-592).
package ttl

import (
	"context"
	"log/slog"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// Controller of ended Jobs.
type Controller struct {
	queue *loop.Queue
	in    *client.Informer[*batchv1.Job]
	jobs  client.Client[*batchv1.Job]
	now   func() time.Time
}

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		queue: loop.NewQueue("ttlafterfinished", log),
		in:    client.Shared[*batchv1.Job](in, client.Scope{}),
		jobs:  client.For[*batchv1.Job](in.Conn()),
		now:   time.Now,
	}
	c.in.OnChange(func(_, now *batchv1.Job) {
		if now != nil {
			if _, ok := expiry(now); ok {
				c.queue.AddObject(now)
			}
		}
	})
	return c
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	return c.queue.Run(ctx, 2, c.reconcile, c.in.Synced())
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name := loop.Split(key)
	j, err := c.jobs.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	at, ok := expiry(j)
	if !ok {
		return 0, nil
	}
	if left := at.Sub(c.now()); left > 0 {
		return left, nil
	}
	err = c.jobs.Delete(ctx, namespace, name, metav1.DeleteOptions{
		PropagationPolicy: ptr.To(metav1.DeletePropagationForeground),
		Preconditions:     &metav1.Preconditions{UID: &j.UID, ResourceVersion: &j.ResourceVersion},
	})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return 0, err
}

// expiry of a job that has ended, is not being deleted and has a time to live.
func expiry(j *batchv1.Job) (time.Time, bool) {
	if j.Spec.TTLSecondsAfterFinished == nil || j.DeletionTimestamp != nil {
		return time.Time{}, false
	}
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.LastTransitionTime.Add(time.Duration(*j.Spec.TTLSecondsAfterFinished) * time.Second), true
		}
	}
	return time.Time{}, false
}
