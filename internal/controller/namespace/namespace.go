// Package namespace empties a namespace that is being deleted, pods first
// (KEP-5080), and lets it go when nothing is left in it.
package namespace

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// Controller of namespaces.
type Controller struct {
	queue *loop.Queue
	in    *client.Informer[*corev1.Namespace]
	write client.Client[*corev1.Namespace]
	pods  *client.Informer[*corev1.Pod]
	now   func() time.Time
}

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		queue: loop.NewQueue("namespace", log),
		in:    client.Shared[*corev1.Namespace](in, client.Scope{}),
		pods:  client.Shared[*corev1.Pod](in, client.Scope{}),
		write: client.For[*corev1.Namespace](in.Conn()),
		now:   time.Now,
	}
	c.in.OnChange(func(_, now *corev1.Namespace) {
		if now != nil && now.DeletionTimestamp != nil {
			c.queue.Add(now.Name)
		}
	})
	c.pods.OnChange(func(old, now *corev1.Pod) { // the last pod gone is what is mostly waited for
		if now == nil {
			if ns, ok := c.in.Get("", old.Namespace); ok && ns.DeletionTimestamp != nil {
				c.queue.Add(ns.Name)
			}
		}
	})
	return c
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	return c.queue.Run(ctx, 8, c.reconcile, c.in.Synced(), c.pods.Synced())
}

// leftover is what could not be deleted yet.
type leftover struct {
	mu         sync.Mutex
	remaining  []string       // "pods. has 3 resource instances"
	finalizers map[string]int // name → objects that carry it
	failed     []string
	wait       time.Duration
}

func (c *Controller) reconcile(ctx context.Context, name string) (time.Duration, error) {
	ns, err := c.write.Get(ctx, "", name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil || ns.DeletionTimestamp == nil {
		return 0, err
	}
	if ns.Status.Phase != corev1.NamespaceTerminating {
		out := ns.DeepCopy()
		out.Status.Phase = corev1.NamespaceTerminating
		if ns, err = c.write.UpdateStatus(ctx, out); err != nil {
			return 0, err
		}
	}
	if !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return 0, nil
	}
	left := c.empty(ctx, name)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if conditions := conditions(ns, left, c.now()); conditions != nil {
		out := ns.DeepCopy()
		out.Status.Conditions = conditions
		if ns, err = c.write.UpdateStatus(ctx, out); err != nil {
			return 0, err
		}
	}
	if len(left.failed) > 0 {
		return 0, fmt.Errorf("namespace %s: %s", name, strings.Join(left.failed, "; "))
	}
	if len(left.remaining) > 0 {
		return max(left.wait, patience(c.now().Sub(ns.DeletionTimestamp.Time))), nil
	}
	out := ns.DeepCopy()
	out.Spec.Finalizers = slices.DeleteFunc(out.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	_, err = c.write.Conn().Update(ctx, c.write.Kind(), out, client.WriteOptions{Subresource: "finalize"})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return 0, err
}

// patience until what still holds a namespace is looked for again, by how long it has
// been held already: what has taken minutes will not be over in a moment.
func patience(held time.Duration) time.Duration {
	return min(max(held/8, 500*time.Millisecond), 8*time.Second)
}

// empty deletes all that is in the namespace: pods, then, when none is left,
// everything else.
func (c *Controller) empty(ctx context.Context, namespace string) *leftover {
	left := &leftover{finalizers: map[string]int{}}
	var rest []*api.Kind
	for _, k := range c.write.Conn().Catalog().All() {
		switch {
		case k.Cluster || k.Virtual || !k.Does("list") || !k.Does("delete"):
		case k == c.podKind():
			c.emptyKind(ctx, k, namespace, left)
		default:
			rest = append(rest, k)
		}
	}
	if len(left.remaining) > 0 || len(left.failed) > 0 {
		return left
	}
	for _, k := range rest {
		c.emptyKind(ctx, k, namespace, left)
	}
	return left
}

func (c *Controller) podKind() *api.Kind {
	k, _ := c.write.Conn().Catalog().Type(&corev1.Pod{})
	return k
}

func (c *Controller) emptyKind(ctx context.Context, k *api.Kind, namespace string, left *leftover) {
	conn := c.write.Conn()
	list, _, err := conn.List(ctx, k, namespace, client.ListOptions{})
	if err != nil {
		left.failed = append(left.failed, err.Error())
		return
	}
	var g errgroup.Group
	g.SetLimit(16)
	background := metav1.DeletePropagationBackground
	for _, o := range list {
		if o.GetDeletionTimestamp() != nil {
			continue
		}
		g.Go(func() error {
			err := conn.Delete(ctx, k, namespace, o.GetName(), metav1.DeleteOptions{PropagationPolicy: &background})
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				left.mu.Lock()
				left.failed = append(left.failed, err.Error())
				left.mu.Unlock()
			}
			return nil
		})
	}
	_ = g.Wait()
	if len(list) == 0 {
		return
	}
	if list, _, err = conn.List(ctx, k, namespace, client.ListOptions{}); err != nil {
		left.failed = append(left.failed, err.Error())
		return
	}
	if len(list) == 0 {
		return
	}
	left.remaining = append(left.remaining, fmt.Sprintf("%s.%s has %d resource instances", k.Resource, k.Group, len(list)))
	for _, o := range list {
		for _, f := range o.GetFinalizers() {
			left.finalizers[f]++
		}
		if grace := o.GetDeletionGracePeriodSeconds(); grace != nil { // events wake us earlier
			left.wait = max(left.wait, time.Duration(*grace/2+1)*time.Second)
		}
	}
}

