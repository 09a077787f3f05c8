package scheduler

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/component-helpers/storage/volume"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
)

// watchStorage keeps what is known of storage up to date.
func (s *Scheduler) watchStorage(inf *client.Informers) {
	v := &s.world.volumes
	s.claimsIn = client.Shared[*corev1.PersistentVolumeClaim](inf, client.Scope{})
	s.volumesIn = client.Shared[*corev1.PersistentVolume](inf, client.Scope{})
	follow(s, s.claimsIn, v.claims, func(_, now *corev1.PersistentVolumeClaim) happening {
		return happening{what: claimChanged, claim: client.Key(now.Namespace, now.Name)}
	})
	follow(s, s.volumesIn, v.pvs, func(_, _ *corev1.PersistentVolume) happening { return happening{what: volumeChanged} })
	follow(s, client.Shared[*storagev1.StorageClass](inf, client.Scope{}), v.classes, func(_, _ *storagev1.StorageClass) happening {
		return happening{what: classChanged}
	})
	follow(s, client.Shared[*storagev1.CSINode](inf, client.Scope{}), v.nodes, func(_, _ *storagev1.CSINode) happening { return happening{what: csiChanged} })
	follow(s, client.Shared[*storagev1.CSIDriver](inf, client.Scope{}), v.drivers, func(_, _ *storagev1.CSIDriver) happening { return happening{what: csiChanged} })
	follow(s, client.Shared[*storagev1.CSIStorageCapacity](inf, client.Scope{}), v.capacities, func(old, now *storagev1.CSIStorageCapacity) happening {
		return happening{what: capacityChanged}
	})
	heed(s, client.Shared[*storagev1.VolumeAttachment](inf, client.Scope{}), func(old, now *storagev1.VolumeAttachment) {
		v.attach(old, now)
		v.epoch++
		if now == nil {
			s.queue.wake(s.world, happening{what: attachmentGone}, time.Now())
		}
	})
}

// follow an informer into a map. tells is what a change may help with; nothing is
// helped by what goes.
func follow[T api.Object](s *Scheduler, in *client.Informer[T], into map[string]T, tells func(old, now T) happening) {
	var none T
	heed(s, in, func(old, now T) {
		s.world.volumes.epoch++
		s.stirred()
		if any(now) == any(none) {
			delete(into, client.Key(old.GetNamespace(), old.GetName()))
			return
		}
		into[client.Key(now.GetNamespace(), now.GetName())] = now
		s.queue.wake(s.world, tells(old, now), time.Now())
	})
}

// assumeStorage takes what a pod's claims are to have on a node, so that no other
// pod is given it. It returns nil when there is nothing to bind.
func (w *world) assumeStorage(p *pod, n *node) *storagePlan {
	want := w.wants(p.class)
	if want == nil || len(want.delayed) == 0 {
		return nil
	}
	plan := &storagePlan{}
	w.volumes.binding(want, n, plan)
	for _, m := range plan.static {
		w.volumes.taken[m.pv.Name] = m.claim.Namespace + "/" + m.claim.Name
	}
	for _, claim := range plan.provision {
		w.volumes.selected[claim.Namespace+"/"+claim.Name] = n.name
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
	for _, claim := range plan.provision {
		delete(w.volumes.selected, claim.Namespace+"/"+claim.Name)
	}
	w.volumes.epoch++
}

// writeStorage gives volumes to claims, or says where one is to be made.
func (s *Scheduler) writeStorage(ctx context.Context, b *bind) error {
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
func (s *Scheduler) stored(b *bind) (bool, error) {
	all := true
	for _, c := range b.claims {
		claim, ok := s.claimsIn.Get(b.obj.Namespace, c.name)
		if !ok {
			return false, fmt.Errorf("binding volumes: persistentvolumeclaim %q not found", c.name)
		}
		if claim.DeletionTimestamp != nil {
			return false, fmt.Errorf("binding volumes: persistentvolumeclaim %q is being deleted", c.name)
		}
		if claim.Spec.VolumeName == "" || claim.Annotations[volume.AnnBindCompleted] == "" {
			all = false
			continue
		}
		if pv, ok := s.volumesIn.Get("", claim.Spec.VolumeName); ok && !placeable(pv, b.on) {
			return false, fmt.Errorf("binding volumes: pv %q node affinity doesn't match node %q: no matching NodeSelectorTerms", pv.Name, b.node)
		}
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
			return false, fmt.Errorf("binding volumes: provisioning failed for PVC %q", claim.Name)
		}
	}
	return false, nil
}

// placeable: a volume can be had on a node.
func placeable(pv *corev1.PersistentVolume, n *corev1.Node) bool {
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return true
	}
	ok, err := nodeaffinity.NewLazyErrorNodeSelector(pv.Spec.NodeAffinity.Required).Match(n)
	return ok && err == nil
}
