// Package volume puts the volumes of pods in place below the kubelet's root and
// takes them away again. Paths are those of every kubelet:
// ROOT/pods/UID/volumes/kubernetes.io~KIND/NAME.
package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	volumehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/kubelet/csi"
	"github.com/proa-dev/proa/internal/kubelet/plugin"
	"github.com/proa-dev/proa/internal/kubelet/pod"
)

// Mounted is a volume that is in place.
type Mounted struct {
	Path     string
	Device   string // a block volume: the device's path, Path is empty
	ReadOnly bool
	Image    string // an image volume: what to pull and mount, Path is empty
	Policy   v1.PullPolicy
}

// Sources of what volumes show. Errors are apimachinery StatusErrors.
type Sources interface {
	ConfigMap(namespace, name string) (*v1.ConfigMap, error)
	Secret(namespace, name string) (*v1.Secret, error)
	Claim(ctx context.Context, namespace, name string) (*v1.PersistentVolumeClaim, *v1.PersistentVolume, error)
	Token(ctx context.Context, namespace, account string, r *authv1.TokenRequest) (*authv1.TokenRequest, error)
}

// Manager of all volumes of the node.
type Manager struct {
	Root        string
	CSI         *csi.Manager
	Sources     Sources
	Allocatable func() v1.ResourceList
	Field       func(p *v1.Pod, path string) (string, error)
	Resource    func(p *v1.Pod, r *v1.ResourceFieldSelector) (string, error)

	mu     sync.Mutex
	tokens map[tokenKey]token
}

// Result of putting a pod's volumes in place.
type Result struct {
	Volumes map[string]Mounted
	Renew   time.Time // when a token has to be renewed, zero = never
}

// Error of one volume.
type Error struct {
	Volume string
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", e.Volume, e.Err)
}
func (e *Error) Unwrap() error { return e.Err }

// PodDir is where everything of a pod is kept.
func (m *Manager) PodDir(uid types.UID) string { return filepath.Join(m.Root, "pods", string(uid)) }

// EmptyDir is where an emptyDir volume of a pod is.
func (m *Manager) EmptyDir(uid types.UID, name string) string {
	return filepath.Join(m.PodDir(uid), "volumes", "kubernetes.io~empty-dir", name)
}

// Mount puts the volumes of a pod in place, or brings them up to date. It may be
// called again at any time; what is as it should be is not touched. The error
// joins one that names the volume for each that could not be, in the pod's order.
func (m *Manager) Mount(ctx context.Context, p *v1.Pod) (Result, error) {
	r := Result{Volumes: map[string]Mounted{}}
	if err := os.MkdirAll(filepath.Join(m.PodDir(p.UID), "volumes"), 0o750); err != nil {
		return r, err
	}
	type outcome struct {
		mounted Mounted
		renew   time.Time
		err     error
	}
	all := make([]outcome, len(p.Spec.Volumes))
	var group sync.WaitGroup
	for i := range p.Spec.Volumes {
		v, o := &p.Spec.Volumes[i], &all[i]
		mount := func() { o.mounted, o.renew, o.err = m.one(ctx, p, v) }
		if v.PersistentVolumeClaim != nil || v.Ephemeral != nil || v.CSI != nil { // it may take its time
			group.Go(mount)
		} else {
			mount()
		}
	}
	group.Wait()
	var errs []error
	for i, o := range all {
		name := p.Spec.Volumes[i].Name
		if o.err != nil {
			errs = append(errs, wrap(name, o.err))
			continue
		}
		r.Volumes[name] = o.mounted
		if !o.renew.IsZero() && (r.Renew.IsZero() || o.renew.Before(r.Renew)) {
			r.Renew = o.renew
		}
	}
	return r, errors.Join(errs...)
}

// wrap an error of a volume that does not name it.
func wrap(name string, err error) error {
	if e := (*csi.Error)(nil); errors.As(err, &e) || errors.Is(err, csi.ErrNotAttached) {
		return err
	}
	return &Error{name, err}
}

