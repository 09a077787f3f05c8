// Package job runs the pods of a Job until enough of them have succeeded.
package job

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
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

// stray begins the queue's keys of pods that have the finalizer of a job that is
// no more, or no more theirs.
const stray = "pod:"

// Controller of Jobs.
type Controller struct {
	queue  *loop.Queue
	in     *client.Informer[*batchv1.Job]
	podsIn *client.Informer[*corev1.Pod]
	jobs   client.Client[*batchv1.Job]
	pods   client.Client[*corev1.Pod]
	guard  owned.Guard[*corev1.Pod]
	record *event.Recorder
	now    func() time.Time

	mu      sync.Mutex
	backoff map[types.UID]record
}

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		queue:   loop.NewQueue("job", log),
		in:      client.Shared[*batchv1.Job](in, client.Scope{}),
		podsIn:  client.Shared[*corev1.Pod](in, client.Scope{}),
		jobs:    client.For[*batchv1.Job](in.Conn()),
		pods:    client.For[*corev1.Pod](in.Conn()),
		record:  event.New(in.Conn(), "job-controller", "", log),
		now:     time.Now,
		backoff: map[types.UID]record{},
	}
	c.in.OnChange(func(old, now *batchv1.Job) {
		if now != nil {
			c.queue.AddObject(now)
			return
		}
		c.guard.Forget(client.Key(old.Namespace, old.Name))
		c.mu.Lock()
		delete(c.backoff, old.UID)
		c.mu.Unlock()
		for _, p := range c.podsIn.ByIndex(index.Owner, string(old.UID)) {
			c.queue.Add(stray + client.Key(p.Namespace, p.Name))
		}
	})
	c.podsIn.OnChange(owned.Changed[*batchv1.Job, *corev1.Pod](c.queue, gvk.Kind, c.in, func(j *batchv1.Job) *metav1.LabelSelector { return j.Spec.Selector }))
	c.podsIn.OnChange(c.podChanged)
	return c
}

// podChanged lets go of a pod that is tracked for no job.
func (c *Controller) podChanged(_, now *corev1.Pod) {
	if now != nil && tracked(now) {
		ref := metav1.GetControllerOfNoCopy(now)
		if ref == nil || ref.Kind == gvk.Kind {
			if j, ok := c.jobOf(now, ref); !ok || finishedJob(j) {
				c.queue.Add(stray + client.Key(now.Namespace, now.Name))
			}
		}
	}
}

func (c *Controller) jobOf(p *corev1.Pod, ref *metav1.OwnerReference) (*batchv1.Job, bool) {
	if ref == nil {
		return nil, false
	}
	j, ok := c.in.Get(p.Namespace, ref.Name)
	return j, ok && j.UID == ref.UID
}

func finishedJob(j *batchv1.Job) bool {
	return find(&j.Status, batchv1.JobComplete) != nil || find(&j.Status, batchv1.JobFailed) != nil
}

// external says whether somebody else controls the job (KEP-4368).
func external(j *batchv1.Job) bool {
	return j.Spec.ManagedBy != nil && *j.Spec.ManagedBy != batchv1.JobControllerName
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	go c.record.Run(ctx)
	return c.queue.Run(ctx, 4, c.reconcile, c.in.Synced(), c.podsIn.Synced())
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	if pod, ok := strings.CutPrefix(key, stray); ok {
		return 0, c.letGo(ctx, pod)
	}
	namespace, name := loop.Split(key)
	j, err := c.jobs.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil || external(j) || finishedJob(j) {
		return 0, err
	}
	sel, ok := owned.Selector(j.Spec.Selector)
	if !ok {
		return 0, nil
	}
	pods, err := owned.Claim(ctx, c.pods, j, gvk, sel)
	if err != nil {
		return 0, err
	}
	if pods, err = c.track(ctx, pods); err != nil {
		return 0, err
	}
	about := event.Ref(c.jobs.Kind(), j)
	if err := c.guard.Check(ctx, c.pods, j, sel, pods); err != nil {
		c.record.Warning(about, "FailedCreate", "Error creating: %v", err)
		return 0, err
	}
	c.mu.Lock()
	backoff := c.backoff[j.UID]
	c.mu.Unlock()
	p := decide(state{job: j, pods: pods, backoff: backoff, now: c.now()})
	return p.again, c.carryOut(ctx, j, p)
}