// conditions say what holds the deletion up, nil when they stay as they are.
func conditions(ns *corev1.Namespace, left *leftover, now time.Time) []corev1.NamespaceCondition {
	out := slices.Clone(ns.Status.Conditions)
	changed := false
	set := func(t corev1.NamespaceConditionType, on bool, reasonOn, textOn, reasonOff, textOff string) {
		c := corev1.NamespaceCondition{Type: t, Status: corev1.ConditionFalse, Reason: reasonOff, Message: textOff, LastTransitionTime: metav1.NewTime(now)}
		if on {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, reasonOn, textOn
		}
		for i := range out {
			if out[i].Type != t {
				continue
			}
			if out[i].Status == c.Status && out[i].Message == c.Message {
				return
			}
			if out[i].Status == c.Status {
				c.LastTransitionTime = out[i].LastTransitionTime
			}
			out[i], changed = c, true
			return
		}
		out, changed = append(out, c), true
	}
	set(corev1.NamespaceDeletionDiscoveryFailure, false, "", "", "ResourcesDiscovered", "All resources successfully discovered")
	set(corev1.NamespaceDeletionGVParsingFailure, false, "", "", "ParsedGroupVersions", "All legacy kube types successfully parsed")
	set(corev1.NamespaceDeletionContentFailure, len(left.failed) > 0, "ContentDeletionFailed",
		"Failed to delete all resource types, "+fmt.Sprint(len(left.failed))+" remaining: "+strings.Join(left.failed, ", "),
		"ContentDeleted", "All content successfully deleted, may be waiting on finalization")
	set(corev1.NamespaceContentRemaining, len(left.remaining) > 0, "SomeResourcesRemain", "Some resources are remaining: "+strings.Join(left.remaining, ", "),
		"ContentRemoved", "All content successfully removed")
	var finalizers []string
	for f, n := range left.finalizers {
		finalizers = append(finalizers, fmt.Sprintf("%s in %d resource instances", f, n))
	}
	slices.Sort(finalizers)
	set(corev1.NamespaceFinalizersRemaining, len(finalizers) > 0, "SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: "+strings.Join(finalizers, ", "),
		"ContentHasNoFinalizers", "All content-preserving finalizers finished")
	if !changed {
		return nil
	}
	return out
}
