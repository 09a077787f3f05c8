package csi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/kubelet/plugin"
	"github.com/proa-dev/proa/internal/kubelet/pod"
)

// Volume of a pod that a CSI driver serves: one that the pod brings itself, or the
// PersistentVolume of a claim.
type Volume struct {
	Name     string // as the pod calls it
	Inline   *v1.CSIVolumeSource
	Claim    *v1.PersistentVolumeClaim
	PV       *v1.PersistentVolume
	ReadOnly bool // the pod wants it so
}

// Mounted is a volume that is in place.
type Mounted struct {
	Path   string    // of the folder, "" = it is a block device
	Device string    // of the block device
	Renew  time.Time // when Mount has to be called again, zero = never
}

// Error of one step, in upstream's words.
type Error struct {
	Step   string // MountVolume.SetUp
	Volume string
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s failed for volume %q : %v", e.Step, e.Volume, e.Err)
}
func (e *Error) Unwrap() error { return e.Err }

const (
	republishEvery = 90 * time.Second
	expandEvery    = time.Minute // a node may not watch claims
	lookAgain      = 10 * time.Second
)

// target is what is to be done for one volume of one pod.
type target struct {
	Volume
	pod    *v1.Pod
	id     volumeID
	name   string // of the PersistentVolume, or the pod's for its volume
	block  bool
	object *storagev1.CSIDriver // nil = there is none
	driver *driver
	key    publication
	own    func(path string) error
	volume *volume // nil = inline
	attrs  map[string]string
	attach bool
}

func newTarget(p *v1.Pod, v Volume) *target {
	t := &target{Volume: v, pod: p}
	if v.PV != nil {
		t.name, t.id = v.PV.Name, volumeID{Driver: v.PV.Spec.CSI.Driver, Handle: v.PV.Spec.CSI.VolumeHandle}
		t.block = ptr.Deref(v.PV.Spec.VolumeMode, v1.PersistentVolumeFilesystem) == v1.PersistentVolumeBlock
		t.attrs = v.PV.Spec.CSI.VolumeAttributes
	} else {
		t.name, t.id = v.Name, volumeID{Driver: v.Inline.Driver, Handle: inlineHandle(p.UID, v.Name)}
		t.attrs = v.Inline.VolumeAttributes
	}
	t.key = publication{p.UID, t.name}
	return t
}

func (t *target) fail(step string, err error) error {
	if err == nil {
		return nil
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		return err
	}
	return &Error{step, t.name, err}
}

// steps as errors name them.
func (t *target) setUp() string {
	if t.block {
		return "MapVolume.SetUpDevice"
	}
	return "MountVolume.SetUp"
}

func (t *target) stageStep() string {
	if t.block {
		return "MapVolume.SetUpDevice"
	}
	return "MountVolume.MountDevice"
}

// access mode of the volume.
func (t *target) access() v1.PersistentVolumeAccessMode {
	if t.PV != nil && len(t.PV.Spec.AccessModes) > 0 {
		return t.PV.Spec.AccessModes[0]
	}
	return v1.ReadWriteOnce
}

