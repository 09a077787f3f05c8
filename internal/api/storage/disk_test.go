package storage

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestDisk(t *testing.T) {
	d := Disk{"hostpath.csi.k8s.io", "vol-1"}
	if got := d.Name(); got != "kubernetes.io/csi/hostpath.csi.k8s.io^vol-1" {
		t.Error(got)
	}
	// sha256("vol-1hostpath.csi.k8s.ion1"), as upstream's kubelet looks for it.
	if got := d.Attachment("n1"); got != "csi-ffffc29a669717b61299488392f67014c84daf009b3c45d06bb6627113f72dbe" {
		t.Error(got)
	}
	if got, ok := DiskNamed(d.Name()); !ok || got != d {
		t.Error(got, ok)
	}
	for _, other := range []corev1.UniqueVolumeName{"kubernetes.io/nfs/x", "kubernetes.io/csi/x", ""} {
		if got, ok := DiskNamed(other); ok {
			t.Errorf("%q is %v", other, got)
		}
	}
}
