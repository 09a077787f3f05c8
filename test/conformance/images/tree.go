package images

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Tree is a file system in the making: entries by their path without a leading
// slash. One tree becomes one layer.
type Tree map[string]Entry

// Entry of a tree: a folder, a link, or a file whose bytes are Text or those of
// the file From on this machine.
type Entry struct {
	Mode fs.FileMode // permissions, with fs.ModeDir, ModeSymlink, ModeSetuid, …
	Link string
	Text []byte
	From string
}

// Dir makes folders.
func (t Tree) Dir(mode fs.FileMode, names ...string) {
	for _, n := range names {
		t.put(n, Entry{Mode: mode | fs.ModeDir})
	}
}

// Link makes a symbolic link.
func (t Tree) Link(name, target string) {
	t.put(name, Entry{Mode: 0o777 | fs.ModeSymlink, Link: target})
}

// Text makes a file with these bytes.
func (t Tree) Text(name, text string) { t.put(name, Entry{Mode: 0o644, Text: []byte(text)}) }

// File makes a file with the bytes of one of this machine.
func (t Tree) File(mode fs.FileMode, name, from string) {
	t.put(name, Entry{Mode: mode, From: from})
}

// put an entry, and the folders above it that are not there.
func (t Tree) put(name string, e Entry) {
	name = merged(name)
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, ok := t[dir]; !ok {
			t[dir] = Entry{Mode: 0o755 | fs.ModeDir}
		}
	}
	t[name] = e
}

// merged is a path in a system whose /bin, /sbin and /lib lie in /usr.
func merged(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	first, rest, below := strings.Cut(name, "/")
	if below && (first == "bin" || first == "sbin" || strings.HasPrefix(first, "lib")) {
		return path.Join("usr", first, rest)
	}
	return name
}

// layer writes the tree as a tar file into a folder. Times and owners are fixed
// and names in order, so that equal trees have equal digests.
func (t Tree) layer(folder string) (l layer, err error) {
	f, err := os.CreateTemp(folder, "layer-")
	if err != nil {
		return l, err
	}
	defer f.Close()
	sum := sha256.New()
	w := tar.NewWriter(io.MultiWriter(f, sum))
	for _, name := range slices.Sorted(maps.Keys(t)) {
		if err := t[name].write(w, name); err != nil {
			return l, err
		}
	}
	if err := w.Close(); err != nil {
		return l, err
	}
	l.digest, l.file = hex.EncodeToString(sum.Sum(nil)), filepath.Join(folder, filepath.Base(f.Name()))
	return l, f.Close()
}

func (e Entry) write(w *tar.Writer, name string) error {
	h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: unixMode(e.Mode), Linkname: e.Link, Size: int64(len(e.Text)), Format: tar.FormatGNU}
	var content io.Reader = bytes.NewReader(e.Text)
	switch {
	case e.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case e.Mode&fs.ModeSymlink != 0:
		h.Typeflag = tar.TypeSymlink
	case e.From != "":
		f, err := os.Open(e.From)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		content, h.Size = f, info.Size()
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(w, content)
	return err
}

// unixMode is a mode as tar has it: permissions with the set-user, set-group
// and sticky bits.
func unixMode(m fs.FileMode) int64 {
	mode := int64(m.Perm())
	for flag, bit := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&flag != 0 {
			mode |= bit
		}
	}
	return mode
}