// Mount puts a volume of a pod in place. It may be called again at any time; what is
// as it should be is not touched. own gives the files at a path to the pod's fsGroup;
// it is called when that is not the driver's job.
func (m *Manager) Mount(ctx context.Context, p *v1.Pod, v Volume, own func(path string) error) (Mounted, error) {
	t := newTarget(p, v)
	t.own = own
	done := m.mounted(t)
	if done.done && !done.anew && !done.found {
		return m.result(t, done), m.grow(ctx, t, done)
	}
	var err error
	if t.driver, err = m.driver(t.id.Driver); err != nil && done.found {
		return m.result(t, done), nil
	} else if err != nil {
		if t.PV != nil && !t.block {
			return Mounted{}, t.fail(t.stageStep(), fmt.Errorf("kubernetes.io/csi: attacher.MountDevice failed to create newCsiDriverClient: %w", err))
		}
		return Mounted{}, t.fail(t.setUp(), fmt.Errorf("kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: %w", err))
	}
	t.object, err = client.For[*storagev1.CSIDriver](m.Conn).Get(ctx, "", t.id.Driver)
	if apierrors.IsNotFound(err) {
		t.object, err = nil, nil
	}
	if err == nil {
		err = t.lifecycle()
	}
	if err != nil {
		return Mounted{}, t.fail(t.setUp(), err)
	}
	if t.PV == nil {
		if done, err = m.publish(ctx, t, done, nil); err != nil {
			return Mounted{}, t.fail(t.setUp(), err)
		}
		return m.result(t, done), nil
	}
	t.volume = m.use(t)
	published, err := m.attached(ctx, t)
	if err != nil {
		return Mounted{}, err
	}
	if err := t.volume.lock.Take(ctx); err != nil {
		return Mounted{}, err
	}
	defer t.volume.lock.Free()
	if err := m.stage(ctx, t, done, published); err != nil {
		return Mounted{}, t.fail(t.stageStep(), err)
	}
	if done, err = m.publish(ctx, t, done, published); err != nil {
		return Mounted{}, t.fail(t.setUp(), err)
	}
	return m.result(t, done), m.grow(ctx, t, done)
}

// mounted is what is known about a publication; after the kubelet was started anew,
// what can be seen.
func (m *Manager) mounted(t *target) mounted {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.published[t.key]; p != nil {
		return *p
	}
	p := mounted{}
	path := place(m.Root, t.key, t.block)
	if t.block {
		info, err := os.Stat(path)
		p.found = err == nil && info.Mode()&os.ModeDevice != 0
	} else {
		p.found = isMount(path)
	}
	p.done, p.before, p.owned = p.found, p.found, p.found
	return p
}

func (m *Manager) remember(key publication, p mounted) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.published[key] = &p
}

func (m *Manager) result(t *target, p mounted) Mounted {
	r := Mounted{Path: place(m.Root, t.key, t.block)}
	if t.block {
		r.Path, r.Device = "", r.Path
	}
	switch {
	case p.found:
		r.Renew = time.Now().Add(lookAgain)
	case p.anew:
		r.Renew = time.Now().Add(republishEvery)
	case p.grows && t.Claim != nil:
		r.Renew = time.Now().Add(expandEvery)
	}
	return r
}

// mode of the volume's life.
func (t *target) mode() storagev1.VolumeLifecycleMode {
	if t.PV == nil {
		return storagev1.VolumeLifecycleEphemeral
	}
	return storagev1.VolumeLifecyclePersistent
}

// lifecycle checks that the driver serves volumes of this kind.
func (t *target) lifecycle() error {
	mode := t.mode()
	switch {
	case t.object == nil && t.PV != nil:
		return nil
	case t.object == nil:
		return fmt.Errorf("kubernetes.io/csi: mounter.SetupAt failed to check volume lifecycle mode: volume mode %q not supported by driver %s (no CSIDriver object)", mode, t.id.Driver)
	case len(t.object.Spec.VolumeLifecycleModes) == 0 && t.PV != nil, slices.Contains(t.object.Spec.VolumeLifecycleModes, mode):
		return nil
	}
	return fmt.Errorf("kubernetes.io/csi: mounter.SetupAt failed to check volume lifecycle mode: volume mode %q not supported by driver %s (only supports %q)", mode, t.id.Driver, t.object.Spec.VolumeLifecycleModes)
}

// volume with an id, made if it is not known. The manager is locked, or nobody else
// has it yet.
func (m *Manager) volume(id volumeID) *volume {
	v := m.volumes[id]
	if v == nil {
		v = &volume{id: id, lock: plugin.NewLock(), users: map[types.UID]bool{}}
		m.volumes[id] = v
	}
	return v
}

