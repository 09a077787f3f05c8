package container

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-dev/proa/internal/kubelet/volume"
)

// mounts of the container: its volumes, /etc/hosts, the termination message.
func (in *Input) mounts(env map[string]string) ([]*cri.Mount, error) {
	var list []*cri.Mount
	for i := range in.Container.VolumeMounts {
		m, err := in.mount(i, &in.Container.VolumeMounts[i], env)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	hosts, err := in.hostsMount()
	if err != nil {
		return nil, err
	}
	if hosts != "" {
		list = append(list, &cri.Mount{ContainerPath: "/etc/hosts", HostPath: hosts})
	}
	if path := in.Container.TerminationMessagePath; path != "" {
		file, err := in.messageFile()
		if err != nil {
			return nil, err
		}
		list = append(list, &cri.Mount{ContainerPath: path, HostPath: file})
	}
	return list, nil
}

// devices of the container: its block volumes.
func (in *Input) devices() ([]*cri.Device, error) {
	var list []*cri.Device
	for _, d := range in.Container.VolumeDevices {
		vol, ok := in.Volumes[d.Name]
		if !ok || vol.Device == "" {
			return nil, fmt.Errorf("cannot find volume %q to pass into container %q", d.Name, in.Container.Name)
		}
		out := &cri.Device{HostPath: vol.Device, ContainerPath: d.DevicePath, Permissions: "mrw"}
		if vol.ReadOnly {
			out.Permissions = "r"
		}
		list = append(list, out)
	}
	return list, nil
}

// messageFile is a new file that anybody in the container may write to.
func (in *Input) messageFile() (string, error) {
	dir := filepath.Join(in.PodDir, "containers", in.Container.Name)
	if err := mkdir(dir); err != nil {
		return "", err
	}
	var id [4]byte
	rand.Read(id[:])
	file := filepath.Join(dir, hex.EncodeToString(id[:]))
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		return "", err
	}
	return file, os.Chmod(file, 0o666) // whatever the umask
}

func (in *Input) mount(i int, m *v1.VolumeMount, env map[string]string) (*cri.Mount, error) {
	vol, ok := in.Volumes[m.Name]
	if !ok {
		return nil, fmt.Errorf("cannot find volume %q to mount into container %q", m.Name, in.Container.Name)
	}
	sub := m.SubPath
	if m.SubPathExpr != "" {
		unknown := ""
		sub = Expand(m.SubPathExpr, func(n string) (string, bool) {
			v, ok := env[n]
			if !ok {
				unknown = n
			}
			return v, ok
		})
		if unknown != "" {
			return nil, fmt.Errorf("missing value for %q", unknown)
		}
	}
	if filepath.IsAbs(sub) {
		return nil, fmt.Errorf("error SubPath `%s` must not be an absolute path", sub)
	}
	for _, part := range strings.Split(sub, "/") {
		if part == ".." {
			return nil, fmt.Errorf("unable to provision SubPath `%s`: must not contain '..'", sub)
		}
	}
	if vol.Device != "" {
		return nil, fmt.Errorf("volume %q of container %q is a block device: list it in volumeDevices instead of volumeMounts", m.Name, in.Container.Name)
	}
	out := &cri.Mount{ContainerPath: m.MountPath, HostPath: vol.Path, Readonly: m.ReadOnly || vol.ReadOnly}
	if !filepath.IsAbs(out.ContainerPath) {
		out.ContainerPath = "/" + out.ContainerPath
	}
	if vol.Image != "" {
		out.HostPath, out.Image, out.ImageSubPath = "", &cri.ImageSpec{Image: vol.Image}, sub
		out.Readonly = true
		return out, nil
	}
	if sub != "" {
		path, err := volume.SubPath(vol.Path, sub, filepath.Join(in.PodDir, "volume-subpaths", m.Name, in.Container.Name, fmt.Sprint(i)))
		if err != nil {
			return nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q", m.Name, in.Container.Name)
		}
		out.HostPath = path
	}
	if p := m.MountPropagation; p != nil {
		switch *p {
		case v1.MountPropagationHostToContainer:
			out.Propagation = cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
		case v1.MountPropagationBidirectional:
			out.Propagation = cri.MountPropagation_PROPAGATION_BIDIRECTIONAL
		}
	}
	if r := m.RecursiveReadOnly; r != nil && m.ReadOnly {
		switch *r {
		case v1.RecursiveReadOnlyEnabled:
			if !in.RRO {
				return nil, fmt.Errorf("failed to resolve recursive read-only mode: volume %q requested recursive read-only mode, but it is not supported by the runtime", m.Name)
			}
			out.RecursiveReadOnly = true
		case v1.RecursiveReadOnlyIfPossible:
			out.RecursiveReadOnly = in.RRO
		}
	}
	return out, nil
}
