package state

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestFullDisk fills the disk of a server, first a little, then to the last byte:
// writes are refused with a Status that says why, reads and deletions go on, the
// server lives, and once there is room it writes again, by itself.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=600m"); err != nil {
		t.Skip("a small disk cannot be mounted: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s := newServer(t, filepath.Join(dir, "proa"))
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.up()
	t.Cleanup(s.kill) // before the disk goes
	maps := s.api.CoreV1().ConfigMaps(namespace)
	n := 0
	write := func() error {
		n++
		_, err := maps.Create(t.Context(), configMap(fmt.Sprint("m", n), 0, "x"), metav1.CreateOptions{})
		return err
	}
	refused := func() error {
		err := write()
		if apierrors.IsServiceUnavailable(err) && strings.Contains(err.Error(), "make room on it") {
			return nil
		}
		return fmt.Errorf("a write: %w", err)
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}

	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast, dir, 100<<20)
	eventually(t, 10*time.Second, "writes are refused", refused)
	t.Log(write())
	if _, err := maps.Get(t.Context(), "m1", metav1.GetOptions{}); err != nil {
		t.Error("a read:", err)
	}
	if err := maps.Delete(t.Context(), "m1", metav1.DeleteOptions{}); err != nil {
		t.Error("a deletion:", err)
	}

	rest := filepath.Join(dir, "rest")
	fill(t, rest, dir, 0)
	for range 50 {
		if err := refused(); err != nil {
			t.Fatal(err)
		}
		if _, err := maps.List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Fatal("a read:", err)
		}
		select {
		case <-s.ended:
			t.Fatalf("the server has ended: %v\n%s", s.err, s.tail())
		case <-time.After(50 * time.Millisecond):
		}
	}
	for _, file := range []string{ballast, rest} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 20*time.Second, "writes go on", write)
	eventually(t, 10*time.Second, "the log tells", func() error {
		data, err := os.ReadFile(s.log)
		if err == nil && (!strings.Contains(string(data), "the store is full") || !strings.Contains(string(data), "the store has room again")) {
			err = fmt.Errorf("it does not:\n%s", s.tail())
		}
		return err
	})
}

// fill a disk until it has no more than left bytes free.
func fill(t *testing.T, file, disk string, left int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for {
		var fs unix.Statfs_t
		if err := unix.Statfs(disk, &fs); err != nil {
			t.Fatal(err)
		}
		if int64(fs.Bavail)*int64(fs.Bsize) <= left {
			return
		}
		if _, err := f.Write(block); err != nil {
			return // it is full
		}
	}
}
