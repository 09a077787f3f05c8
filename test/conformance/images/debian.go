package images

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// packages whose programs the images hold; apt adds what these need.
var packages = []string{
	"bash", "curl", "bind9-dnsutils", "bind9-host", "netcat-openbsd", "iproute2", "iputils-ping", "iperf",
	"util-linux", "nginx-light", "libc-bin",
}

// The release that the programs come from, and the one with the busybox that the
// images' names promise (1.37).
const (
	release       = "bookworm"
	sourceRelease = "trixie"
)

// debian is a folder with the files of Debian packages, fetched with this
// machine's apt but kept apart from its packages. Nothing is installed, no
// script of a package runs, and root is not needed.
type debian struct {
	dir    string
	mirror string
}

func (d *debian) root() string { return filepath.Join(d.dir, "root") }

// fetch the packages and lay out their files, once.
func (d *debian) fetch(ctx context.Context) error {
	done := filepath.Join(d.dir, "packages.txt")
	want := release + " " + strings.Join(packages, " ") + "\n"
	if have, err := os.ReadFile(done); err == nil && string(have) == want {
		return nil
	}
	if err := errors.Join(os.RemoveAll(d.dir), d.prepare(ctx)); err != nil {
		return err
	}
	args := append([]string{"install", "-y", "--no-install-recommends", "--download-only"}, packages...)
	if err := d.apt(ctx, d.dir, args...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(d.dir, "cache", "archives", "*.deb"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := d.unpack(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(f), err)
		}
	}
	return os.WriteFile(done, []byte(want), 0o644)
}

// prepare apt's lists in the folder.
func (d *debian) prepare(ctx context.Context) error {
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial", "root"} {
		if err := os.MkdirAll(filepath.Join(d.dir, sub), 0o755); err != nil {
			return err
		}
	}
	const signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
	sources := fmt.Sprintf("deb %s %s %s main\ndeb-src %s %s %s main\n", signed, d.mirror, release, signed, d.mirror, sourceRelease)
	for name, text := range map[string]string{"sources.list": sources, "state/status": ""} {
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return d.apt(ctx, d.dir, "update")
}

// apt runs apt-get on the folder's own lists and cache.
func (d *debian) apt(ctx context.Context, in string, args ...string) error {
	var options []string
	for _, o := range []string{
		"Dir::Etc::sourcelist=" + filepath.Join(d.dir, "sources.list"), "Dir::Etc::sourceparts=/dev/null",
		"Dir::State=" + filepath.Join(d.dir, "state"), "Dir::State::status=" + filepath.Join(d.dir, "state", "status"),
		"Dir::Cache=" + filepath.Join(d.dir, "cache"), "Debug::NoLocking=1", "APT::Sandbox::User=root",
		"APT::Keep-Downloaded-Packages=1", "APT::Update::Post-Invoke::=", "Acquire::Languages=none",
	} {
		options = append(options, "-o", o)
	}
	return run(ctx, in, "apt-get", append(append(options, "-qq"), args...)...)
}

// unpack the files of a package below the folder's root.
func (d *debian) unpack(ctx context.Context, deb string) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = d.extract(tar.NewReader(out))
	_, drained := io.Copy(io.Discard, out)
	return errors.Join(err, drained, cmd.Wait())
}

func (d *debian) extract(r *tar.Reader) error {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Join(d.root(), merged(h.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, name)
		case tar.TypeLink:
			err = os.Link(filepath.Join(d.root(), merged(h.Linkname)), name)
		case tar.TypeReg:
			err = write(name, h.FileInfo().Mode().Perm(), r)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
}

func write(name string, mode fs.FileMode, r io.Reader) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode|0o200)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
