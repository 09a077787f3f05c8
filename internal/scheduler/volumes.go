package scheduler

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// claimUse is a volume of a pod that is a PersistentVolumeClaim.
type claimUse struct {
	key       string // namespace/name
	name      string
	ephemeral bool // made for this pod
}

// disk is a volume that only one node, or one writer, can have.
type disk struct {
	id       string
	readOnly bool
	strict   bool // not even readers may share it
}

// counts says whether a volume is one that decisions look at.
func counts(v *corev1.Volume) bool {
	return v.PersistentVolumeClaim != nil || v.Ephemeral != nil || v.GCEPersistentDisk != nil ||
		v.AWSElasticBlockStore != nil || v.ISCSI != nil || v.RBD != nil || v.Image != nil
}

func (c *class) volumes() {
	pod := c.sample
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		switch {
		case v.PersistentVolumeClaim != nil:
			name := v.PersistentVolumeClaim.ClaimName
			c.claims = append(c.claims, claimUse{pod.Namespace + "/" + name, name, false})
		case v.Ephemeral != nil:
			name := pod.Name + "-" + v.Name
			c.claims = append(c.claims, claimUse{pod.Namespace + "/" + name, name, true})
		case v.GCEPersistentDisk != nil:
			c.disks = append(c.disks, disk{"gce/" + v.GCEPersistentDisk.PDName, v.GCEPersistentDisk.ReadOnly, false})
		case v.AWSElasticBlockStore != nil:
			c.disks = append(c.disks, disk{"aws/" + v.AWSElasticBlockStore.VolumeID, false, true})
		case v.ISCSI != nil:
			c.disks = append(c.disks, disk{"iscsi/" + v.ISCSI.IQN, v.ISCSI.ReadOnly, false})
		case v.RBD != nil:
			for _, m := range v.RBD.CephMonitors {
				c.disks = append(c.disks, disk{"rbd/" + m + "/" + v.RBD.RBDPool + "/" + v.RBD.RBDImage, v.RBD.ReadOnly, false})
			}
		}
	}
}

// volumes is what is known of storage.
type volumes struct {
	claims      map[string]*corev1.PersistentVolumeClaim // by namespace/name
	pvs         map[string]*corev1.PersistentVolume
	classes     map[string]*storagev1.StorageClass
	nodes       map[string]*storagev1.CSINode
	drivers     map[string]*storagev1.CSIDriver
	capacities  map[string]*storagev1.CSIStorageCapacity // by namespace/name
	attachments map[string]*storagev1.VolumeAttachment
	attached    map[string]map[string]*storagev1.VolumeAttachment // the same by node and name

	used     map[string]int    // by how many placed pods a claim is used
	taken    map[string]string // PVs given to claims by decisions that are not true yet
	selected map[string]string // nodes for claims whose volumes are to be made, likewise
	epoch    uint64            // moves when any of this does
}

func newVolumes() volumes {
	return volumes{
		claims: map[string]*corev1.PersistentVolumeClaim{}, pvs: map[string]*corev1.PersistentVolume{},
		classes: map[string]*storagev1.StorageClass{}, nodes: map[string]*storagev1.CSINode{},
		drivers: map[string]*storagev1.CSIDriver{}, capacities: map[string]*storagev1.CSIStorageCapacity{},
		attachments: map[string]*storagev1.VolumeAttachment{}, attached: map[string]map[string]*storagev1.VolumeAttachment{},
		used: map[string]int{}, taken: map[string]string{}, selected: map[string]string{},
	}
}

func (v *volumes) use(p *pod, by int) {
	for _, c := range p.claims {
		v.epoch++
		if v.used[c.key] += by; v.used[c.key] <= 0 {
			delete(v.used, c.key)
		}
	}
}

