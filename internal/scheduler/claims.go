package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/component-helpers/storage/volume"
)

// want is the storage that pods of a class need, as things stand.
type want struct {
	bound    []*nodeaffinity.LazyErrorNodeSelector // where the claims' volumes can be
	lost     bool                                  // a claim has a volume that is not there
	delayed  []delayed                             // claims that get a volume with the decision, the smallest first
	zones    []zoneOf
	rejected *verdict // no node will do
	inUse    bool     // a ReadWriteOncePod claim is used by another pod
}

// delayed is a claim with the volumes that may be for it.
type delayed struct {
	claim *corev1.PersistentVolumeClaim
	from  []*corev1.PersistentVolume
}

// zoneOf a volume: a node has to have one of the values.
type zoneOf struct {
	key, newer string
	values     []string
}

func classNameOf(claim *corev1.PersistentVolumeClaim) string {
	return volume.GetPersistentVolumeClaimClass(claim)
}

// wants of a class, nil for none. What upstream's plugins say before they look at
// any node is rejected, by the first that says so.
func (w *world) wants(c *class) *want {
	if len(c.claims) == 0 {
		return nil
	}
	v, on, out := &w.volumes, c.options.filters, &want{}
	for _, use := range c.claims {
		claim := v.claims[use.key]
		switch {
		case claim == nil && !use.ephemeral && on.has(volumeRestrictions):
			out.rejected = noFinal(volumeRestrictions, fmt.Sprintf("persistentvolumeclaim %q not found", use.name))
			return out
		case claim != nil && !use.ephemeral && slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod):
			out.inUse = out.inUse || v.used[use.key] > 0
		}
	}
	if on.has(volumeBinding) {
		if text := v.collect(c, out); text != "" {
			out.rejected = noFinal(volumeBinding, text)
			return out
		}
	}
	if on.has(volumeZone) {
		if text := v.zones(c, out); text != "" {
			out.rejected = noFinal(volumeZone, text)
		}
	}
	return out
}

// collect the claims' volumes, or say what is wrong with one.
func (v *volumes) collect(c *class, out *want) string {
	for _, use := range c.claims {
		claim := v.claims[use.key]
		switch {
		case claim == nil && use.ephemeral:
			return fmt.Sprintf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", use.name)
		case claim == nil:
			return fmt.Sprintf("persistentvolumeclaim %q not found", use.name)
		case claim.Status.Phase == corev1.ClaimLost:
			return fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", use.name, claim.Spec.VolumeName)
		case claim.DeletionTimestamp != nil:
			return fmt.Sprintf("persistentvolumeclaim %q is being deleted", use.name)
		case use.ephemeral && !metav1.IsControlledBy(claim, c.sample):
			return fmt.Sprintf("PVC %s was not created for pod %s (pod is not owner)", use.key, c.sample.Namespace+"/"+c.sample.Name)
		}
	}
	for _, use := range c.claims {
		switch claim := v.claims[use.key]; {
		case claim.Spec.VolumeName != "" && metav1.HasAnnotation(claim.ObjectMeta, volume.AnnBindCompleted):
			if pv := v.pvs[claim.Spec.VolumeName]; pv == nil {
				out.lost = true
			} else if a := pv.Spec.NodeAffinity; a != nil && a.Required != nil {
				out.bound = append(out.bound, nodeaffinity.NewLazyErrorNodeSelector(a.Required))
			}
		case v.isDelayed(claim) && claim.Spec.VolumeName == "":
			out.delayed = append(out.delayed, delayed{claim, v.candidates(claim)})
		default:
			return "pod has unbound immediate PersistentVolumeClaims"
		}
	}
	slices.SortStableFunc(out.delayed, func(a, b delayed) int {
		x, y := a.claim.Spec.Resources.Requests[corev1.ResourceStorage], b.claim.Spec.Resources.Requests[corev1.ResourceStorage]
		return x.Cmp(y)
	})
	return ""
}

