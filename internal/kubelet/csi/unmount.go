package csi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/apimachinery/pkg/types"
)

const (
	driverPatience = 10 * time.Second // for a driver that is not there
	firstRetry     = 500 * time.Millisecond
	lastRetry      = 2 * time.Minute
)

// Unmount unpublishes the volumes of a pod that has ended, and begins to unstage
// those that no pod of the node uses any more.
func (m *Manager) Unmount(ctx context.Context, pod types.UID) error {
	var errs []error
	dirs, _ := filepath.Glob(filepath.Join(podVolume(m.Root, pod, "*"), recordFile))
	for _, f := range dirs {
		dir := filepath.Dir(f)
		r, err := readRecord(dir)
		if err != nil {
			m.Log.Warn("record of a volume not read", "folder", dir, "err", err)
			continue // what is mounted there is unmounted like any other
		}
		if err := m.unpublish(ctx, r.id(), filepath.Join(dir, "mount")); err != nil {
			errs = append(errs, fmt.Errorf("UnmountVolume.TearDown failed for volume %q : %w", r.Spec, err))
			continue
		}
		forget(dir)
	}
	links, _ := filepath.Glob(filepath.Join(podDevices(m.Root, pod), "*"))
	for _, link := range links {
		name := filepath.Base(link)
		if r, err := readRecord(devices(m.Root, name, "data")); err == nil {
			if err := m.unpublish(ctx, r.id(), place(m.Root, publication{pod, name}, true)); err != nil {
				errs = append(errs, fmt.Errorf("UnmapVolume.UnmapPodDevice failed for volume %q : %w", name, err))
				continue
			}
		}
		_ = os.Remove(devices(m.Root, "publish", name)) // unless another pod has it
		_ = os.Remove(link)
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.published {
		if key.pod == pod {
			delete(m.published, key)
		}
	}
	for _, v := range m.volumes {
		if v.users[pod] {
			delete(v.users, pod)
			m.release(v)
		}
	}
	return nil
}

func (m *Manager) unpublish(ctx context.Context, id volumeID, path string) error {
	patience, cancel := context.WithTimeout(ctx, driverPatience)
	defer cancel()
	d, err := m.await(patience, id.Driver)
	if err != nil {
		return fmt.Errorf("kubernetes.io/csi: Unmounter.TearDownAt failed to get CSI client: %w", err)
	}
	ctx, cancel = context.WithTimeout(ctx, callTime)
	defer cancel()
	if _, err := d.NodeUnpublishVolume(ctx, &spec.NodeUnpublishVolumeRequest{VolumeId: id.Handle, TargetPath: d.path(path)}); err != nil {
		return fmt.Errorf("kubernetes.io/csi: Unmounter.TearDownAt failed: %w", err)
	}
	return sweep(path)
}

// release a volume that nobody uses. The manager is locked.
func (m *Manager) release(v *volume) {
	if len(v.users) == 0 && !v.leaving {
		v.leaving = true
		go m.leave(v)
	}
}

// leave unstages a volume, unless somebody begins to use it, and forgets it. It is
// tried until it works: the volume stays attached, and in use, until then.
func (m *Manager) leave(v *volume) {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		left, err := m.unstage(v)
		if left {
			m.Used()
		}
		if err == nil || m.ctx.Err() != nil {
			return
		}
		m.Log.Warn("volume not unstaged", "driver", v.id.Driver, "volume", v.id.Handle, "err", err)
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// unstage a volume if nobody uses it. left says that it is used no more.
func (m *Manager) unstage(v *volume) (left bool, err error) {
	var d *driver
	if v.staging != "" {
		if d, err = m.await(m.ctx, v.id.Driver); err != nil {
			return false, err
		}
	}
	if err := v.lock.Take(m.ctx); err != nil {
		return false, err
	}
	defer v.lock.Free()
	m.mu.Lock()
	if len(v.users) > 0 {
		v.leaving = false
		m.mu.Unlock()
		return false, nil
	}
	m.mu.Unlock()
	if v.staging != "" {
		ctx, cancel := context.WithTimeout(m.ctx, callTime)
		defer cancel()
		ok, err := d.can(ctx, spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME)
		if err != nil {
			return false, err
		}
		if ok {
			if _, err := d.NodeUnstageVolume(ctx, &spec.NodeUnstageVolumeRequest{VolumeId: v.id.Handle, StagingTargetPath: d.path(v.staging)}); err != nil {
				return false, err
			}
		}
		if err := v.sweep(); err != nil {
			return false, err
		}
	}
	if v.record != "" {
		forget(v.record)
		if v.block {
			_ = os.Remove(filepath.Dir(v.record))
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	v.staging, v.record, v.ready, v.leaving = "", "", false, false
	if len(v.users) > 0 {
		return false, nil
	}
	if m.volumes[v.id] == v {
		delete(m.volumes, v.id)
	}
	return true, nil
}

// sweep away where the volume was staged. What a driver left there for a block
// volume is its own, and the kubelet's to remove.
func (v *volume) sweep() error {
	if isMount(v.staging) {
		return fmt.Errorf("something is still mounted at %s", v.staging)
	}
	remove := os.Remove
	if v.block {
		remove = os.RemoveAll
	}
	if err := remove(v.staging); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