// use a volume for a pod. It counts as used until the pod's volumes are unmounted.
func (m *Manager) use(t *target) *volume {
	m.mu.Lock()
	v := m.volume(t.id)
	v.block = t.block
	v.users[t.pod.UID] = true
	attach := t.object == nil || t.object.Spec.AttachRequired == nil || *t.object.Spec.AttachRequired
	told := v.attach == attach
	v.attach, t.attach = attach, attach
	m.mu.Unlock()
	if !told {
		m.Used()
	}
	return v
}

// stage the volume on the node, unless it is, or the driver does not do that.
func (m *Manager) stage(ctx context.Context, t *target, done mounted, published map[string]string) error {
	v := t.volume
	r := t.record(m.Node)
	if t.attach {
		r.Attached = "true"
	}
	dir, path := staged(m.Root, t.id), filepath.Join(staged(m.Root, t.id), "globalmount")
	if t.block {
		dir, path = devices(m.Root, t.name, "data"), devices(m.Root, "staging", t.name)
	}
	if err := r.write(dir); err != nil {
		return fmt.Errorf("failed to save volume info data: %w", err)
	}
	v.record = dir
	ok, err := t.driver.can(ctx, spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME)
	if err != nil || !ok || done.before {
		return err
	}
	if v.ready {
		return nil
	}
	secrets, err := m.secrets(t.PV.Spec.CSI.NodeStageSecretRef)
	if err != nil {
		return fmt.Errorf("fetching NodeStageSecretRef %s/%s failed: %w", t.PV.Spec.CSI.NodeStageSecretRef.Namespace, t.PV.Spec.CSI.NodeStageSecretRef.Name, err)
	}
	capability, err := m.capability(ctx, t)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(path, 0o750); err != nil {
		return err
	}
	v.staging = path
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err = t.driver.NodeStageVolume(ctx, &spec.NodeStageVolumeRequest{
		VolumeId: t.id.Handle, PublishContext: published, StagingTargetPath: t.driver.path(path),
		VolumeCapability: capability, Secrets: secrets, VolumeContext: t.PV.Spec.CSI.VolumeAttributes,
	})
	v.ready = err == nil
	if err != nil && final(err) && sweep(path) == nil {
		v.staging = ""
	}
	return err
}

// record of the volume on a node.
func (t *target) record(node string) record {
	r := record{Spec: t.name, Handle: t.id.Handle, Driver: t.id.Driver, Node: node, Mode: string(t.mode())}
	if t.PV != nil {
		r.Attachment = t.id.Attachment(node)
	}
	return r
}

// capability of the volume, with the pod's fsGroup if the driver wants to apply it.
func (m *Manager) capability(ctx context.Context, t *target) (*spec.VolumeCapability, error) {
	if t.block {
		return t.driver.capability(ctx, t.access(), nil)
	}
	fs := &spec.VolumeCapability_MountVolume{}
	if t.PV != nil {
		fs.FsType, fs.MountFlags = t.PV.Spec.CSI.FSType, t.PV.Spec.MountOptions
	} else {
		fs.FsType = ptr.Deref(t.Inline.FSType, "")
	}
	group := pod.FSGroup(t.pod)
	if group != nil {
		ok, err := t.driver.can(ctx, spec.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP)
		if err != nil {
			return nil, err
		}
		if ok {
			fs.VolumeMountGroup = fmt.Sprint(*group)
		}
	}
	return t.driver.capability(ctx, t.access(), fs)
}

// secrets that a reference names, nil = none.
func (m *Manager) secrets(ref *v1.SecretReference) (map[string]string, error) {
	if ref == nil {
		return nil, nil
	}
	s, err := m.Secret(ref.Namespace, ref.Name)
	if err != nil {
		return nil, err
	}
	data := make(map[string]string, len(s.Data))
	for k, v := range s.Data {
		data[k] = string(v)
	}
	return data, nil
}
