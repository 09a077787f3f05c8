// Package expand grows the volumes of claims that ask for more than they have, as
// far as their class allows it. Volumes of Proa's own provisioner grow here: a
// folder has no size that anybody enforces, so its volume says the new one, and so
// does the claim. Those of others are grown by whoever made them, a CSI driver's
// resizer. What a claim goes through meanwhile is KEP-1790.
package expand

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api/core"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// Controller of claims that grow.
type Controller struct {
	provisioner string
	queue       *loop.Queue
	claimsIn    *client.Informer[*corev1.PersistentVolumeClaim]
	claims      client.Client[*corev1.PersistentVolumeClaim]
	volumes     client.Client[*corev1.PersistentVolume]
	record      *event.Recorder
	now         func() metav1.Time
}

// New controller. It grows the volumes that a provisioner of this name has made.
func New(in *client.Informers, provisioner string, log *slog.Logger) *Controller {
	c := &Controller{
		provisioner: provisioner,
		queue:       loop.NewQueue("expand", log),
		claimsIn:    client.Shared[*corev1.PersistentVolumeClaim](in, client.Scope{}),
		claims:      client.For[*corev1.PersistentVolumeClaim](in.Conn()),
		volumes:     client.For[*corev1.PersistentVolume](in.Conn()),
		record:      event.New(in.Conn(), "volume_expand", "", log),
		now:         metav1.Now,
	}
	c.claimsIn.OnChange(func(old, now *corev1.PersistentVolumeClaim) {
		if news(old, now) {
			c.queue.AddObject(now)
		}
	})
	return c
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	go c.record.Run(ctx)
	return c.queue.Run(ctx, 2, c.reconcile, c.claimsIn.Synced())
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name := loop.Split(key)
	claim, err := c.claims.Get(ctx, namespace, name)
	if err != nil || !wanting(claim) {
		return 0, loop.IgnoreNotFound(err)
	}
	v, err := c.volumes.Get(ctx, "", claim.Spec.VolumeName)
	if err != nil {
		return 0, loop.IgnoreNotFound(err)
	}
	about := event.Ref(c.claims.Kind(), claim)
	switch who(claim, v, c.provisioner) {
	case others:
		c.record.Normal(about, "ExternalExpanding", "waiting for an external controller to expand this PVC")
	case ours:
		err := c.grow(ctx, claim, v)
		switch {
		case err == nil:
			c.record.Normal(about, "VolumeResizeSuccessful", "ExpandVolume succeeded for volume %s", key)
		case !apierrors.IsConflict(err) && !apierrors.IsNotFound(err):
			c.record.Warning(about, "VolumeResizeFailed", "error expanding pvc %s: %v", key, err)
			return 0, err
		default:
			return 0, loop.IgnoreNotFound(err)
		}
	}
	return 0, nil
}

// grow a volume of ours: the claim says what is going to be, the volume gets it,
// the claim has it. Each step may be the last before a crash.
func (c *Controller) grow(ctx context.Context, claim *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) (err error) {
	size := target(claim)
	if claim, err = c.status(ctx, claim, begun(claim.Status, size, c.now())); err != nil {
		return err
	}
	if have := v.Spec.Capacity[corev1.ResourceStorage]; have.Cmp(size) < 0 {
		out := v.DeepCopy()
		out.Spec.Capacity[corev1.ResourceStorage] = size
		if v, err = c.volumes.Update(ctx, out); err != nil {
			return err
		}
	}
	done := *claim.Status.DeepCopy()
	core.Grown(&done, v.Spec.Capacity[corev1.ResourceStorage])
	_, err = c.status(ctx, claim, done)
	return err
}

// status is written with who sees to it.
func (c *Controller) status(ctx context.Context, claim *corev1.PersistentVolumeClaim, to corev1.PersistentVolumeClaimStatus) (*corev1.PersistentVolumeClaim, error) {
	if claim.Annotations[resizer] == c.provisioner && equality.Semantic.DeepEqual(claim.Status, to) {
		return claim, nil
	}
	out := claim.DeepCopy()
	out.Status = to
	metav1.SetMetaDataAnnotation(&out.ObjectMeta, resizer, c.provisioner)
	return c.claims.UpdateStatus(ctx, out)
}

// news says whether a claim has begun to ask for more than it has, or has come
// nearer to it.
func news(old, now *corev1.PersistentVolumeClaim) bool {
	if now == nil || !wanting(now) {
		return false
	}
	return old == nil || !wanting(old) || more(request(now), request(old)) || more(now.Status.Capacity[corev1.ResourceStorage], old.Status.Capacity[corev1.ResourceStorage])
}

func more(a, b resource.Quantity) bool { return a.Cmp(b) > 0 }
