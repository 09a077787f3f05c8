// Package resourceclaim makes the ResourceClaims that pods ask for by templates, and
// takes back what pods that are over held: their places in status.reservedFor, the
// allocations of claims that nobody uses any more, and the claims that were made for
// them (KEP-4381; KEP-5004 for extended resources). Allocating is the scheduler's.
package resourceclaim

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api/index"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/owned"
)

// manager of the field status.resourceClaimStatuses of pods, as upstream's is called.
const manager = "ResourceClaimController"

// Controller of claims. The queue's keys are "p/NAMESPACE/NAME" pods and
// "c/NAMESPACE/NAME" claims.
type Controller struct {
	queue       *loop.Queue
	podsIn      *client.Informer[*corev1.Pod]
	claimsIn    *client.Informer[*resourcev1.ResourceClaim]
	templatesIn *client.Informer[*resourcev1.ResourceClaimTemplate]
	pods        client.Client[*corev1.Pod]
	claims      client.Client[*resourcev1.ResourceClaim]
	templates   client.Client[*resourcev1.ResourceClaimTemplate]
	record      *event.Recorder
	uses        *uses
}

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		queue:       loop.NewQueue("resourceclaim", log),
		podsIn:      client.Shared[*corev1.Pod](in, client.Scope{}),
		claimsIn:    client.Shared[*resourcev1.ResourceClaim](in, client.Scope{}),
		templatesIn: client.Shared[*resourcev1.ResourceClaimTemplate](in, client.Scope{}),
		pods:        client.For[*corev1.Pod](in.Conn()),
		claims:      client.For[*resourcev1.ResourceClaim](in.Conn()),
		templates:   client.For[*resourcev1.ResourceClaimTemplate](in.Conn()),
		record:      event.New(in.Conn(), "resource_claim", "", log),
		uses:        newUses(),
	}
	c.podsIn.OnChange(c.podChanged)
	c.claimsIn.OnChange(c.claimChanged)
	c.templatesIn.OnChange(func(old, now *resourcev1.ResourceClaimTemplate) {
		if old == nil { // pods may wait for it; its spec never changes
			c.wake("t/"+client.Key(now.Namespace, now.Name), nil)
		}
	})
	return c
}

func (c *Controller) podChanged(old, now *corev1.Pod) {
	p := cmp.Or(now, old)
	over := now == nil || ended(now)
	if len(p.Spec.ResourceClaims) == 0 && p.Status.ExtendedResourceClaimStatus == nil && (!over || c.claimsIn.Len() == 0) {
		return // one that is over may have a claim of which its status did not come to say
	}
	key := client.Key(p.Namespace, p.Name)
	if now == nil {
		c.uses.set(key, nil)
	} else {
		c.uses.set(key, wants(now))
	}
	if over {
		for _, name := range owned.ClaimNames(p) {
			c.queue.Add("c/" + client.Key(p.Namespace, name))
		}
		for _, claim := range c.claimsIn.ByIndex(index.Owners, string(p.UID)) { // its status may not say so yet
			c.queue.Add("c/" + client.Key(claim.Namespace, claim.Name))
		}
		return
	}
	if now.Status.ExtendedResourceClaimStatus != nil {
		for _, claim := range c.claimsIn.ByIndex(index.Owners, string(now.UID)) {
			if superseded(claim, now) {
				c.queue.Add("c/" + client.Key(claim.Namespace, claim.Name))
			}
		}
	}
	if needsWork(now, c.known(now.Namespace)) {
		c.queue.Add("p/" + key)
	}
}

// known claims of a namespace.
func (c *Controller) known(namespace string) func(string) *resourcev1.ResourceClaim {
	return func(name string) *resourcev1.ResourceClaim {
		claim, _ := c.claimsIn.Get(namespace, name)
		return claim
	}
}

func (c *Controller) claimChanged(old, now *resourcev1.ResourceClaim) {
	if now != nil {
		key := "c/" + client.Key(now.Namespace, now.Name)
		if len(now.Status.ReservedFor) > 0 || now.DeletionTimestamp != nil || metav1.GetControllerOfNoCopy(now) != nil {
			c.queue.Add(key)
		}
		c.wake(key, func(name string) *resourcev1.ResourceClaim {
			if name == now.Name {
				return now
			}
			return c.known(now.Namespace)(name)
		})
		return
	}
	c.wake("c/"+client.Key(old.Namespace, old.Name), nil)
}

// wake the pods that use a claim or template and for which there may be something
// to do; get nil = all of them.
func (c *Controller) wake(key string, get func(string) *resourcev1.ResourceClaim) {
	for _, pod := range c.uses.of(key) {
		namespace, name := loop.Split(pod)
		if p, ok := c.podsIn.Get(namespace, name); ok && (get == nil || needsWork(p, get)) {
			c.queue.Add("p/" + pod)
		}
	}
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	go c.record.Run(ctx)
	return c.queue.Run(ctx, 4, c.reconcile, c.podsIn.Synced(), c.claimsIn.Synced(), c.templatesIn.Synced())
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name := loop.Split(key[2:])
	var err error
	if key[0] == 'p' {
		err = c.pod(ctx, namespace, name)
	} else {
		err = c.claim(ctx, namespace, name)
	}
	return 0, loop.IgnoreNotFound(err) // it went meanwhile
}

