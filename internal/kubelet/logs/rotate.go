package logs

import (
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Sizes and numbers of log files, as upstream has them.
const (
	maxSize  = 10 << 20
	maxFiles = 5
)

// TooLarge lists the folders of a pod's containers whose current log has grown
// over 10 MiB.
func TooLarge(podLogs string) []string {
	var dirs []string
	entries, _ := os.ReadDir(podLogs)
	for _, e := range entries {
		dir := filepath.Join(podLogs, e.Name())
		if now := current(dir); now != "" {
			if info, err := os.Stat(now); err == nil && info.Size() > maxSize {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

// current is the log that is written to: that of the latest attempt.
func current(dir string) string {
	entries, _ := os.ReadDir(dir)
	name, at := "", time.Time{}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && strings.HasSuffix(e.Name(), ".log") && info.ModTime().After(at) {
			name, at = filepath.Join(dir, e.Name()), info.ModTime()
		}
	}
	return name
}

// Rotate the current log in a folder: it is renamed, reopen makes the runtime
// begin a new one, older ones are compressed, and those too many removed.
func Rotate(dir string, reopen func() error) error {
	now := current(dir)
	if now == "" {
		return nil
	}
	old, err := filepath.Glob(now + ".*")
	if err != nil {
		return err
	}
	slices.Sort(old)
	for len(old) > maxFiles-2 {
		_ = os.Remove(old[0])
		old = old[1:]
	}
	for _, path := range old {
		if !strings.HasSuffix(path, ".gz") {
			if err := compress(path); err != nil {
				return err
			}
		}
	}
	aside := now + "." + time.Now().UTC().Format("20060102-150405")
	if err := os.Rename(now, aside); err != nil {
		return err
	}
	if err := reopen(); err != nil {
		_ = os.Rename(aside, now) // the runtime still writes to it
		return err
	}
	return nil
}

func compress(path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(path + ".tmp")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	z := gzip.NewWriter(out)
	if _, err := io.Copy(z, in); err != nil {
		return err
	}
	if err := errors.Join(z.Close(), out.Close()); err != nil { // before what is compressed is removed
		return err
	}
	if err := os.Rename(out.Name(), path+".gz"); err != nil {
		return err
	}
	return os.Remove(path)
}
