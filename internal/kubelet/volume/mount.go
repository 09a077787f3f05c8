package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/kubelet/pod"
)

// tmpfs mounts memory at a path, unless it is there. size 0 = the kernel's default.
func tmpfs(path string, size int64) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if is, err := filesystem(path, unix.TMPFS_MAGIC); is || err != nil {
		return err
	}
	options := ""
	if size > 0 {
		options = fmt.Sprintf("size=%d", size)
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, options); err != nil {
		return fmt.Errorf("mount tmpfs at %s: %w", path, err)
	}
	return nil
}

func hugetlbfs(path, medium string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if is, err := filesystem(path, unix.HUGETLBFS_MAGIC); is || err != nil {
		return err
	}
	options := ""
	if size, ok := strings.CutPrefix(medium, string(v1.StorageMediumHugePages)+"-"); ok {
		options = "pagesize=" + strings.TrimSuffix(size, "i")
	}
	if err := unix.Mount("nodev", path, "hugetlbfs", 0, options); err != nil {
		return fmt.Errorf("mount hugetlbfs at %s: %w", path, err)
	}
	return nil
}

// filesystem says whether path is the root of a mount of that type of its own.
func filesystem(path string, magic int64) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, err
	}
	if int64(st.Type) != magic {
		return false, nil
	}
	var here, above unix.Stat_t
	if err := errors.Join(unix.Stat(path, &here), unix.Stat(filepath.Dir(path), &above)); err != nil {
		return false, err
	}
	return here.Dev != above.Dev, nil
}

// own gives a volume to the pod's fsGroup, unless the policy says that its root
// shows that this has been done.
func own(p *v1.Pod, root string) error {
	group := pod.FSGroup(p)
	if group == nil {
		return nil
	}
	if policy := p.Spec.SecurityContext.FSGroupChangePolicy; policy != nil && *policy == v1.FSGroupChangeOnRootMismatch {
		var st unix.Stat_t
		if err := unix.Stat(root, &st); err == nil && int64(st.Gid) == *group && st.Mode&unix.S_ISGID != 0 && st.Mode&0o070 == 0o070 {
			return nil
		}
	}
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(path, -1, int(*group)); err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil || e.Type()&fs.ModeSymlink != 0 {
			return err
		}
		mode := info.Mode() | 0o660
		if e.IsDir() {
			mode |= 0o110 | fs.ModeSetgid
		}
		return os.Chmod(path, mode)
	})
}

// SubPath binds a path inside a volume, made if it is not there, to a place of
// its own, and returns that. Symbolic links are followed inside the volume only.
func SubPath(root, sub, at string) (string, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return "", fmt.Errorf("%s is not a directory", root)
	}
	fd, err := within(dir, sub)
	if errors.Is(err, unix.ENOENT) {
		if err := makeWithin(dir, sub, st.Mode&0o7777); err != nil {
			return "", err
		}
		fd, err = within(dir, sub)
	}
	if err != nil {
		return "", fmt.Errorf("%s in %s: %w", sub, root, err)
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	_ = unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return "", err
	}
	_ = os.Remove(at)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.Mkdir(at, 0o755)
	} else {
		err = os.WriteFile(at, nil, 0o640)
	}
	if err != nil {
		return "", err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("bind %s at %s: %w", sub, at, err)
	}
	return at, nil
}

func within(dir int, path string) (int, error) {
	return unix.Openat2(dir, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
}

func makeWithin(dir int, path string, mode uint32) error {
	done := ""
	for _, part := range strings.Split(filepath.Clean(path), "/") {
		parent, err := within(dir, "./"+done)
		if err != nil {
			return err
		}
		err = unix.Mkdirat(parent, part, mode)
		if err == nil {
			var st unix.Stat_t
			if err = unix.Fstatat(parent, part, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
				err = unix.Fchmodat(parent, part, mode, 0)
			}
		}
		_ = unix.Close(parent)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		done = filepath.Join(done, part)
	}
	return nil
}

// Unmount takes away the volumes of a pod and what was in them. A folder in which
// a mount is left over is kept, so that nothing behind it is deleted.
func (m *Manager) Unmount(ctx context.Context, uid types.UID) error {
	m.forget(uid)
	if err := clear(filepath.Join(m.PodDir(uid), "volume-subpaths")); err != nil { // they hold what is below
		return fmt.Errorf("volumes of pod %q: %w", uid, err)
	}
	if m.CSI != nil {
		if err := m.CSI.Unmount(ctx, uid); err != nil {
			return fmt.Errorf("volumes of pod %q: %w", uid, err)
		}
	}
	if err := clear(filepath.Join(m.PodDir(uid), "volumes")); err != nil {
		return fmt.Errorf("volumes of pod %q: %w", uid, err)
	}
	return nil
}

// Remove everything of a pod, after Unmount.
func (m *Manager) Remove(ctx context.Context, uid types.UID) error {
	if err := m.Unmount(ctx, uid); err != nil {
		return err
	}
	return clear(m.PodDir(uid))
}

func clear(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	mounts, err := below(dir)
	if err != nil {
		return err
	}
	for _, path := range mounts {
		if err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW); err != nil {
			if err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("unmount %s: %w", path, err)
			}
		}
	}
	if mounts, err = below(dir); err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("still mounted: %v", mounts)
	}
	return os.RemoveAll(dir)
}

// below lists mount points inside a folder, innermost and latest first.
func below(dir string) ([]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	var list []string
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 4 {
			if path := unescape.Replace(f[4]); strings.HasPrefix(path, real+"/") {
				list = append(list, path)
			}
		}
	}
	slices.Reverse(list)
	return list, nil
}

// Orphans lists pods that have a folder.
func (m *Manager) Orphans() []types.UID {
	entries, _ := os.ReadDir(filepath.Join(m.Root, "pods"))
	var list []types.UID
	for _, e := range entries {
		list = append(list, types.UID(e.Name()))
	}
	return list
}
