// Package disruption works out how many pods of a PodDisruptionBudget may be
// evicted. The eviction itself checks and counts where it is asked for.
package disruption

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/owned"
)

// pod begins the queue's keys of pods; the others are budgets.
const pod = "pod:"

// Controller of PodDisruptionBudgets.
type Controller struct {
	queue   *loop.Queue
	in      *client.Informer[*policyv1.PodDisruptionBudget]
	podsIn  *client.Informer[*corev1.Pod]
	budgets client.Client[*policyv1.PodDisruptionBudget]
	pods    client.Client[*corev1.Pod]
	record  *event.Recorder
	now     func() time.Time
}

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		queue:   loop.NewQueue("disruption", log),
		in:      client.Shared[*policyv1.PodDisruptionBudget](in, client.Scope{}),
		podsIn:  client.Shared[*corev1.Pod](in, client.Scope{}),
		budgets: client.For[*policyv1.PodDisruptionBudget](in.Conn()),
		pods:    client.For[*corev1.Pod](in.Conn()),
		record:  event.New(in.Conn(), "controllermanager", "", log),
		now:     time.Now,
	}
	c.in.OnChange(func(_, now *policyv1.PodDisruptionBudget) {
		if now != nil {
			c.queue.AddObject(now)
		}
	})
	c.podsIn.OnChange(func(old, now *corev1.Pod) {
		for _, p := range []*corev1.Pod{old, now} {
			if p == nil {
				continue
			}
			for _, b := range c.in.List(p.Namespace, nil) {
				if sel, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil && sel.Matches(labels.Set(p.Labels)) {
					c.queue.AddObject(b)
				}
			}
		}
		if now != nil {
			if in, ok := stale(now, c.now()); ok {
				c.queue.AddAfter(pod+client.Key(now.Namespace, now.Name), in)
			}
		}
	})
	return c
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	go c.record.Run(ctx)
	return c.queue.Run(ctx, 2, c.reconcile, c.in.Synced(), c.podsIn.Synced())
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	if name, ok := strings.CutPrefix(key, pod); ok {
		return c.clear(ctx, name)
	}
	namespace, name := loop.Split(key)
	b, err := c.budgets.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil || b.DeletionTimestamp != nil {
		return 0, err
	}
	about := event.Ref(c.budgets.Kind(), b)
	v, failure := c.judge(ctx, b, about)
	if failure != nil {
		if ctx.Err() != nil || apierrors.IsConflict(failure) {
			return 0, failure
		}
		v.status = failed(b, failure, c.now())
	}
	for _, p := range v.overstay {
		c.record.Warning(event.Ref(c.pods.Kind(), p), "NotDeleted", "Pod was expected by PDB %s/%s to be deleted but it wasn't", b.Namespace, b.Name)
	}
	if equality.Semantic.DeepEqual(b.Status, v.status) {
		return v.again, failure
	}
	out := b.DeepCopy()
	out.Status = v.status
	if _, err := c.budgets.UpdateStatus(ctx, out); err != nil && !apierrors.IsNotFound(err) {
		return 0, err
	}
	return v.again, failure // which may pass without anything that wakes us
}

func (c *Controller) judge(ctx context.Context, b *policyv1.PodDisruptionBudget, about corev1.ObjectReference) (verdict, error) {
	sel, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		c.record.Warning(about, "NoPods", "Failed to get pods: %v", err)
		return verdict{}, err
	}
	pods, err := c.pods.List(ctx, b.Namespace, client.ListOptions{Labels: sel})
	if err != nil {
		return verdict{}, err
	}
	if len(pods) == 0 {
		c.record.Normal(about, "NoPods", "No matching pods found")
	}
	expected := int32(0)
	if percentual(b) {
		var free int
		if expected, free, err = c.expected(ctx, pods); err != nil {
			c.record.Warning(about, "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: %v", err)
			return verdict{}, err
		}
		if free > 0 {
			c.record.Warning(about, "UnmanagedPods", "Pods selected by this PodDisruptionBudget (selector: %v) were found "+
				"to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. "+
				"To account for these pods please set \".spec.minAvailable\" "+
				"field of the PDB to an integer value.", b.Spec.Selector)
		}
	}
	return judge(b, pods, expected, c.now())
}

// expected number of pods: the sum of their controllers' scales. free is how many
// have none.
func (c *Controller) expected(ctx context.Context, pods []*corev1.Pod) (sum int32, free int, err error) {
	seen := map[types.UID]bool{}
	counted := map[types.UID]bool{}
	for _, p := range pods {
		ref := metav1.GetControllerOfNoCopy(p)
		if ref == nil {
			free++
			continue
		}
		if seen[ref.UID] {
			continue
		}
		seen[ref.UID] = true
		uid, n, err := c.scale(ctx, p.Namespace, ref)
		if err != nil {
			return 0, 0, fmt.Errorf("found no controllers for pod %q: %w", p.Name, err)
		}
		if !counted[uid] {
			counted[uid] = true
			sum += n
		}
	}
	return sum, free, nil
}

var errNoScale = errors.New("it has no scale subresource")

// scale of a controller, or of the Deployment behind a ReplicaSet.
func (c *Controller) scale(ctx context.Context, namespace string, ref *metav1.OwnerReference) (types.UID, int32, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return "", 0, err
	}
	conn := c.pods.Conn()
	served, ok := conn.Catalog().Kind(gv.WithKind(ref.Kind))
	if !ok {
		return "", 0, fmt.Errorf("%s %s is not served", ref.APIVersion, ref.Kind)
	}
	obj, err := conn.Get(ctx, served.Kind, namespace, ref.Name)
	if err != nil {
		return "", 0, err
	}
	if obj.GetUID() != ref.UID {
		return "", 0, apierrors.NewNotFound(served.GroupResource(), ref.Name)
	}
	if up := metav1.GetControllerOfNoCopy(obj); up != nil && served.Kind.Kind == "ReplicaSet" && up.Kind == "Deployment" {
		return c.scale(ctx, namespace, up)
	}
	sub := served.Subresource("scale")
	if sub == nil || sub.Get == nil {
		return "", 0, fmt.Errorf("%s %s: %w", served.Kind.Kind, ref.Name, errNoScale)
	}
	out, err := sub.Get(obj)
	if err != nil {
		return "", 0, err
	}
	s, ok := out.(*autoscalingv1.Scale)
	if !ok {
		return "", 0, fmt.Errorf("%s %s: %w", served.Kind.Kind, ref.Name, errNoScale)
	}
	return obj.GetUID(), s.Spec.Replicas, nil
}

// clear the condition of a pod that was to be disrupted and was not.
func (c *Controller) clear(ctx context.Context, key string) (time.Duration, error) {
	namespace, name := loop.Split(key)
	p, err := c.pods.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	in, ok := stale(p, c.now())
	if !ok || in > 0 {
		return in, nil
	}
	out := p.DeepCopy()
	d := owned.Condition(out, corev1.DisruptionTarget)
	d.Status, d.Reason, d.Message, d.LastTransitionTime = corev1.ConditionFalse, "", "", metav1.NewTime(c.now())
	_, err = c.pods.UpdateStatus(ctx, out)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return 0, err
}