func (m *Manager) one(ctx context.Context, p *v1.Pod, v *v1.Volume) (Mounted, time.Time, error) {
	dir := func(kind string) string {
		return filepath.Join(m.PodDir(p.UID), "volumes", "kubernetes.io~"+kind, v.Name)
	}
	var never time.Time
	switch {
	case v.EmptyDir != nil:
		path := dir("empty-dir")
		return Mounted{Path: path}, never, m.emptyDir(p, v, path)
	case v.HostPath != nil:
		h := *v.HostPath
		h.Path = plugin.Root(m.Root).Real(h.Path)
		return Mounted{Path: h.Path}, never, hostPath(&h)
	case v.ConfigMap != nil, v.Secret != nil, v.DownwardAPI != nil, v.Projected != nil:
		files, kind, renew, err := m.project(ctx, p, v)
		if err != nil {
			return Mounted{}, never, err
		}
		path := dir(kind)
		if kind != "configmap" {
			if err := tmpfs(path, 0); err != nil {
				return Mounted{}, never, err
			}
		}
		return Mounted{Path: path, ReadOnly: true}, renew, write(path, files, pod.FSGroup(p))
	case v.Image != nil:
		return Mounted{Image: v.Image.Reference, Policy: v.Image.PullPolicy, ReadOnly: true}, never, nil
	case v.PersistentVolumeClaim != nil:
		return m.claim(ctx, p, v.Name, v.PersistentVolumeClaim.ClaimName, v.PersistentVolumeClaim.ReadOnly)
	case v.Ephemeral != nil:
		return m.claim(ctx, p, v.Name, p.Name+"-"+v.Name, false)
	case v.CSI != nil:
		return m.csi(ctx, p, csi.Volume{Name: v.Name, Inline: v.CSI, ReadOnly: ptr.Deref(v.CSI.ReadOnly, false)})
	}
	return Mounted{}, never, fmt.Errorf("this kind of volume is not supported on this node; use configMap, secret, downwardAPI, projected, emptyDir, hostPath, image, csi or a persistentVolumeClaim bound to a CSI, hostPath or local volume")
}

func (m *Manager) emptyDir(p *v1.Pod, v *v1.Volume, path string) error {
	_, err := os.Stat(path)
	fresh := errors.Is(err, os.ErrNotExist)
	switch v.EmptyDir.Medium {
	case v1.StorageMediumDefault:
		if err := os.MkdirAll(path, 0o777); err != nil {
			return err
		}
	case v1.StorageMediumMemory:
		if err := tmpfs(path, m.memorySize(p, v)); err != nil {
			return err
		}
	default:
		if err := hugetlbfs(path, string(v.EmptyDir.Medium)); err != nil {
			return err
		}
	}
	if !fresh {
		return nil
	}
	if err := os.Chmod(path, 0o777); err != nil {
		return err
	}
	return own(p, path)
}

// memorySize of an emptyDir in memory: its limit, or what the containers may use together.
func (m *Manager) memorySize(p *v1.Pod, v *v1.Volume) int64 {
	allocatable := m.Allocatable()
	size := allocatable.Memory().Value()
	sum := int64(0)
	for i := range p.Spec.Containers {
		limit := p.Spec.Containers[i].Resources.Limits.Memory().Value()
		if limit == 0 {
			sum = 0
			break
		}
		sum += limit
	}
	if sum > 0 {
		size = min(size, sum)
	}
	if l := v.EmptyDir.SizeLimit; l != nil && l.Value() > 0 {
		size = min(size, l.Value())
	}
	return size
}

func (m *Manager) csi(ctx context.Context, p *v1.Pod, v csi.Volume) (Mounted, time.Time, error) {
	if m.CSI == nil {
		return Mounted{}, time.Time{}, fmt.Errorf("this node has no CSI drivers")
	}
	at, err := m.CSI.Mount(ctx, p, v, func(path string) error { return own(p, path) })
	return Mounted{Path: at.Path, Device: at.Device, ReadOnly: v.ReadOnly}, at.Renew, err
}