// pod gets its claims and, once it has a node, is among their consumers.
func (c *Controller) pod(ctx context.Context, namespace, name string) error {
	p, err := c.pods.Get(ctx, namespace, name)
	if err != nil || p.DeletionTimestamp != nil || ended(p) {
		return err
	}
	made, err := c.claims.List(ctx, namespace, client.ListOptions{Index: index.Owners, Value: string(p.UID)})
	if err != nil {
		return err
	}
	plan := decidePod(p, made)
	for _, use := range plan.create {
		claim, err := c.create(ctx, p, use)
		if err != nil {
			c.record.Warning(event.Ref(c.pods.Kind(), p), "FailedResourceClaimCreation", "PodResourceClaim %s: %v", use.Name, err)
			if apierrors.IsNotFound(err) {
				return nil // the template's coming wakes the pod
			}
			return fmt.Errorf("pod %s/%s, PodResourceClaim %s: %w", namespace, name, use.Name, err)
		}
		plan.names[use.Name], plan.write = claim.Name, true
	}
	if plan.write {
		if p, err = c.tell(ctx, p, plan.names); err != nil {
			return fmt.Errorf("update pod %s/%s ResourceClaimStatuses: %w", namespace, name, err)
		}
	}
	return c.reserve(ctx, p)
}

func (c *Controller) create(ctx context.Context, p *corev1.Pod, use corev1.PodResourceClaim) (*resourcev1.ResourceClaim, error) {
	t, err := c.templates.Get(ctx, p.Namespace, *use.ResourceClaimTemplateName)
	if err != nil {
		return nil, fmt.Errorf("resource claim template %q: %w", *use.ResourceClaimTemplateName, err)
	}
	claim, err := c.claims.Create(ctx, fromTemplate(p, use.Name, t))
	if err != nil {
		return nil, fmt.Errorf("create ResourceClaim: %w", err)
	}
	return claim, nil
}

// tell a pod which claims were made for it.
func (c *Controller) tell(ctx context.Context, p *corev1.Pod, names map[string]string) (*corev1.Pod, error) {
	var all []corev1.PodResourceClaimStatus // merged by name
	for _, use := range p.Spec.ResourceClaims {
		if name, ok := names[use.Name]; ok {
			all = append(all, corev1.PodResourceClaimStatus{Name: use.Name, ResourceClaimName: &name})
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": p.UID}, "status": map[string]any{"resourceClaimStatuses": all},
	})
	if err != nil {
		return nil, err
	}
	return c.pods.Patch(ctx, p.Namespace, p.Name, client.Patch{Type: types.StrategicMergePatchType, Data: patch}, client.WriteOptions{Subresource: "status", Manager: manager})
}

// reserve allocated claims for a pod that got its node without the scheduler.
func (c *Controller) reserve(ctx context.Context, p *corev1.Pod) error {
	if p.Spec.NodeName == "" {
		return nil
	}
	for _, name := range owned.ClaimNames(p) {
		claim, err := c.claims.Get(ctx, p.Namespace, name)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		if !unreserved(p, claim) || claim.DeletionTimestamp != nil {
			continue
		}
		out := claim.DeepCopy()
		out.Status.ReservedFor = append(out.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: p.Name, UID: p.UID})
		if _, err := c.claims.UpdateStatus(ctx, out); err != nil {
			return fmt.Errorf("reserve claim %s/%s: %w", claim.Namespace, claim.Name, err)
		}
	}
	return nil
}

// claim loses consumers that are over and, with the last, what it has.
func (c *Controller) claim(ctx context.Context, namespace, name string) error {
	claim, err := c.claims.Get(ctx, namespace, name)
	if err != nil {
		return err
	}
	left := map[types.UID]bool{}
	for _, r := range claim.Status.ReservedFor {
		p, err := c.find(ctx, namespace, r.Name, r.UID)
		if err != nil {
			return err
		}
		left[r.UID] = p != nil && p.UID == r.UID && !ended(p)
	}
	var owner *corev1.Pod
	if of, uid := owningPod(claim); of != "" {
		if owner, err = c.find(ctx, namespace, of, uid); err != nil {
			return err
		}
	}
	return c.act(ctx, claim, decideClaim(claim, func(r resourcev1.ResourceClaimConsumerReference) bool { return left[r.UID] }, owner))
}

// find a pod, nil = there is none of that name. That one is gone, or another took
// its place, is believed of the API server alone.
func (c *Controller) find(ctx context.Context, namespace, name string, uid types.UID) (*corev1.Pod, error) {
	if p, ok := c.podsIn.Get(namespace, name); ok && p.UID == uid {
		return p, nil
	}
	p, err := c.pods.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return p, err
}

func (c *Controller) act(ctx context.Context, claim *resourcev1.ResourceClaim, plan claimPlan) (err error) {
	uid := claim.UID
	if plan.write {
		// no patch: it has to fail if anything changed meanwhile
		out := claim.DeepCopy()
		out.Status.ReservedFor = plan.reserved
		if plan.deallocate {
			out.Status.Allocation = nil
		}
		if claim, err = c.claims.UpdateStatus(ctx, out); err != nil {
			return err
		}
	}
	if plan.unprotect {
		out := claim.DeepCopy()
		out.Finalizers = slices.DeleteFunc(out.Finalizers, func(f string) bool { return f == resourcev1.Finalizer })
		if _, err = c.claims.Update(ctx, out); err != nil {
			return err
		}
	}
	if plan.remove {
		if err := c.claims.Delete(ctx, claim.Namespace, claim.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); err != nil {
			return fmt.Errorf("delete unused generated claim %s/%s: %w", claim.Namespace, claim.Name, err)
		}
	}
	return nil
}
