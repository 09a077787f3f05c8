package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/api/validate"
)

// checkVolumes checks the pod's volumes and remembers the bad ones: a mount of
// those counts as a mount of nothing.
func (c *specCheck) checkVolumes(p *validate.Path) {
	var names seen[string]
	for i := range c.spec.Volumes {
		v, at, n := &c.spec.Volumes[i], p.Index(i), c.e.Len()
		c.volumeSource(v, at)
		if v.Name == "" {
			c.e.Required(at.Child("name"), "")
		} else {
			label(c.e, v.Name, at.Child("name"))
		}
		if names.has(v.Name) {
			c.e.Duplicate(at.Child("name"), v.Name)
		}
		if c.e.Len() == n {
			names.add(v.Name)
		} else if !names.has(v.Name) {
			if c.bad == nil {
				c.bad = map[string]bool{}
			}
			c.bad[v.Name] = true
		}
		if claim := v.PersistentVolumeClaim; claim != nil && c.meta != nil && c.meta.Name != "" {
			for j := range c.spec.Volumes {
				if w := &c.spec.Volumes[j]; w.Ephemeral != nil && c.meta.Name+"-"+w.Name == claim.ClaimName {
					c.e.Invalid(at.Child("persistentVolumeClaim").Child("claimName"), claim.ClaimName, "must not reference a PVC that gets created for an ephemeral volume")
					break
				}
			}
		}
	}
}

// volume finds a good volume by name, nil if there is none.
func (c *specCheck) volume(name string) *corev1.Volume {
	if c.bad[name] {
		return nil
	}
	if len(c.spec.Volumes) > 16 && c.volumes == nil {
		c.volumes = make(map[string]*corev1.Volume, len(c.spec.Volumes))
		for i := range c.spec.Volumes {
			c.volumes[c.spec.Volumes[i].Name] = &c.spec.Volumes[i]
		}
	}
	if c.volumes != nil {
		return c.volumes[name]
	}
	for i := range c.spec.Volumes {
		if c.spec.Volumes[i].Name == name {
			return &c.spec.Volumes[i]
		}
	}
	return nil
}

func (c *specCheck) mounts(ctr *corev1.Container, p *validate.Path) {
	e := c.e
	var paths seen[string]
	for i := range ctr.VolumeMounts {
		m, at := &ctr.VolumeMounts[i], p.Index(i)
		if m.Name == "" {
			e.Required(at.Child("name"), "")
		}
		if c.volume(m.Name) == nil {
			e.NotFound(at.Child("name"), m.Name)
		}
		if m.MountPath == "" {
			e.Required(at.Child("mountPath"), "")
		}
		if !paths.add(m.MountPath) {
			e.Invalid(at.Child("mountPath"), m.MountPath, "must be unique")
		}
		sameName, samePath := false, false
		for j := range ctr.VolumeDevices {
			sameName = sameName || ctr.VolumeDevices[j].Name == m.Name
			samePath = samePath || ctr.VolumeDevices[j].DevicePath == m.MountPath
		}
		if sameName {
			e.Invalid(at.Child("name"), m.Name, "must not already exist in volumeDevices")
		}
		if samePath {
			e.Invalid(at.Child("mountPath"), m.MountPath, "must not already exist as a path in volumeDevices")
		}
		// From here on upstream leaves out the index.
		if m.SubPath != "" {
			descending(e, m.SubPath, p.Child("subPath"))
		}
		if m.SubPathExpr != "" {
			if m.SubPath != "" {
				e.Invalid(at.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive")
			}
			descending(e, m.SubPathExpr, p.Child("subPathExpr"))
		}
		if m.MountPropagation != nil {
			mountPropagation(e, *m.MountPropagation, ctr, p.Child("mountPropagation"))
		}
		if m.RecursiveReadOnly != nil {
			recursiveReadOnly(e, m, p.Child("recursiveReadOnly"))
		}
	}
}

func mountPropagation(e *validate.Errs, mode corev1.MountPropagationMode, ctr *corev1.Container, p *validate.Path) {
	validate.OneOf(e, p, mode, corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)
	privileged := ctr.SecurityContext != nil && isTrue(ctr.SecurityContext.Privileged)
	if mode == corev1.MountPropagationBidirectional && !privileged {
		e.Forbidden(p, "Bidirectional mount propagation is available only to privileged containers")
	}
}

func recursiveReadOnly(e *validate.Errs, m *corev1.VolumeMount, p *validate.Path) {
	switch *m.RecursiveReadOnly {
	case corev1.RecursiveReadOnlyDisabled:
	case corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible:
		if !m.ReadOnly {
			e.Forbidden(p, "may only be specified when readOnly is true")
		}
		if m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
			e.Forbidden(p, "may only be specified when mountPropagation is None or not specified")
		}
	default:
		validate.NotSupported(e, p, *m.RecursiveReadOnly, corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible)
	}
}

func (c *specCheck) devices(ctr *corev1.Container, p *validate.Path) {
	e := c.e
	var paths, names seen[string]
	for i := range ctr.VolumeDevices {
		d, at := &ctr.VolumeDevices[i], p.Index(i)
		v := c.volume(d.Name)
		if d.Name == "" {
			e.Required(at.Child("name"), "")
		}
		if names.has(d.Name) {
			e.Invalid(at.Child("name"), d.Name, "must be unique")
		}
		if v == nil {
			e.NotFound(at.Child("name"), d.Name)
		} else if v.PersistentVolumeClaim == nil && v.Ephemeral == nil {
			e.Invalid(at.Child("name"), d.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode")
		}
		if d.DevicePath == "" {
			e.Required(at.Child("devicePath"), "")
		}
		if paths.has(d.DevicePath) {
			e.Invalid(at.Child("devicePath"), d.DevicePath, "must be unique")
		}
		if hasBackstep(d.DevicePath) {
			e.Invalid(at.Child("devicePath"), d.DevicePath, "can not contain backsteps ('..')")
		} else {
			paths.add(d.DevicePath)
		}
		sameName, samePath := false, false
		for j := range ctr.VolumeMounts {
			sameName = sameName || ctr.VolumeMounts[j].Name == d.Name
			samePath = samePath || ctr.VolumeMounts[j].MountPath == d.DevicePath
		}
		if sameName {
			e.Invalid(at.Child("name"), d.Name, "must not already exist in volumeMounts")
		}
		if samePath {
			e.Invalid(at.Child("devicePath"), d.DevicePath, "must not already exist as a path in volumeMounts")
		}
		if d.Name != "" {
			names.add(d.Name)
		}
	}
}