// attach notes a VolumeAttachment that came, changed or (now nil) went.
func (v *volumes) attach(old, now *storagev1.VolumeAttachment) {
	if old != nil {
		delete(v.attached[old.Spec.NodeName], old.Name)
		if len(v.attached[old.Spec.NodeName]) == 0 {
			delete(v.attached, old.Spec.NodeName)
		}
	}
	if now == nil {
		return
	}
	on := v.attached[now.Spec.NodeName]
	if on == nil {
		on = map[string]*storagev1.VolumeAttachment{}
		v.attached[now.Spec.NodeName] = on
	}
	on[now.Name] = now
}

// fitsVolumes runs the filters that are about storage, in upstream's order.
func (w *world) fitsVolumes(c *class, st *want, n *node) *verdict {
	on := c.options.filters
	if len(c.disks) > 0 && on.has(volumeRestrictions) && w.conflict(c, n) {
		return saidDisk
	}
	if st == nil {
		return nil
	}
	v := &w.volumes
	switch {
	case st.inUse && on.has(volumeRestrictions):
		return saidOncePod
	case on.has(nodeVolumeLimits) && !v.withinLimits(c, n):
		return saidVolumeCount
	}
	if on.has(volumeBinding) {
		if bad := v.binding(st, n, nil); len(bad) > 0 {
			return w.shared(&verdict{volumeBinding, bad, true})
		}
	}
	if on.has(volumeZone) && !st.zoned(n) {
		return saidZone
	}
	return nil
}

func (w *world) conflict(c *class, n *node) bool {
	for _, pl := range n.pods {
		if c.conflicts(pl.class) {
			return true
		}
	}
	return false
}

// conflicts: the pods of two classes cannot have their disks on one node.
func (c *class) conflicts(other *class) bool {
	for _, a := range c.disks {
		for _, b := range other.disks {
			if a.id == b.id && (a.strict || !a.readOnly || !b.readOnly) {
				return true
			}
		}
	}
	return false
}

// withinLimits: the node can attach the volumes, too.
func (v *volumes) withinLimits(c *class, n *node) bool {
	csi := v.nodes[n.name]
	if csi == nil || !slices.ContainsFunc(csi.Spec.Drivers, limited) {
		return true
	}
	fresh := map[volumeID]bool{}
	v.handles(c, fresh)
	if len(fresh) == 0 {
		return true
	}
	there := map[volumeID]bool{}
	for _, pl := range n.pods {
		v.handles(pl.class, there)
	}
	have, more := map[string]int{}, map[string]int{}
	for id := range there {
		have[id.driver]++
	}
	for _, a := range v.attached[n.name] {
		if name := a.Spec.Source.PersistentVolumeName; name != nil && a.Spec.Attacher != "" {
			if pv := v.pvs[*name]; pv != nil && pv.Spec.CSI != nil && !there[volumeID{a.Spec.Attacher, pv.Spec.CSI.VolumeHandle}] {
				have[a.Spec.Attacher]++
			}
		}
	}
	for id := range fresh {
		if !there[id] {
			more[id.driver]++
		}
	}
	return !slices.ContainsFunc(csi.Spec.Drivers, func(d storagev1.CSINodeDriver) bool {
		return limited(d) && more[d.Name] > 0 && have[d.Name]+more[d.Name] > int(*d.Allocatable.Count)
	})
}

func limited(d storagev1.CSINodeDriver) bool {
	return d.Allocatable != nil && d.Allocatable.Count != nil
}

// volumeID is a CSI driver and a volume of it.
type volumeID struct{ driver, id string }

// handles of the volumes that a class's claims have, or will have.
func (v *volumes) handles(c *class, into map[volumeID]bool) {
	for _, use := range c.claims {
		claim := v.claims[use.key]
		if claim == nil {
			continue
		}
		if pv := v.pvs[claim.Spec.VolumeName]; pv != nil {
			if pv.Spec.CSI != nil {
				into[volumeID{pv.Spec.CSI.Driver, pv.Spec.CSI.VolumeHandle}] = true
			}
		} else if sc := v.classes[classNameOf(claim)]; sc != nil {
			into[volumeID{sc.Provisioner, "of " + use.key}] = true
		}
	}
}
