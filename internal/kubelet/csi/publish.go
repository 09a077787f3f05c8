package csi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/kubelet/pod"
)

// publish the volume to the pod, unless it is and need not be anew.
func (m *Manager) publish(ctx context.Context, t *target, done mounted, published map[string]string) (mounted, error) {
	done.id, done.as, done.device = t.id, t.Name, t.block
	if t.Claim != nil {
		done.claim = t.Claim.Name
	}
	done.anew = t.object != nil && ptr.Deref(t.object.Spec.RequiresRepublish, false)
	path := place(m.Root, t.key, t.block)
	var err error
	if done.grows, err = t.driver.can(ctx, spec.NodeServiceCapability_RPC_EXPAND_VOLUME); err != nil {
		return done, err
	}
	done.found = false
	if !done.done || done.anew {
		if err := m.record(t); err != nil {
			return done, fmt.Errorf("kubernetes.io/csi: mounter.SetUpAt failed to save volume info data: %w", err)
		}
		if err := m.nodePublish(ctx, t, path, published); err != nil {
			if !done.before && final(err) {
				m.unrecord(t)
			}
			m.remember(t.key, done)
			return done, err
		}
		done.done, done.before = true, true
	}
	if !done.owned {
		m.remember(t.key, done)
		if err := m.applyGroup(ctx, t, path); err != nil {
			return done, fmt.Errorf("applyFSGroup failed for vol %s: %w", t.id.Handle, err)
		}
		done.owned = true
	}
	m.remember(t.key, done)
	return done, nil
}

// record that the volume may be published from now on.
func (m *Manager) record(t *target) error {
	if t.block {
		dir, link := devices(m.Root, "publish", t.name), filepath.Join(podDevices(m.Root, t.pod.UID), t.name)
		for _, d := range []string{dir, filepath.Dir(link)} {
			if err := os.MkdirAll(d, 0o750); err != nil {
				return err
			}
		}
		if err := os.Symlink(filepath.Join(dir, string(t.pod.UID)), link); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	}
	return t.record(m.Node).write(podVolume(m.Root, t.pod.UID, t.name))
}

// unrecord a volume of which the driver says that it is not published.
func (m *Manager) unrecord(t *target) {
	if sweep(place(m.Root, t.key, t.block)) != nil {
		return
	}
	if t.block {
		_ = os.Remove(filepath.Join(podDevices(m.Root, t.pod.UID), t.name))
		return
	}
	forget(podVolume(m.Root, t.pod.UID, t.name))
}

func (m *Manager) nodePublish(ctx context.Context, t *target, path string, published map[string]string) error {
	r := &spec.NodePublishVolumeRequest{VolumeId: t.id.Handle, PublishContext: published, TargetPath: t.driver.path(path), Readonly: t.ReadOnly}
	ref := t.publishSecret()
	secrets, err := m.secrets(ref)
	if err != nil {
		return fmt.Errorf("fetching NodePublishSecretRef %s/%s failed: %w", ref.Namespace, ref.Name, err)
	}
	r.Secrets, r.VolumeContext = secrets, t.attrs
	if t.object != nil && ptr.Deref(t.object.Spec.PodInfoOnMount, false) {
		r.VolumeContext = merge(r.VolumeContext, podInfo(t.pod, t.PV == nil))
	}
	if !t.block {
		tokens, err := m.tokens(ctx, t)
		switch {
		case err != nil:
			return fmt.Errorf("kubernetes.io/csi: mounter.SetUpAt failed to get service accoount token attributes: %w", err)
		case t.object != nil && ptr.Deref(t.object.Spec.ServiceAccountTokenInSecrets, false):
			r.Secrets = merge(r.Secrets, tokens)
		default:
			r.VolumeContext = merge(r.VolumeContext, tokens)
		}
	}
	if r.VolumeCapability, err = m.capability(ctx, t); err != nil {
		return err
	}
	if t.volume != nil {
		r.StagingTargetPath = t.driver.path(t.volume.staging)
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err = t.driver.NodePublishVolume(ctx, r)
	return err
}

func (t *target) publishSecret() *v1.SecretReference {
	switch {
	case t.PV != nil:
		return t.PV.Spec.CSI.NodePublishSecretRef
	case t.Inline.NodePublishSecretRef != nil:
		return &v1.SecretReference{Namespace: t.pod.Namespace, Name: t.Inline.NodePublishSecretRef.Name}
	}
	return nil
}

func merge(a, b map[string]string) map[string]string {
	if len(b) == 0 {
		return a
	}
	all := make(map[string]string, len(a)+len(b))
	maps.Copy(all, a)
	maps.Copy(all, b)
	return all
}

// podInfo for drivers that want to know whose volume it is.
func podInfo(p *v1.Pod, inline bool) map[string]string {
	return map[string]string{
		"csi.storage.k8s.io/pod.name": p.Name, "csi.storage.k8s.io/pod.namespace": p.Namespace, "csi.storage.k8s.io/pod.uid": string(p.UID),
		"csi.storage.k8s.io/serviceAccount.name": p.Spec.ServiceAccountName, "csi.storage.k8s.io/ephemeral": fmt.Sprint(inline),
	}
}

// tokens of the pod's service account, for the audiences that the driver asks for.
func (m *Manager) tokens(ctx context.Context, t *target) (map[string]string, error) {
	if t.object == nil || len(t.object.Spec.TokenRequests) == 0 {
		return nil, nil
	}
	all := map[string]authv1.TokenRequestStatus{}
	for _, want := range t.object.Spec.TokenRequests {
		r := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
			ExpirationSeconds: want.ExpirationSeconds,
			BoundObjectRef:    &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: t.pod.Name, UID: t.pod.UID},
		}}
		if want.Audience != "" {
			r.Spec.Audiences = []string{want.Audience}
		}
		got, err := m.Token(ctx, t.pod.Namespace, t.pod.Spec.ServiceAccountName, r)
		if err != nil {
			return nil, err
		}
		all[want.Audience] = got.Status
	}
	text, err := json.Marshal(all)
	return map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": string(text)}, err
}

// applyGroup gives the volume's files to the pod's fsGroup, if that is the kubelet's job.
func (m *Manager) applyGroup(ctx context.Context, t *target, path string) error {
	if t.block || pod.FSGroup(t.pod) == nil {
		return nil
	}
	theirs, err := t.driver.can(ctx, spec.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP)
	if err != nil || theirs || !t.groupApplies() {
		return err
	}
	return t.own(path)
}

// groupApplies is the driver's policy for fsGroup, applied to the volume.
func (t *target) groupApplies() bool {
	policy := storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy
	if t.object != nil && t.object.Spec.FSGroupPolicy != nil {
		policy = *t.object.Spec.FSGroupPolicy
	}
	switch {
	case t.ReadOnly, policy == storagev1.NoneFSGroupPolicy:
		return false
	case policy == storagev1.FileFSGroupPolicy:
		return true
	case t.PV == nil:
		return ptr.Deref(t.Inline.FSType, "") != ""
	}
	for _, mode := range t.PV.Spec.AccessModes {
		if mode == v1.ReadWriteOnce || mode == v1.ReadWriteOncePod {
			return t.PV.Spec.CSI.FSType != ""
		}
	}
	return false
}
