package csi

import (
	"context"
	"fmt"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/proa-dev/proa/internal/api/core"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
)

// grow the volume on the node when its claim has got more room, and say so in the
// claim's status. What the driver cannot do while the volume is in use does not keep
// the pod from running.
func (m *Manager) grow(ctx context.Context, t *target, done mounted) error {
	if t.Claim == nil || !done.grows {
		return nil
	}
	if t.volume == nil {
		m.mu.Lock()
		t.volume = m.volume(t.id)
		m.mu.Unlock()
		if err := t.volume.lock.Take(ctx); err != nil {
			return err
		}
		defer t.volume.lock.Free()
	}
	plan := planGrowth(t.Claim, t.PV, t.volume.size)
	if !plan.call {
		t.volume.size = plan.size
		return nil
	}
	if t.ReadOnly {
		m.Events.Warning(event.PodRef(t.pod, ""), "FileSystemResizeFailed", "MountVolume.NodeExpandVolume failed for volume %q requested read-only file system", t.name)
		return nil
	}
	claim := t.Claim
	var err error
	if !plan.told {
		if claim, err = m.status(ctx, claim, expanding); err != nil {
			return t.fail("MountVolume.NodeExpandVolume", fmt.Errorf("failed to mark node expansion in progress: %w", err))
		}
	}
	err = m.nodeExpand(ctx, t, plan)
	if err == nil {
		for _, about := range []v1.ObjectReference{event.PodRef(t.pod, ""), event.Ref(client.For[*v1.PersistentVolumeClaim](m.Conn).Kind(), claim)} {
			m.Events.Normal(about, "FileSystemResizeSuccessful", "MountVolume.NodeExpandVolume succeeded for volume %q %s", t.name, m.Node)
		}
		if !plan.told {
			if _, err = m.status(ctx, claim, func(c *v1.PersistentVolumeClaim) { core.Grown(&c.Status, plan.size) }); err != nil {
				return t.fail("MountVolume.NodeExpandVolume", fmt.Errorf("update pvc status failed: %w", err))
			}
		}
		t.volume.size = plan.size
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	m.Events.Warning(event.PodRef(t.pod, ""), "VolumeResizeFailed", "NodeExpandVolume failed for volume %q : %v", t.name, err)
	if final(err) && !plan.told {
		if _, e := m.status(ctx, claim, func(c *v1.PersistentVolumeClaim) { notExpanded(c, err, infeasible(err)) }); e != nil {
			m.Log.Warn("status of a claim not written", "claim", claim.Namespace+"/"+claim.Name, "err", e)
		}
	}
	if status.Code(err) == codes.FailedPrecondition { // not while it is in use
		t.volume.size = t.PV.Spec.Capacity[v1.ResourceStorage]
		return nil
	}
	return t.fail("MountVolume.NodeExpandVolume", err)
}

// infeasible says whether a driver will never be able to do what it was asked for.
func infeasible(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound:
		return true
	}
	return false
}

func (m *Manager) nodeExpand(ctx context.Context, t *target, plan growth) error {
	d, err := m.driver(t.id.Driver)
	if err != nil {
		return err
	}
	t.driver = d
	ref := t.PV.Spec.CSI.NodeExpandSecretRef
	secrets, err := m.secrets(ref)
	if err != nil {
		return fmt.Errorf("expander.NodeExpand failed to get NodeExpandSecretRef %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	capability, err := m.capability(ctx, t)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err = d.NodeExpandVolume(ctx, &spec.NodeExpandVolumeRequest{
		VolumeId: t.id.Handle, VolumePath: d.path(place(m.Root, t.key, t.block)), StagingTargetPath: d.path(t.volume.staging),
		CapacityRange: &spec.CapacityRange{RequiredBytes: plan.size.Value()}, VolumeCapability: capability, Secrets: secrets,
	})
	return err
}

// status writes a change to a claim's status, and returns the claim as it is then.
func (m *Manager) status(ctx context.Context, claim *v1.PersistentVolumeClaim, change func(*v1.PersistentVolumeClaim)) (*v1.PersistentVolumeClaim, error) {
	fresh := claim.DeepCopy()
	change(fresh)
	if equality.Semantic.DeepEqual(fresh.Status, claim.Status) {
		return claim, nil
	}
	return client.For[*v1.PersistentVolumeClaim](m.Conn).UpdateStatus(ctx, fresh)
}
