package scheduler

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/storage/volume"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
)

// storageTimeout is how long a pod's volumes may take to be bound or made, before
// it is looked at again: upstream's bindTimeoutSeconds.
const storageTimeout = 10 * time.Minute

// watchStorage keeps what is known of storage up to date.
func (s *Scheduler) watchStorage(inf *client.Informers) {
	v := &s.world.volumes
	s.claimsIn = client.Shared[*corev1.PersistentVolumeClaim](inf, client.Scope{})
	follow(s, s.claimsIn, v.claims)
	follow(s, client.Shared[*corev1.PersistentVolume](inf, client.Scope{}), v.pvs)
	follow(s, client.Shared[*storagev1.StorageClass](inf, client.Scope{}), v.classes)
	follow(s, client.Shared[*storagev1.CSINode](inf, client.Scope{}), v.nodes)
	follow(s, client.Shared[*storagev1.CSIDriver](inf, client.Scope{}), v.drivers)
	follow(s, client.Shared[*storagev1.CSIStorageCapacity](inf, client.Scope{}), v.capacities)
}

func follow[T api.Object](s *Scheduler, in *client.Informer[T], into map[string]T) {
	var none T
	in.OnChange(func(old, now T) {
		s.inbox.put(func() {
			if any(now) == any(none) {
				delete(into, client.Key(old.GetNamespace(), old.GetName()))
			} else {
				into[client.Key(now.GetNamespace(), now.GetName())] = now
			}
			s.world.volumes.epoch++
			for _, wait := range s.storing {
				select {
				case wait <- struct{}{}:
				default:
				}
			}
			s.queue.wake(storageChanged, time.Now())
		})
	})
	s.synced = append(s.synced, in.Synced())
}

// assumeStorage takes what a pod's claims are to have on a node, so that no other
// pod is given it. It returns nil when there is nothing to bind.
func (w *world) assumeStorage(p *pod, n *node) *storagePlan {
	want := w.volumes.wants(p.class)
	if want == nil || len(want.delayed) == 0 {
		return nil
	}
	plan := &storagePlan{}
	w.volumes.binding(want, n, plan)
	for _, m := range plan.static {
		w.volumes.taken[m.pv.Name] = m.claim.Namespace + "/" + m.claim.Name
	}
	w.volumes.epoch++
	return plan
}

// dropStorage gives back what was assumed for a pod.
func (w *world) dropStorage(plan *storagePlan) {
	if plan == nil {
		return
	}
	for _, m := range plan.static {
		delete(w.volumes.taken, m.pv.Name)
	}
	w.volumes.epoch++
}

// bindStorage gives volumes to claims, or says where one is to be made, waits
// until it is so, and then lets the pod be bound.
func (s *Scheduler) bindStorage(ctx context.Context, b bind) {
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	wait := make(chan struct{}, 1)
	s.inbox.put(func() { s.storing[b.key] = wait })
	defer s.inbox.put(func() { delete(s.storing, b.key) })
	err := s.writeStorage(ctx, b)
	for err == nil {
		var done bool
		if done, err = s.stored(b); done {
			s.inbox.put(func() { s.world.dropStorage(b.storage) })
			err = s.send(ctx, b)
			if err == nil {
				return
			}
		}
		if err == nil {
			select {
			case <-wait:
			case <-ctx.Done():
				err = fmt.Errorf("binding volumes: %w", ctx.Err())
			}
		}
	}
	s.bound(b, err)
}

func (s *Scheduler) writeStorage(ctx context.Context, b bind) error {
	for _, m := range b.storage.static {
		pv, dirty, err := volume.GetBindVolumeToClaim(m.pv, m.claim)
		if err != nil {
			return err
		}
		if dirty {
			if _, err := client.For[*corev1.PersistentVolume](s.conn).Update(ctx, pv); err != nil {
				return fmt.Errorf("binding volumes: %w", err)
			}
		}
	}
	for _, claim := range b.storage.provision {
		if claim.Annotations[volume.AnnSelectedNode] == b.node {
			continue
		}
		patch := fmt.Appendf(nil, `{"metadata":{"uid":%q,"annotations":{%q:%q}}}`, claim.UID, volume.AnnSelectedNode, b.node)
		if _, err := client.For[*corev1.PersistentVolumeClaim](s.conn).Patch(ctx, claim.Namespace, claim.Name, client.Patch{Type: types.MergePatchType, Data: patch}, client.WriteOptions{}); err != nil {
			return fmt.Errorf("binding volumes: %w", err)
		}
	}
	return nil
}

// stored says whether all claims of a pod are bound. A provisioner that cannot
// make a volume on the node takes the node's name off the claim again.
func (s *Scheduler) stored(b bind) (bool, error) {
	now, ok := s.podsIn.Get(b.obj.Namespace, b.obj.Name)
	if !ok || now.UID != b.obj.UID {
		return false, apierrors.NewNotFound(s.pods.Kind().GroupResource(), b.obj.Name)
	}
	all := true
	for _, c := range b.claims {
		claim, ok := s.claimsIn.Get(b.obj.Namespace, c.name)
		if !ok {
			return false, fmt.Errorf("binding volumes: persistentvolumeclaim %q not found", c.name)
		}
		if claim.DeletionTimestamp != nil {
			return false, fmt.Errorf("binding volumes: persistentvolumeclaim %q is being deleted", c.name)
		}
		all = all && claim.Spec.VolumeName != "" && claim.Annotations[volume.AnnBindCompleted] != ""
	}
	if all {
		return true, nil
	}
	for _, claim := range b.storage.provision {
		have, ok := s.claimsIn.Get(claim.Namespace, claim.Name)
		if !ok || have.Spec.VolumeName != "" || have.ResourceVersion == claim.ResourceVersion {
			continue // not seen yet what was written
		}
		if on := have.Annotations[volume.AnnSelectedNode]; on != b.node {
			return false, fmt.Errorf("binding volumes: selectedNode annotation of persistentvolumeclaim %q is %q, not %q", claim.Name, on, b.node)
		}
	}
	return false, nil
}
