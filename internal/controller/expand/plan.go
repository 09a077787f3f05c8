package expand

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/volume"

	"github.com/proa-dev/proa/internal/api/core"
)

// resizer names, in a claim's annotations, who grows its volume.
const resizer = "volume.kubernetes.io/storage-resizer"

// whose a volume is to grow.
type whose int

const (
	nobodys whose = iota // it is not the claim's volume
	ours
	others
)

func request(c *corev1.PersistentVolumeClaim) resource.Quantity {
	return c.Spec.Resources.Requests[corev1.ResourceStorage]
}

// wanting says whether a claim asks for more than it has.
func wanting(c *corev1.PersistentVolumeClaim) bool {
	return c.Status.Phase == corev1.ClaimBound && c.DeletionTimestamp == nil && c.Spec.VolumeName != "" &&
		more(request(c), c.Status.Capacity[corev1.ResourceStorage])
}

// who grows the volume of a claim.
func who(c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume, provisioner string) whose {
	switch r := v.Spec.ClaimRef; {
	case r == nil || r.Namespace != c.Namespace || r.Name != c.Name || r.UID != c.UID:
		return nobodys
	case v.Annotations[volume.AnnDynamicallyProvisioned] == provisioner && v.Spec.CSI == nil:
		return ours
	}
	return others
}

// target is the size that a volume of ours gets: one that was begun is finished
// before a smaller or larger one is.
func target(c *corev1.PersistentVolumeClaim) resource.Quantity {
	allocated, ok := c.Status.AllocatedResources[corev1.ResourceStorage]
	if ok && c.Status.AllocatedResourceStatuses[corev1.ResourceStorage] == corev1.PersistentVolumeClaimControllerResizeInProgress {
		return allocated
	}
	return request(c)
}

// begun is the status of a claim whose volume is being grown to a size.
func begun(s corev1.PersistentVolumeClaimStatus, size resource.Quantity, now metav1.Time) corev1.PersistentVolumeClaimStatus {
	out := *s.DeepCopy()
	if out.AllocatedResources == nil {
		out.AllocatedResources = corev1.ResourceList{}
	}
	out.AllocatedResources[corev1.ResourceStorage] = size
	if out.AllocatedResourceStatuses == nil {
		out.AllocatedResourceStatuses = map[corev1.ResourceName]corev1.ClaimResourceStatus{}
	}
	out.AllocatedResourceStatuses[corev1.ResourceStorage] = corev1.PersistentVolumeClaimControllerResizeInProgress
	i := slices.IndexFunc(out.Conditions, func(c corev1.PersistentVolumeClaimCondition) bool {
		return c.Type == corev1.PersistentVolumeClaimResizing && c.Status == corev1.ConditionTrue
	})
	if i < 0 {
		out.Conditions = append(core.NotGrowing(out.Conditions), corev1.PersistentVolumeClaimCondition{Type: corev1.PersistentVolumeClaimResizing, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	return out
}
