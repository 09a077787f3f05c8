package attach

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/api/storage"
)

type disk = storage.Disk

// diskOf a volume, if a driver has made it.
func diskOf(v *corev1.PersistentVolume) (disk, bool) {
	if v == nil || v.Spec.CSI == nil {
		return disk{}, false
	}
	return disk{Driver: v.Spec.CSI.Driver, Handle: v.Spec.CSI.VolumeHandle}, true
}

// The queue's keys: "d/DRIVER^HANDLE" disks, "n/NAME" nodes.

func keyOf(d disk) string { return "d/" + d.Driver + "^" + d.Handle }

func diskKeyed(key string) disk {
	driver, handle, _ := strings.Cut(strings.TrimPrefix(key, "d/"), "^")
	return disk{Driver: driver, Handle: handle}
}
