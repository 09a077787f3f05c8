package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// A disk of a CSI driver comes to its pod, keeps what is on it when the pod goes,
// grows while it is used, and is detached when nobody needs it. The driver's part on
// the node is real; what its sidecars would do, attaching and resizing, this test
// does by the objects they would change.
func TestDriver(t *testing.T) {
	c := up(t, "e2e-driver", 1)
	c.must(c.run("image", "import", shell(t)))
	node := c.Status.Nodes[0].Name
	d := newDriver(t, filepath.Join(c.Status.DataDir, "agent/kubelet"), node)
	c.must(c.kubectlIn(disk, "apply", "-f", "-"))
	c.eventually(20*time.Second, func() error {
		_, err := c.kubectl("get", "csinode", node)
		return err
	})
	run := func(command string) {
		t.Helper()
		c.must(c.kubectlIn(fmt.Sprintf(user, command), "apply", "-f", "-"))
	}
	attachment := func() string { return c.k("get", "volumeattachments", "-o", "name") }
	attach := func() {
		t.Helper()
		c.eventually(20*time.Second, func() error {
			if attachment() == "" {
				return errors.New("nobody asks for the disk to be attached")
			}
			return nil
		})
		c.k("patch", attachment(), "--type=merge", "-p", `{"metadata":{"finalizers":["external-attacher/folders-example-com"]}}`)
		c.k("patch", attachment(), "--subresource=status", "--type=merge", "-p", `{"status":{"attached":true,"attachmentMetadata":{"device":"1"}}}`)
	}
	detach := func() {
		t.Helper()
		c.eventually(30*time.Second, func() error {
			if c.k("get", attachment(), "-o", "jsonpath={.metadata.deletionTimestamp}") == "" {
				return errors.New("the disk is not detached")
			}
			return nil
		})
		if !d.has("unpublish") || !d.has("unstage") {
			t.Error("detached while it was staged")
		}
		if got := c.k("get", "node", node, "-o", "jsonpath={.status.volumesAttached}{.status.volumesInUse}"); got != "" {
			t.Errorf("the node has %s", got)
		}
		c.k("patch", attachment(), "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	}

	run("echo kept > /data/file && sync /data/file && sleep 3600")
	attach()
	c.k("wait", "pod/user", "--for=condition=Ready", "--timeout=60s")
	if got := c.k("get", "node", node, "-o", "jsonpath={.status.volumesAttached[0].name} {.status.volumesInUse[0]}"); got != "kubernetes.io/csi/folders.example.com^disk-1 kubernetes.io/csi/folders.example.com^disk-1" {
		t.Errorf("the node says that it has %q", got)
	}
	c.k("delete", "pod", "user", "--now")
	detach()

	run("sleep 3600")
	attach()
	c.k("wait", "pod/user", "--for=condition=Ready", "--timeout=60s")
	if got := c.k("exec", "user", "--", "cat", "/data/file"); got != "kept" {
		t.Errorf("the disk has %q", got)
	}
	c.k("patch", "pvc/disk", "-p", `{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}`)
	c.k("patch", "pv/disk", "-p", `{"spec":{"capacity":{"storage":"2Gi"}}}`) // as a resizer does, and then:
	c.k("patch", "pvc/disk", "--subresource=status", "--type=merge", "-p", `{"status":{"allocatedResources":{"storage":"2Gi"},"allocatedResourceStatuses":{"storage":"NodeResizePending"}}}`)
	c.k("wait", "pvc/disk", "--for=jsonpath={.status.capacity.storage}=2Gi", "--timeout=120s")
	if !d.has("expand") {
		t.Error("the driver was not told")
	}
	c.k("delete", "pod", "user", "--now")
	detach()
}

const disk = `
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: folders.example.com}
spec: {attachRequired: true}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: folders}
provisioner: folders.example.com
allowVolumeExpansion: true
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: disk}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: folders
  persistentVolumeReclaimPolicy: Retain
  csi: {driver: folders.example.com, volumeHandle: disk-1}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: disk}
spec:
  volumeName: disk
  storageClassName: folders
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
`

const user = `
apiVersion: v1
kind: Pod
metadata: {name: user}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: user
    image: shell:1
    command: [sh, -c, %q]
    volumeMounts: [{name: disk, mountPath: /data}]
  volumes: [{name: disk, persistentVolumeClaim: {claimName: disk}}]
`
