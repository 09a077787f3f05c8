package csi

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/kubelet/plugin"
)

// record of a volume that is staged or published, in a file beside it. Names are
// those that every kubelet uses, so that another one can take the node over.
type record struct {
	Spec   string `json:"specVolID,omitempty"` // name of the PersistentVolume or the pod's volume
	Handle string `json:"volumeHandle"`
	Driver string `json:"driverName"`
	Node   string `json:"nodeName,omitempty"`
	// Mode is Persistent or Ephemeral.
	Mode       string `json:"volumeLifecycleMode,omitempty"`
	Attachment string `json:"attachmentID,omitempty"`
	// Attached is "true" when the volume has to be attached to the node.
	Attached string `json:"attached,omitempty"`
}

const recordFile = "vol_data.json"

func (r record) id() volumeID { return volumeID{Driver: r.Driver, Handle: r.Handle} }

func (r record) write(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return plugin.Replace(filepath.Join(dir, recordFile), b)
}

// forget the record in a folder, and the folder unless something else is in it.
func forget(dir string) {
	_ = os.Remove(filepath.Join(dir, recordFile))
	_ = os.Remove(dir)
}

func readRecord(dir string) (r record, err error) {
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && (r.Driver == "" || r.Handle == "") {
		err = fmt.Errorf("%s names no driver or volume", filepath.Join(dir, recordFile))
	}
	return r, err
}

// inlineHandle is the id of a volume that a pod brings itself.
func inlineHandle(pod types.UID, name string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(string(pod)+name)))
}

// paths below the kubelet's root, as upstream has them.

// podVolume is the folder of a pod's volume: its record, and mount.
func podVolume(root plugin.Root, pod types.UID, name string) string {
	return root.Join("pods", string(pod), "volumes", "kubernetes.io~csi", escape(name))
}

// place where a volume is published to a pod.
func place(root plugin.Root, key publication, block bool) string {
	if block {
		return devices(root, "publish", key.name, string(key.pod))
	}
	return filepath.Join(podVolume(root, key.pod, key.name), "mount")
}

// podDevices holds links to where block volumes of a pod are published.
func podDevices(root plugin.Root, pod types.UID) string {
	return root.Join("pods", string(pod), "volumeDevices", "kubernetes.io~csi")
}

// staged is the folder of a volume's record; it is mounted at globalmount in it.
func staged(root plugin.Root, id volumeID) string {
	return root.Join("plugins", "kubernetes.io", "csi", id.Driver, fmt.Sprintf("%x", sha256.Sum256([]byte(id.Handle))))
}

func devices(root plugin.Root, parts ...string) string {
	return root.Join(append([]string{"plugins", "kubernetes.io", "csi", "volumeDevices"}, parts...)...)
}

func escape(name string) string { return strings.ReplaceAll(name, "/", "~") }

// isMount says whether something is mounted exactly at a path.
func isMount(path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// sweep takes away what is left at a path when nothing is mounted there. What is
// in a folder is kept: it may be the user's.
func sweep(path string) error {
	if isMount(path) {
		return fmt.Errorf("something is still mounted at %s", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// restore what is known from what is on disk.
func (m *Manager) restore() {
	add := func(dir string, block bool, staging string) {
		r, err := readRecord(dir)
		if err != nil {
			return
		}
		v := m.volume(r.id())
		v.record, v.block, v.attach = dir, block, r.Attached == "true"
		if _, err := os.Stat(staging); err == nil {
			v.staging, v.ready = staging, isMount(staging)
		}
	}
	dirs, _ := filepath.Glob(m.Root.Join("plugins", "kubernetes.io", "csi", "*", "*", recordFile))
	for _, f := range dirs {
		add(filepath.Dir(f), false, filepath.Join(filepath.Dir(f), "globalmount"))
	}
	dirs, _ = filepath.Glob(devices(m.Root, "*", "data", recordFile))
	for _, f := range dirs {
		name := filepath.Base(filepath.Dir(filepath.Dir(f)))
		add(filepath.Dir(f), true, devices(m.Root, "staging", name))
	}
	if len(m.volumes) == 0 {
		return
	}
	files, _ := filepath.Glob(m.Root.Join("pods", "*", "volumes", "kubernetes.io~csi", "*", recordFile))
	for _, f := range files {
		if r, err := readRecord(filepath.Dir(f)); err == nil && m.volumes[r.id()] != nil {
			m.volumes[r.id()].users[podOf(m.Root, f)] = true
		}
	}
	links, _ := filepath.Glob(m.Root.Join("pods", "*", "volumeDevices", "kubernetes.io~csi", "*"))
	for _, f := range links {
		if r, err := readRecord(devices(m.Root, filepath.Base(f), "data")); err == nil && m.volumes[r.id()] != nil {
			m.volumes[r.id()].users[podOf(m.Root, f)] = true
		}
	}
}

// podOf a path in its folder.
func podOf(root plugin.Root, path string) types.UID {
	rest := strings.TrimPrefix(path, root.Join("pods")+"/")
	uid, _, _ := strings.Cut(rest, "/")
	return types.UID(uid)
}
