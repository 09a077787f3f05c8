package attach

import (
	"crypto/sha256"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// disk is what a CSI driver attaches, however many PersistentVolumes name it.
type disk struct{ driver, handle string }

const plugin = "kubernetes.io/csi/"

// name of the disk in a node's status: "kubernetes.io/csi/DRIVER^HANDLE".
func (d disk) name() corev1.UniqueVolumeName {
	return corev1.UniqueVolumeName(plugin + d.driver + "^" + d.handle)
}

// attachment is the name of the VolumeAttachment of the disk to a node:
// "csi-", and the SHA-256 of handle, driver and node.
func (d disk) attachment(node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(d.handle+d.driver+node)))
}

// diskNamed so in a node's status.
func diskNamed(name corev1.UniqueVolumeName) (disk, bool) {
	rest, ours := strings.CutPrefix(string(name), plugin)
	driver, handle, whole := strings.Cut(rest, "^")
	return disk{driver, handle}, ours && whole && driver != "" && handle != ""
}

// diskOf a volume, if a driver has made it.
func diskOf(v *corev1.PersistentVolume) (disk, bool) {
	if v == nil || v.Spec.CSI == nil {
		return disk{}, false
	}
	return disk{v.Spec.CSI.Driver, v.Spec.CSI.VolumeHandle}, true
}

// The queue's keys: "d/DRIVER^HANDLE" disks, "n/NAME" nodes.

func (d disk) key() string { return "d/" + d.driver + "^" + d.handle }

func diskKeyed(key string) disk {
	driver, handle, _ := strings.Cut(strings.TrimPrefix(key, "d/"), "^")
	return disk{driver, handle}
}
