package local

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespaces can be removed whatever "ip netns" does after them.
func TestNamesBesideIPNetns(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes mounts and namespaces")
	}
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("needs ip, of the Debian package iproute2")
	}
	err = inThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
			return err
		}
		for range 2 { // the second time it is as it should be
			if err := shareNames(); err != nil {
				return err
			}
		}
		ns, err := netns.NewNamed("first")
		if err != nil {
			return err
		}
		ns.Close()
		if out, err := exec.Command(ip, "netns", "add", "second").CombinedOutput(); err != nil {
			return fmt.Errorf("ip netns add: %w: %s", err, out)
		}
		if err := netns.DeleteNamed("first"); err != nil {
			return err
		}
		if left, _ := filepath.Glob(namesDir + "/first"); len(left) > 0 {
			return fmt.Errorf("%s is left", left)
		}
		return netns.DeleteNamed("second")
	})
	if err != nil {
		t.Fatal(err)
	}
}
