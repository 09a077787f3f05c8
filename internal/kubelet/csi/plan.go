package csi

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// growth of a volume on this node: what has to be done, if anything (KEP-1790).
type growth struct {
	call bool              // ask the driver
	told bool              // the claim shows the size already: nothing is written to it
	size resource.Quantity // after that; as the node knows it when nothing has to be done
}

// notRequired is on claims whose driver has grown them without the nodes.
const notRequired = "volume.kubernetes.io/node-expansion-not-required"

// planGrowth looks at a claim, its volume and the size the node knows, zero = none.
func planGrowth(claim *v1.PersistentVolumeClaim, pv *v1.PersistentVolume, known resource.Quantity) growth {
	shown := claim.Status.Capacity[v1.ResourceStorage]
	size := pv.Spec.Capacity[v1.ResourceStorage]
	if known.IsZero() {
		known = shown
	}
	if size.Cmp(known) <= 0 || known.IsZero() {
		return growth{size: known}
	}
	status := claim.Status.AllocatedResourceStatuses[v1.ResourceStorage]
	if status == "" && claim.Status.AllocatedResources == nil { // an older resizer
		if shown.Cmp(size) >= 0 {
			return growth{size: size}
		}
		return growth{call: true, size: size}
	}
	size = claim.Status.AllocatedResources[v1.ResourceStorage]
	switch {
	case status == v1.PersistentVolumeClaimNodeResizePending, status == v1.PersistentVolumeClaimNodeResizeInProgress:
		return growth{call: true, size: size}
	case status == "" && shown.Cmp(size) >= 0:
		_, done := claim.Annotations[notRequired]
		everywhere := slices.Contains(claim.Spec.AccessModes, v1.ReadWriteMany) && !done
		return growth{call: everywhere, told: true, size: size}
	}
	return growth{size: known} // the controller is at work
}

// expanding marks a claim as being grown on a node. It changes the claim.
func expanding(claim *v1.PersistentVolumeClaim) {
	if claim.Status.AllocatedResources != nil {
		setResize(claim, v1.PersistentVolumeClaimNodeResizeInProgress)
	}
}

// notExpanded marks a claim as not grown; infeasible = the controller is to try
// something else. It changes the claim.
func notExpanded(claim *v1.PersistentVolumeClaim, why error, infeasible bool) {
	if infeasible && claim.Status.AllocatedResources != nil {
		setResize(claim, v1.PersistentVolumeClaimNodeResizeInfeasible)
	}
	c := v1.PersistentVolumeClaimCondition{
		Type: v1.PersistentVolumeClaimNodeResizeError, Status: v1.ConditionTrue, LastTransitionTime: metav1.Now(),
		Message: "failed to expand pvc with " + why.Error(),
	}
	claim.Status.Conditions = append(slices.DeleteFunc(claim.Status.Conditions, func(c v1.PersistentVolumeClaimCondition) bool {
		return c.Type == v1.PersistentVolumeClaimNodeResizeError
	}), c)
}

func setResize(claim *v1.PersistentVolumeClaim, s v1.ClaimResourceStatus) {
	if claim.Status.AllocatedResourceStatuses == nil {
		claim.Status.AllocatedResourceStatuses = map[v1.ResourceName]v1.ClaimResourceStatus{}
	}
	claim.Status.AllocatedResourceStatuses[v1.ResourceStorage] = s
}
