package storage

import (
	"crypto/sha256"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Disk is what a CSI driver attaches to nodes, however many PersistentVolumes name it.
type Disk struct{ Driver, Handle string }

const csiPlugin = "kubernetes.io/csi/"

// Name of the disk in a node's status: "kubernetes.io/csi/DRIVER^HANDLE".
func (d Disk) Name() corev1.UniqueVolumeName {
	return corev1.UniqueVolumeName(csiPlugin + d.Driver + "^" + d.Handle)
}

// Attachment is the name of the VolumeAttachment of the disk to a node: "csi-", and
// the SHA-256 of handle, driver and node. Drivers expect it.
func (d Disk) Attachment(node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(d.Handle+d.Driver+node)))
}

// DiskNamed so in a node's status.
func DiskNamed(name corev1.UniqueVolumeName) (Disk, bool) {
	rest, csi := strings.CutPrefix(string(name), csiPlugin)
	driver, handle, whole := strings.Cut(rest, "^")
	return Disk{driver, handle}, csi && whole && driver != "" && handle != ""
}
