package scheduler

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/storage/volume"
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
		v.AWSElasticBlockStore != nil || v.ISCSI != nil || v.RBD != nil
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
	claims     map[string]*corev1.PersistentVolumeClaim // by namespace/name
	pvs        map[string]*corev1.PersistentVolume
	classes    map[string]*storagev1.StorageClass
	nodes      map[string]*storagev1.CSINode
	drivers    map[string]*storagev1.CSIDriver
	capacities map[string]*storagev1.CSIStorageCapacity // by namespace/name

	used  map[string]int    // by how many placed pods a claim is used
	taken map[string]string // PVs given to claims by decisions that are not true yet
	epoch uint64            // moves when any of this does
}

func newVolumes() volumes {
	return volumes{
		claims: map[string]*corev1.PersistentVolumeClaim{}, pvs: map[string]*corev1.PersistentVolume{},
		classes: map[string]*storagev1.StorageClass{}, nodes: map[string]*storagev1.CSINode{},
		drivers: map[string]*storagev1.CSIDriver{}, capacities: map[string]*storagev1.CSIStorageCapacity{},
		used: map[string]int{}, taken: map[string]string{},
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

// want is the storage that pods of a class need, as things stand.
type want struct {
	bound    []*corev1.PersistentVolumeClaim
	delayed  []*corev1.PersistentVolumeClaim
	rejected verdict // no node will do
	inUse    bool    // a ReadWriteOncePod claim is used by another pod
}

func (v *volumes) wants(c *class) *want {
	if len(c.claims) == 0 {
		return nil
	}
	w := &want{}
	for _, use := range c.claims {
		claim := v.claims[use.key]
		switch {
		case claim == nil && use.ephemeral:
			w.rejected = noFinal("VolumeBinding", fmt.Sprintf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", use.name))
			return w
		case claim == nil:
			w.rejected = noFinal("VolumeBinding", fmt.Sprintf("persistentvolumeclaim %q not found", use.name))
			return w
		case claim.Status.Phase == corev1.ClaimLost:
			w.rejected = noFinal("VolumeBinding", fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", use.name, claim.Spec.VolumeName))
			return w
		case claim.DeletionTimestamp != nil:
			w.rejected = noFinal("VolumeBinding", fmt.Sprintf("persistentvolumeclaim %q is being deleted", use.name))
			return w
		case use.ephemeral && !metav1.IsControlledBy(claim, c.sample):
			w.rejected = noFinal("VolumeBinding", fmt.Sprintf("PVC %s was not created for pod %s (pod is not owner)", use.key, c.sample.Namespace+"/"+c.sample.Name))
			return w
		}
		if slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod) && v.used[use.key] > 0 {
			w.inUse = true
		}
		switch {
		case claim.Spec.VolumeName != "" && metav1.HasAnnotation(claim.ObjectMeta, volume.AnnBindCompleted):
			w.bound = append(w.bound, claim)
		case v.isDelayed(claim) && claim.Spec.VolumeName == "":
			w.delayed = append(w.delayed, claim)
		default:
			w.rejected = noFinal("VolumeBinding", "pod has unbound immediate PersistentVolumeClaims")
		}
	}
	return w
}

func (v *volumes) isDelayed(claim *corev1.PersistentVolumeClaim) bool {
	sc := v.classes[volume.GetPersistentVolumeClaimClass(claim)]
	return sc != nil && sc.VolumeBindingMode != nil && *sc.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// fitsVolumes runs the filters that are about storage.
func (w *world) fitsVolumes(c *class, st *want, n *node) verdict {
	o := c.options.Disabled
	if !o["VolumeRestrictions"] && w.conflict(c, n) {
		return no("VolumeRestrictions", "node(s) had no available disk")
	}
	if st == nil {
		return yes
	}
	if st.inUse && !o["VolumeRestrictions"] {
		return no("VolumeRestrictions", "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod")
	}
	v := &w.volumes
	if !o["NodeVolumeLimits"] && !v.withinLimits(c, n) {
		return no("NodeVolumeLimits", "node(s) exceed max volume count")
	}
	if bad := v.binding(st, n, nil); len(bad) > 0 && !o["VolumeBinding"] {
		return verdict{"VolumeBinding", bad, true}
	}
	if !o["VolumeZone"] && !v.zoned(st, n) {
		return noFinal("VolumeZone", "node(s) had no available volume zone")
	}
	return yes
}

func (w *world) conflict(c *class, n *node) bool {
	for _, a := range c.disks {
		for _, pl := range n.pods {
			for _, b := range pl.disks {
				if a.id == b.id && (a.strict || !a.readOnly || !b.readOnly) {
					return true
				}
			}
		}
	}
	return false
}

// handle of a claim's volume: its CSI driver and what it is there, "" = not CSI.
func (v *volumes) handle(key string) (driver, id string) {
	claim := v.claims[key]
	if claim == nil {
		return "", ""
	}
	if pv := v.pvs[claim.Spec.VolumeName]; pv != nil {
		if pv.Spec.CSI == nil {
			return "", ""
		}
		return pv.Spec.CSI.Driver, pv.Spec.CSI.VolumeHandle
	}
	if sc := v.classes[volume.GetPersistentVolumeClaimClass(claim)]; sc != nil {
		return sc.Provisioner, sc.Provisioner + "-" + key
	}
	return "", ""
}

func (v *volumes) withinLimits(c *class, n *node) bool {
	csi := v.nodes[n.name]
	if csi == nil {
		return true
	}
	attached := map[string]map[string]bool{}
	add := func(c *class) {
		for _, use := range c.claims {
			if driver, id := v.handle(use.key); driver != "" {
				if attached[driver] == nil {
					attached[driver] = map[string]bool{}
				}
				attached[driver][id] = true
			}
		}
	}
	add(c)
	if len(attached) == 0 {
		return true
	}
	mine := make(map[string]bool, len(attached))
	for driver := range attached {
		mine[driver] = true
	}
	for _, pl := range n.pods {
		add(pl.class)
	}
	for _, d := range csi.Spec.Drivers {
		if mine[d.Name] && d.Allocatable != nil && d.Allocatable.Count != nil && len(attached[d.Name]) > int(*d.Allocatable.Count) {
			return false
		}
	}
	return true
}

// storagePlan is what has to be done for a pod's storage when it goes to a node.
type storagePlan struct {
	static    []match
	provision []*corev1.PersistentVolumeClaim
}

type match struct {
	claim *corev1.PersistentVolumeClaim
	pv    *corev1.PersistentVolume
}

// binding says why the claims cannot be had on a node, and fills in the plan, when
// one is given, of what to do if they can.
func (v *volumes) binding(st *want, n *node, plan *storagePlan) (bad []string) {
	conflict, missing := false, false
	for _, claim := range st.bound {
		pv := v.pvs[claim.Spec.VolumeName]
		if pv == nil {
			missing = true
		} else if volume.CheckNodeAffinity(pv, n.obj.Labels) != nil {
			conflict = true
		}
	}
	unbound, space := false, true
	chosen := map[string]*corev1.PersistentVolume{}
	for _, claim := range st.delayed {
		if on, ok := claim.Annotations[volume.AnnSelectedNode]; ok {
			if on != n.name {
				unbound = true
				break
			}
		} else if pv := v.match(claim, n, chosen); pv != nil {
			chosen[pv.Name] = pv
			if plan != nil {
				plan.static = append(plan.static, match{claim, pv})
			}
			continue
		}
		can, room := v.provisionable(claim, n)
		unbound, space = unbound || !can, space && room
		if plan != nil {
			plan.provision = append(plan.provision, claim)
		}
	}
	if conflict {
		bad = append(bad, "node(s) didn't match PersistentVolume's node affinity")
	}
	if unbound {
		bad = append(bad, "node(s) didn't find available persistent volumes to bind")
	}
	if !space {
		bad = append(bad, "node(s) did not have enough free storage")
	}
	if missing {
		bad = append(bad, "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)")
	}
	return bad
}

// match is the smallest free volume that a claim can have on a node.
func (v *volumes) match(claim *corev1.PersistentVolumeClaim, n *node, chosen map[string]*corev1.PersistentVolume) *corev1.PersistentVolume {
	key := claim.Namespace + "/" + claim.Name
	var list []*corev1.PersistentVolume
	for name, pv := range v.pvs {
		if to := v.taken[name]; to == "" || to == key {
			list = append(list, pv)
		}
	}
	slices.SortFunc(list, func(a, b *corev1.PersistentVolume) int { return strings.Compare(a.Name, b.Name) })
	pv, err := volume.FindMatchingVolume(claim, list, n.obj, chosen, false, true)
	if err != nil {
		return nil
	}
	return pv
}

func (v *volumes) provisionable(claim *corev1.PersistentVolumeClaim, n *node) (can, room bool) {
	sc := v.classes[volume.GetPersistentVolumeClaimClass(claim)]
	if sc == nil || sc.Provisioner == "" || sc.Provisioner == volume.NotSupportedProvisioner {
		return false, true
	}
	if len(sc.AllowedTopologies) > 0 && !allowed(sc.AllowedTopologies, n.obj.Labels) {
		return false, true
	}
	d := v.drivers[sc.Provisioner]
	if d == nil || d.Spec.StorageCapacity == nil || !*d.Spec.StorageCapacity {
		return true, true
	}
	size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	for _, c := range v.capacities {
		limit := c.Capacity
		if c.MaximumVolumeSize != nil {
			limit = c.MaximumVolumeSize
		}
		if c.StorageClassName != sc.Name || limit == nil || limit.Cmp(size) < 0 || c.NodeTopology == nil {
			continue
		}
		if sel, err := metav1.LabelSelectorAsSelector(c.NodeTopology); err == nil && sel.Matches(labels.Set(n.obj.Labels)) {
			return true, true
		}
	}
	return true, false
}

func allowed(list []corev1.TopologySelectorTerm, have map[string]string) bool {
	return slices.ContainsFunc(list, func(t corev1.TopologySelectorTerm) bool {
		for _, e := range t.MatchLabelExpressions {
			if v, ok := have[e.Key]; !ok || !slices.Contains(e.Values, v) {
				return false
			}
		}
		return true
	})
}

// zoneLabels of PVs of old, with the newer name of each.
var zoneLabels = [...][2]string{
	{corev1.LabelFailureDomainBetaZone, corev1.LabelTopologyZone}, {corev1.LabelFailureDomainBetaRegion, corev1.LabelTopologyRegion},
	{corev1.LabelTopologyZone, corev1.LabelTopologyZone}, {corev1.LabelTopologyRegion, corev1.LabelTopologyRegion},
}

func (v *volumes) zoned(st *want, n *node) bool {
	any := false
	for _, l := range zoneLabels {
		_, ok := n.obj.Labels[l[0]]
		any = any || ok
	}
	if !any {
		return true
	}
	for _, claim := range st.bound {
		pv := v.pvs[claim.Spec.VolumeName]
		if pv == nil {
			continue
		}
		for _, l := range zoneLabels {
			values, ok := pv.Labels[l[0]]
			if !ok {
				continue
			}
			on, ok := n.obj.Labels[l[0]]
			if !ok {
				on, ok = n.obj.Labels[l[1]]
			}
			if !ok || !slices.Contains(strings.Split(values, "__"), on) {
				return false
			}
		}
	}
	return true
}
