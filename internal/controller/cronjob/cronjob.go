// Package cronjob makes Jobs by the clock.
package cronjob

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/api/index"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/owned"
)

var gvk = batchv1.SchemeGroupVersion.WithKind("CronJob")

// Controller of CronJobs.
type Controller struct {
	queue  *loop.Queue
	in     *client.Informer[*batchv1.CronJob]
	jobsIn *client.Informer[*batchv1.Job]
	crons  client.Client[*batchv1.CronJob]
	jobs   client.Client[*batchv1.Job]
	record *event.Recorder
	now    func() time.Time
}

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		queue:  loop.NewQueue("cronjob", log),
		in:     client.Shared[*batchv1.CronJob](in, client.Scope{}),
		jobsIn: client.Shared[*batchv1.Job](in, client.Scope{}),
		crons:  client.For[*batchv1.CronJob](in.Conn()),
		jobs:   client.For[*batchv1.Job](in.Conn()),
		record: event.New(in.Conn(), "cronjob-controller", "", log),
		now:    time.Now,
	}
	c.in.OnChange(func(old, now *batchv1.CronJob) {
		// somebody else may have written the status
		if now != nil && (old == nil || !equality.Semantic.DeepEqual(old.Spec, now.Spec) || !equality.Semantic.DeepEqual(old.Status, now.Status)) {
			c.queue.AddObject(now)
		}
	})
	c.jobsIn.OnChange(func(old, now *batchv1.Job) {
		for _, j := range []*batchv1.Job{old, now} {
			if j != nil {
				if ref := metav1.GetControllerOfNoCopy(j); ref != nil && ref.Kind == gvk.Kind {
					c.queue.Add(client.Key(j.Namespace, ref.Name))
				}
			}
		}
	})
	return c
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	go c.record.Run(ctx)
	return c.queue.Run(ctx, 4, c.reconcile, c.in.Synced(), c.jobsIn.Synced())
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name := loop.Split(key)
	cj, err := c.crons.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	jobs, err := c.jobs.List(ctx, namespace, client.ListOptions{Index: index.Owner, Value: string(cj.UID)})
	if err != nil {
		return 0, err
	}
	about := event.Ref(c.crons.Kind(), cj)
	p := decide(cj, jobs, c.now())
	st, failure := c.carryOut(ctx, cj, p)
	if !equality.Semantic.DeepEqual(cj.Status, st) {
		out := cj.DeepCopy()
		out.Status = st
		if _, err := c.crons.UpdateStatus(ctx, out); err != nil {
			return 0, err
		}
	}
	for _, n := range p.events {
		if n.kind == corev1.EventTypeNormal {
			c.record.Normal(about, n.reason, "%s", n.message)
		} else {
			c.record.Warning(about, n.reason, "%s", n.message)
		}
	}
	return p.again, failure
}

// carryOut a plan and return the status that follows.
func (c *Controller) carryOut(ctx context.Context, cj *batchv1.CronJob, p plan) (batchv1.CronJobStatus, error) {
	for _, j := range p.history {
		if err := c.remove(ctx, cj, j); err != nil {
			return p.status, err
		}
	}
	for _, j := range p.replace {
		if err := c.remove(ctx, cj, j); err != nil {
			p.status.Active = cj.Status.Active
			return p.status, fmt.Errorf("could not replace job %s/%s: %w", j.Namespace, j.Name, err)
		}
	}
	if p.due == nil {
		return p.status, nil
	}
	about := event.Ref(c.crons.Kind(), cj)
	j, err := c.jobs.Create(ctx, jobFor(cj, *p.due))
	switch {
	case apierrors.IsAlreadyExists(err):
		if j, err = c.jobs.Get(ctx, cj.Namespace, jobName(cj, *p.due)); err != nil || !metav1.IsControlledBy(j, cj) {
			return p.status, err
		}
	case err != nil:
		if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			c.record.Warning(about, "FailedCreate", "Error creating job: %v", err)
		}
		return p.status, err
	default:
		c.record.Normal(about, "SuccessfulCreate", "Created job %v", j.Name)
	}
	if ended(j) == "" {
		p.status.Active = append(without(p.status.Active, j.UID), refTo(j))
	}
	p.status.LastScheduleTime = &metav1.Time{Time: *p.due}
	return p.status, nil
}

func (c *Controller) remove(ctx context.Context, cj *batchv1.CronJob, j *batchv1.Job) error {
	about := event.Ref(c.crons.Kind(), cj)
	err := c.jobs.Delete(ctx, j.Namespace, j.Name, metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)})
	switch {
	case err == nil:
		c.record.Normal(about, "SuccessfulDelete", "Deleted job %v", j.Name)
	case apierrors.IsNotFound(err):
		return nil
	default:
		c.record.Warning(about, "FailedDelete", "Deleted job: %v", err)
	}
	return err
}

func jobFor(cj *batchv1.CronJob, at time.Time) *batchv1.Job {
	t := cj.Spec.JobTemplate.DeepCopy()
	zone, err := time.LoadLocation(ptr.Deref(cj.Spec.TimeZone, ""))
	if err != nil {
		zone = time.UTC // the decider has refused others
	}
	annotations := maps.Clone(t.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[batchv1.CronJobScheduledTimestampAnnotation] = at.In(zone).Format(time.RFC3339)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name: jobName(cj, at), Namespace: cj.Namespace, Labels: t.Labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{owned.Ref(cj, gvk)},
		},
		Spec: t.Spec,
	}
}