func (v *volumes) isDelayed(claim *corev1.PersistentVolumeClaim) bool {
	sc := v.classes[classNameOf(claim)]
	return sc != nil && sc.VolumeBindingMode != nil && *sc.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// candidates are the volumes that a claim may get, whatever the node, by name.
func (v *volumes) candidates(claim *corev1.PersistentVolumeClaim) (list []*corev1.PersistentVolume) {
	name, key := classNameOf(claim), claim.Namespace+"/"+claim.Name
	for _, pv := range v.pvs {
		if by, is := v.taken[pv.Name]; is && by != key || volume.GetPersistentVolumeClass(pv) != name && pv.Spec.ClaimRef == nil {
			continue
		}
		if pv.Spec.ClaimRef == nil || volume.IsVolumeBoundToClaim(pv, claim) {
			list = append(list, pv)
		}
	}
	slices.SortFunc(list, func(a, b *corev1.PersistentVolume) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// zoneLabels of PVs, with the newer name of each.
var zoneLabels = [...][2]string{
	{corev1.LabelFailureDomainBetaZone, corev1.LabelTopologyZone}, {corev1.LabelFailureDomainBetaRegion, corev1.LabelTopologyRegion},
	{corev1.LabelTopologyZone, corev1.LabelTopologyZone}, {corev1.LabelTopologyRegion, corev1.LabelTopologyRegion},
}

// zones that the claims' volumes are in, or what is wrong.
func (v *volumes) zones(c *class, out *want) string {
	for _, use := range c.claims {
		claim := v.claims[use.key]
		if claim == nil || use.ephemeral || claim.Spec.VolumeName == "" {
			continue
		}
		pv := v.pvs[claim.Spec.VolumeName]
		if pv == nil {
			return fmt.Sprintf("persistentvolume %q not found", claim.Spec.VolumeName)
		}
		for _, l := range zoneLabels {
			if values, ok := pv.Labels[l[0]]; ok {
				out.zones = append(out.zones, zoneOf{l[0], l[1], strings.Split(values, "__")})
			}
		}
	}
	return ""
}

// zoned: a node without any zone is in all of them.
func (w *want) zoned(n *node) bool {
	if len(w.zones) == 0 || !slices.ContainsFunc(zoneLabels[:], func(l [2]string) bool { _, ok := n.obj.Labels[l[0]]; return ok }) {
		return true
	}
	for _, z := range w.zones {
		on, ok := n.obj.Labels[z.key]
		if !ok {
			on, ok = n.obj.Labels[z.newer]
		}
		if !ok || !slices.Contains(z.values, on) {
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
	for _, there := range st.bound {
		if ok, err := there.Match(n.obj); !ok || err != nil {
			bad = append(bad, "node(s) didn't match PersistentVolume's node affinity")
			break
		}
	}
	unbound, space := false, true
	var chosen map[string]*corev1.PersistentVolume
	var provision []*corev1.PersistentVolumeClaim
	for _, d := range st.delayed {
		if on, ok := v.selectedNode(d.claim); ok {
			if on != n.name {
				return append(bad, "node(s) didn't find available persistent volumes to bind")
			}
			provision = append(provision, d.claim)
			continue
		}
		// The claims' volumes have been looked at once: an error is one of a selector
		// that the API server has validated.
		pv, _ := volume.FindMatchingVolume(d.claim, d.from, n.obj, chosen, true, true)
		if pv == nil {
			provision = append(provision, d.claim)
			continue
		}
		if chosen == nil {
			chosen = map[string]*corev1.PersistentVolume{}
		}
		chosen[pv.Name] = pv
		if plan != nil {
			plan.static = append(plan.static, match{d.claim, pv})
		}
	}
	for _, claim := range provision {
		if can, room := v.provisionable(claim, n); !can || !room {
			unbound, space = !can, room
			break
		}
	}
	if plan != nil {
		plan.provision = provision
	}
	if unbound {
		bad = append(bad, "node(s) didn't find available persistent volumes to bind")
	}
	if !space {
		bad = append(bad, "node(s) did not have enough free storage")
	}
	if st.lost {
		bad = append(bad, "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)")
	}
	return bad
}

// selectedNode on which a claim's volume is to be made.
func (v *volumes) selectedNode(claim *corev1.PersistentVolumeClaim) (string, bool) {
	if on, ok := v.selected[claim.Namespace+"/"+claim.Name]; ok {
		return on, true
	}
	on, ok := claim.Annotations[volume.AnnSelectedNode]
	return on, ok
}

// provisionable: the class can make a volume on the node, and there is room for it.
func (v *volumes) provisionable(claim *corev1.PersistentVolumeClaim, n *node) (can, room bool) {
	sc := v.classes[classNameOf(claim)]
	if sc == nil || sc.Provisioner == "" || sc.Provisioner == volume.NotSupportedProvisioner {
		return false, true
	}
	if len(sc.AllowedTopologies) > 0 && !allowed(sc.AllowedTopologies, n.obj.Labels) {
		return false, true
	}
	size, asks := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	d := v.drivers[sc.Provisioner]
	if !asks || d == nil || d.Spec.StorageCapacity == nil || !*d.Spec.StorageCapacity {
		return true, true
	}
	for _, c := range v.capacities {
		limit := c.Capacity
		if c.MaximumVolumeSize != nil {
			limit = c.MaximumVolumeSize
		}
		if c.StorageClassName != sc.Name || limit == nil || limit.Value() < size.Value() || c.NodeTopology == nil {
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
		return len(t.MatchLabelExpressions) > 0
	})
}
