package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"k8s.io/dynamic-resource-allocation/resourceclaim"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
)

// assumeDevices are the claims' from now on, so that no other pod is given them.
func (w *world) assumeDevices(plan *devicePlan) {
	if plan == nil {
		return
	}
	for _, u := range plan.uses {
		if u.allocation != nil {
			w.devices.assume(u.claim, u.allocation)
		}
	}
}

// dropDevices that were assumed for a pod and not written.
func (w *world) dropDevices(plan *devicePlan) {
	if plan == nil {
		return
	}
	for _, u := range plan.uses {
		if p := w.devices.pending[u.claim.UID]; u.allocation != nil && p != nil && p.AllocationResult == u.allocation && p.written == "" {
			w.devices.drop(client.Key(u.claim.Namespace, u.claim.Name), u.claim.UID)
		}
	}
}

// writeDevices allocates the claims of a pod and reserves them for it, and makes the
// one for extended resources. What was written is in b.devices then.
func (s *Scheduler) writeDevices(ctx context.Context, b *bind) error {
	wait := false
	for i := range b.devices.uses {
		u := &b.devices.uses[i]
		if !resourceclaim.IsReservedForPod(b.obj, u.claim, false) {
			if err := s.reserve(ctx, b, u); err != nil {
				return err
			}
		}
		wait = wait || conditional(u.claim)
	}
	if wait {
		s.record[b.options.name].Normal(event.Ref(s.pods.Kind(), b.obj), "BindingConditionsPending", "waiting for binding conditions for device on node %s", b.node)
	}
	return nil
}

func (s *Scheduler) reserve(ctx context.Context, b *bind, u *deviceUse) error {
	assumed := u.claim.UID
	if u.extended && u.claim.Name == "" {
		fresh := u.claim.DeepCopy()
		fresh.UID = ""
		made, err := s.deviceClaims().Create(ctx, fresh)
		if err != nil {
			return fmt.Errorf("create claim for extended resources: %w", err)
		}
		u.claim = made
		s.inbox.put(func() { // from now on it has a name
			s.world.devices.drop("", assumed)
			s.world.devices.assume(made, u.allocation)
		})
	}
	claim, again := u.claim, false
	err := retry.RetryOnConflict(retry.DefaultRetry, func() (err error) {
		if again {
			if claim, err = s.deviceClaims().Get(ctx, claim.Namespace, claim.Name); err != nil {
				return err
			}
		}
		again = true
		claim, err = s.reserveOnce(ctx, b, u, claim)
		return err
	})
	if err != nil {
		return fmt.Errorf("claim %s/%s: %w", u.claim.Namespace, u.claim.Name, err)
	}
	u.claim = claim
	if u.allocation != nil {
		s.inbox.put(func() {
			s.world.devices.wrote(client.Key(claim.Namespace, claim.Name), claim.UID, claim.ResourceVersion)
		})
	}
	if u.extended {
		return s.tellExtended(ctx, b, claim)
	}
	return nil
}

// reserveOnce writes the allocation and the pod's reservation; the finalizer first,
// so that a claim which has something is never just gone. On a conflict it returns
// the claim that it began with.
func (s *Scheduler) reserveOnce(ctx context.Context, b *bind, u *deviceUse, claim *resourcev1.ResourceClaim) (*resourcev1.ResourceClaim, error) {
	switch {
	case claim.UID != u.claim.UID || claim.DeletionTimestamp != nil:
		return claim, errors.New("got deleted in the meantime")
	case u.allocation != nil && claim.Status.Allocation != nil:
		return claim, errors.New("got allocated elsewhere in the meantime")
	case u.allocation == nil && claim.Status.Allocation == nil:
		return claim, errors.New("got deallocated elsewhere in the meantime")
	}
	if u.allocation != nil && !slices.Contains(claim.Finalizers, resourcev1.Finalizer) {
		out := claim.DeepCopy()
		out.Finalizers = append(out.Finalizers, resourcev1.Finalizer)
		with, err := s.deviceClaims().Update(ctx, out)
		if err != nil {
			return claim, fmt.Errorf("add finalizer: %w", err)
		}
		claim = with
	}
	out := claim.DeepCopy()
	if u.allocation != nil {
		out.Status.Allocation = u.allocation.DeepCopy()
		out.Status.Allocation.AllocationTimestamp = &metav1.Time{Time: time.Now()}
	}
	out.Status.ReservedFor = append(out.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: b.obj.Name, UID: b.obj.UID})
	written, err := s.deviceClaims().UpdateStatus(ctx, out)
	if err != nil {
		return claim, fmt.Errorf("add reservation: %w", err)
	}
	return written, nil
}

// tellExtended writes into a pod's status which claim has its extended resources.
func (s *Scheduler) tellExtended(ctx context.Context, b *bind, claim *resourcev1.ResourceClaim) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": b.obj.UID}, "status": map[string]any{
		"extendedResourceClaimStatus": corev1.PodExtendedResourceClaimStatus{ResourceClaimName: claim.Name, RequestMappings: b.devices.mappings},
	}})
	if err != nil {
		return err
	}
	_, err = s.pods.Patch(ctx, b.obj.Namespace, b.obj.Name, client.Patch{Type: types.StrategicMergePatchType, Data: patch}, client.WriteOptions{Subresource: "status"})
	return err
}