// track the pods that were adopted.
func (c *Controller) track(ctx context.Context, pods []*corev1.Pod) ([]*corev1.Pod, error) {
	pods = slices.Clone(pods)
	for i, p := range pods {
		if tracked(p) || !owned.Active(p) {
			continue
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID, "finalizers": []string{batchv1.JobTrackingFinalizer}}})
		if err != nil {
			return nil, err
		}
		now, err := c.pods.Patch(ctx, p.Namespace, p.Name, client.Patch{Type: types.StrategicMergePatchType, Data: patch}, client.WriteOptions{})
		if err != nil {
			return nil, err
		}
		pods[i] = now
	}
	return pods, nil
}

func (c *Controller) carryOut(ctx context.Context, j *batchv1.Job, p plan) error {
	about := event.Ref(c.jobs.Kind(), j)
	err := owned.Each(len(p.remove), func(i int) error {
		pod := p.remove[i]
		if p.strip {
			if err := c.release(ctx, pod); err != nil {
				return err
			}
		}
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
	if err != nil {
		return err // the status would say that they are gone
	}
	made, failure := owned.SlowStart(len(p.create), func(i int) error {
		pod, err := c.pods.Create(ctx, p.create[i])
		switch {
		case err == nil:
			c.guard.Made(client.Key(j.Namespace, j.Name), pod)
			c.record.Normal(about, "SuccessfulCreate", "Created pod: %s", pod.Name)
		case !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			c.record.Warning(about, "FailedCreate", "Error creating: %v", err)
		}
		return err
	})
	if apierrors.HasStatusCause(failure, corev1.NamespaceTerminatingCause) {
		failure = nil
	}
	p.status.Active -= int32(len(p.create) - made)
	if !equality.Semantic.DeepEqual(j.Status, p.status) {
		out := j.DeepCopy()
		out.Status = p.status
		if _, err := c.jobs.UpdateStatus(ctx, out); err != nil {
			return errors.Join(failure, err)
		}
		for _, n := range p.events {
			if n.kind == corev1.EventTypeNormal {
				c.record.Normal(about, n.reason, "%s", n.message)
			} else {
				c.record.Warning(about, n.reason, "%s", n.message)
			}
		}
	}
	c.mu.Lock()
	c.backoff[j.UID] = p.backoff
	c.mu.Unlock()
	err = owned.Each(len(p.release), func(i int) error { return c.release(ctx, p.release[i]) })
	if len(p.release) > 0 {
		c.queue.AddObject(j) // they are counted next
	}
	return errors.Join(failure, err)
}

// release a pod from being tracked.
func (c *Controller) release(ctx context.Context, p *corev1.Pod) error {
	if !tracked(p) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": p.UID, "$deleteFromPrimitiveList/finalizers": []string{batchv1.JobTrackingFinalizer},
	}})
	if err != nil {
		return err
	}
	_, err = c.pods.Patch(ctx, p.Namespace, p.Name, client.Patch{Type: types.StrategicMergePatchType, Data: patch}, client.WriteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// letGo of a pod whose job is gone, has ended, or gave it up.
func (c *Controller) letGo(ctx context.Context, key string) error {
	namespace, name := loop.Split(key)
	p, err := c.pods.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || !tracked(p) {
		return err
	}
	if ref := metav1.GetControllerOfNoCopy(p); ref != nil {
		if ref.Kind != gvk.Kind {
			return nil
		}
		j, err := c.jobs.Get(ctx, namespace, ref.Name)
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		if err == nil && j.UID == ref.UID && (external(j) || !finishedJob(j)) {
			return nil
		}
	}
	return c.release(ctx, p)
}