// claim of a pod, as whose volume it is mounted.
func (m *Manager) claim(ctx context.Context, p *v1.Pod, volume, name string, readOnly bool) (Mounted, time.Time, error) {
	fail := func(err error) (Mounted, time.Time, error) { return Mounted{}, time.Time{}, err }
	pvc, pv, err := m.Sources.Claim(ctx, p.Namespace, name)
	if err != nil {
		return fail(err)
	}
	if pvc.Status.Phase != v1.ClaimBound || pv == nil || pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != pvc.UID {
		return fail(fmt.Errorf("PVC %s/%s is not bound to a volume yet", p.Namespace, name))
	}
	if pvc.DeletionTimestamp != nil && len(pvc.Finalizers) == 0 {
		return fail(fmt.Errorf("PVC %s/%s is being deleted", p.Namespace, name))
	}
	block := ptr.Deref(pv.Spec.VolumeMode, v1.PersistentVolumeFilesystem) == v1.PersistentVolumeBlock
	mounted, never := Mounted{ReadOnly: readOnly}, time.Time{}
	switch {
	case pv.Spec.CSI != nil:
		return m.csi(ctx, p, csi.Volume{Name: volume, Claim: pvc, PV: pv, ReadOnly: readOnly})
	case pv.Spec.HostPath != nil && pv.Annotations[volumehelpers.AnnDynamicallyProvisioned] != "":
		mounted.Path = pv.Spec.HostPath.Path
		return mounted, never, provisioned(p, pv.Spec.HostPath)
	case pv.Spec.HostPath != nil:
		mounted.Path = pv.Spec.HostPath.Path
		return mounted, never, hostPath(pv.Spec.HostPath)
	case pv.Spec.Local != nil:
		path := pv.Spec.Local.Path
		if _, err := os.Stat(path); err != nil {
			return fail(fmt.Errorf("path %q does not exist", path))
		}
		if block {
			mounted.Device = path
			return mounted, never, nil
		}
		mounted.Path = path
		return mounted, never, own(p, path)
	}
	return fail(fmt.Errorf("persistent volume %s is neither of a CSI driver nor hostPath or local, which are the kinds this node can mount", pv.Name))
}

// provisioned is the folder of a volume that was made for its claim: the pods that
// get it may write to it, whoever they run as; nobody else gets to it.
func provisioned(p *v1.Pod, h *v1.HostPathVolumeSource) error {
	if _, err := os.Stat(h.Path); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(h.Path), 0o700); err != nil {
			return err
		}
		if err := os.Mkdir(h.Path, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := os.Chmod(h.Path, 0o777); err != nil { // whatever the umask
			return err
		}
	}
	if err := hostPath(h); err != nil {
		return err
	}
	return own(p, h.Path)
}

// hostPath checks, or makes, what a hostPath volume says is there.
func hostPath(h *v1.HostPathVolumeSource) error {
	kind := ptr.Deref(h.Type, v1.HostPathUnset)
	if kind == v1.HostPathUnset {
		return nil
	}
	info, err := os.Stat(h.Path)
	if errors.Is(err, os.ErrNotExist) {
		switch kind {
		case v1.HostPathDirectoryOrCreate:
			return os.MkdirAll(h.Path, 0o755)
		case v1.HostPathFileOrCreate:
			f, err := os.OpenFile(h.Path, os.O_CREATE, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	want, ok := map[v1.HostPathType]struct {
		name string
		is   func(os.FileMode) bool
	}{
		v1.HostPathDirectory:         {"a directory", os.FileMode.IsDir},
		v1.HostPathDirectoryOrCreate: {"a directory", os.FileMode.IsDir},
		v1.HostPathFile:              {"a file", os.FileMode.IsRegular},
		v1.HostPathFileOrCreate:      {"a file", os.FileMode.IsRegular},
		v1.HostPathSocket:            {"a socket file", func(f os.FileMode) bool { return f&os.ModeSocket != 0 }},
		v1.HostPathCharDev:           {"a character device", func(f os.FileMode) bool { return f&os.ModeCharDevice != 0 }},
		v1.HostPathBlockDev:          {"a block device", func(f os.FileMode) bool { return f&os.ModeDevice != 0 && f&os.ModeCharDevice == 0 }},
	}[kind]
	if !ok {
		return fmt.Errorf("%s is an invalid volume type", kind)
	}
	if err != nil || !want.is(info.Mode()) {
		return fmt.Errorf("hostPath type check failed: %s is not %s", h.Path, want.name)
	}
	return nil
}