// devicesReady says whether all conditions of the devices are fulfilled.
func (s *Scheduler) devicesReady(b *bind, now time.Time) (bool, error) {
	for i := range b.devices.uses {
		u := &b.devices.uses[i]
		if !conditional(u.claim) {
			continue
		}
		claim, ok := s.devicesIn.Get(u.claim.Namespace, u.claim.Name)
		if !ok || claim.UID != u.claim.UID || older(claim.ResourceVersion, u.claim.ResourceVersion) {
			claim = u.claim
		}
		ready, err := readyToBind(claim)
		if err != nil {
			return false, err
		}
		if !ready {
			if overdue(claim, b.options.deviceTimeout, now) {
				return false, fmt.Errorf("device binding timeout: claim=%s", claim.Name)
			}
			return false, nil
		}
	}
	return true, nil
}

// devicesDue is when waiting for devices ends, zero = nothing is waited for.
func (b *bind) devicesDue() (at time.Time) {
	if b.devices == nil {
		return at
	}
	for _, u := range b.devices.uses {
		if due := dueBy(u.claim, b.options.deviceTimeout); !due.IsZero() && (at.IsZero() || due.Before(at)) {
			at = due
		}
	}
	return at
}

// unreserve what was written for a pod that is not bound after all: its reservations,
// and the claim for its extended resources. Allocations stay for its next try.
func (s *Scheduler) unreserve(b *bind) {
	if b.devices == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), givingBack)
	defer cancel()
	if s.nodeOf(ctx, b) != "" {
		return // it was bound, though nobody answered
	}
	for i := range b.devices.uses {
		u := &b.devices.uses[i]
		err := s.learn(ctx, u)
		gone := apierrors.IsNotFound(err)
		switch {
		case err != nil:
		case u.extended && u.claim.Name != "":
			err = retry.OnError(retry.DefaultBackoff, unlessGone, func() error { return s.removeClaim(ctx, u.claim) })
			gone = err == nil || apierrors.IsNotFound(err)
		case resourceclaim.IsReservedForPod(b.obj, u.claim, false):
			patch := fmt.Appendf(nil, `{"metadata":{"uid":%q},"status":{"reservedFor":[{"$patch":"delete","uid":%q}]}}`, u.claim.UID, b.obj.UID)
			_, err = s.deviceClaims().Patch(ctx, u.claim.Namespace, u.claim.Name, client.Patch{Type: types.StrategicMergePatchType, Data: patch}, client.WriteOptions{Subresource: "status"})
		}
		if gone { // perhaps without ever having been seen
			claim := u.claim
			s.inbox.put(func() { s.world.devices.drop(client.Key(claim.Namespace, claim.Name), claim.UID) })
		}
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			s.log.Warn("a claim stays reserved for a pod that was not bound", "pod", b.key, "claim", u.claim.Name, "err", err)
		}
	}
}

// learn what became of a claim that was to be allocated: a write that failed may have
// been done, and then its devices are not free, also before an informer says so.
func (s *Scheduler) learn(ctx context.Context, u *deviceUse) error {
	if u.allocation == nil || u.claim.Name == "" {
		return nil
	}
	return retry.OnError(retry.DefaultBackoff, unlessGone, func() error {
		now, err := s.deviceClaims().Get(ctx, u.claim.Namespace, u.claim.Name)
		if err == nil && now.UID != u.claim.UID {
			return apierrors.NewNotFound(resourcev1.Resource("resourceclaims"), u.claim.Name)
		}
		if err != nil || now.Status.Allocation == nil {
			return err
		}
		u.claim = now
		s.inbox.put(func() {
			s.world.devices.wrote(client.Key(now.Namespace, now.Name), now.UID, now.ResourceVersion)
		})
		return nil
	})
}

// unlessGone: what failed is tried again, but for what is not there any more.
func unlessGone(err error) bool { return !apierrors.IsNotFound(err) }

// givingBack is how long that may take.
const givingBack = 10 * time.Second

// removeClaim that the scheduler made.
func (s *Scheduler) removeClaim(ctx context.Context, claim *resourcev1.ResourceClaim) error {
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		have, err := s.deviceClaims().Get(ctx, claim.Namespace, claim.Name)
		if err != nil || have.UID != claim.UID || !slices.Contains(have.Finalizers, resourcev1.Finalizer) {
			return err
		}
		out := have.DeepCopy()
		out.Finalizers = slices.DeleteFunc(out.Finalizers, func(f string) bool { return f == resourcev1.Finalizer })
		_, err = s.deviceClaims().Update(ctx, out)
		return err
	})
	if err != nil {
		return err
	}
	return s.deviceClaims().Delete(ctx, claim.Namespace, claim.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &claim.UID}})
}

func (s *Scheduler) deviceClaims() client.Client[*resourcev1.ResourceClaim] {
	return client.For[*resourcev1.ResourceClaim](s.conn)
}
