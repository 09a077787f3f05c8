// Package images makes the container images that the conformance tests use,
// without a registry: their contents are programs built from Go modules, files
// of Debian packages, and busybox. Names and tags are those that the suite asks
// for; in each image is what the tests use and nothing else.
package images

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Maker makes the images.
type Maker struct {
	Dir      string // for the Debian files and the archive
	Programs string // folder with agnhost and the others of upstream; busybox is put there
	Source   string // upstream's source
	Mirror   string // of Debian; "" = the one this machine uses
	Say      func(format string, args ...any)
}

// Archive is the docker archive with all the images.
func (m *Maker) Archive() string { return filepath.Join(m.Dir, "images.tar") }

// Make the archive, unless there is one that is newer than the programs in it.
func (m *Maker) Make(ctx context.Context) error {
	if m.fresh() {
		return nil
	}
	mirror, err := m.mirror(ctx)
	if err != nil {
		return err
	}
	d := &debian{dir: filepath.Join(m.Dir, "debian"), mirror: mirror}
	m.Say("making the images of the tests, from programs, Debian packages and busybox (once, a minute)")
	if err := d.fetch(ctx); err != nil {
		return fmt.Errorf("the Debian packages of the images: %w", err)
	}
	if err := d.busybox(ctx, m.program("busybox")); err != nil {
		return fmt.Errorf("busybox: %w", err)
	}
	trees, err := m.trees(ctx, d)
	if err != nil {
		return err
	}
	return m.write(trees)
}

func (m *Maker) program(name string) string { return filepath.Join(m.Programs, name) }

func (m *Maker) fresh() bool {
	made, err := os.Stat(m.Archive())
	if err != nil {
		return false
	}
	for _, p := range []string{"agnhost", "nnp", "sample-apiserver", "etcd", "busybox"} {
		if info, err := os.Stat(m.program(p)); err != nil || info.ModTime().After(made.ModTime()) {
			return false
		}
	}
	return true
}

// mirror of Debian that this machine uses, or Debian's own.
func (m *Maker) mirror(ctx context.Context) (string, error) {
	if m.Mirror != "" {
		return m.Mirror, nil
	}
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)").Output()
	if err != nil {
		return "", fmt.Errorf("apt-get indextargets: %w (the images are made from Debian packages, which needs a Debian or Ubuntu machine)", err)
	}
	for line := range strings.Lines(string(out)) {
		if uri, ok := strings.CutPrefix(strings.TrimSpace(line), "Debian "); ok {
			return uri, nil
		}
	}
	return "http://deb.debian.org/debian/", nil
}

func (m *Maker) write(trees map[string]Tree) (err error) {
	scratch, err := os.MkdirTemp(m.Dir, "layers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	f, err := os.Create(m.Archive() + ".new")
	if err != nil {
		return err
	}
	defer f.Close()
	a := &archive{out: tar.NewWriter(f), layers: map[string]layer{}, has: map[string]bool{}}
	for name, t := range trees {
		if a.layers[name], err = t.layer(scratch); err != nil {
			return fmt.Errorf("the layer %s: %w", name, err)
		}
	}
	for _, i := range list() {
		if err := a.add(i); err != nil {
			return fmt.Errorf("the image %s: %w", i.Name, err)
		}
	}
	if err := errors.Join(a.close(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), m.Archive())
}

// run a command and return what it said only when it failed.
func run(ctx context.Context, in, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = in
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return fmt.Errorf("%s: %w\n  %s", name, err, strings.Join(lines[max(0, len(lines)-5):], "\n  "))
}
