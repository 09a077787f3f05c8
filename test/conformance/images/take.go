package images

import (
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// take programs, with the libraries they need, into a tree.
func (d *debian) take(t Tree, names ...string) error {
	for _, name := range names {
		if _, ok := t[merged(name)]; ok && t[merged(name)].From != "" {
			continue
		}
		file, err := d.real(name)
		if err != nil {
			return err
		}
		t.File(0o755, name, file)
		needs, err := d.needs(file)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := d.take(t, needs...); err != nil {
			return err
		}
	}
	return nil
}

// real is the file behind a name in the folder's root, links followed.
func (d *debian) real(name string) (string, error) {
	for range 10 {
		file := filepath.Join(d.root(), merged(name))
		target, err := os.Readlink(file)
		if err != nil {
			_, err = os.Stat(file)
			return file, err
		}
		if !path.IsAbs(target) {
			target = path.Join("/", path.Dir(merged(name)), target)
		}
		name = target
	}
	return "", fmt.Errorf("%s is a link to itself", name)
}

// needs are the libraries and the loader of a program.
func (d *debian) needs(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			loader, err := io.ReadAll(p.Open())
			if err != nil {
				return nil, err
			}
			names = append(names, strings.TrimRight(string(loader), "\x00"))
		}
	}
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	for _, l := range libraries {
		found, err := filepath.Glob(filepath.Join(d.root(), "usr/lib/*-linux-gnu*", l))
		if err != nil || len(found) == 0 {
			return nil, fmt.Errorf("no package has its library %s", l)
		}
		name, err := filepath.Rel(d.root(), found[0])
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}
