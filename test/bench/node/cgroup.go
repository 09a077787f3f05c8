package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

const cgroupMount = "/sys/fs/cgroup"

// makeCgroups makes the control group that upstream's kubelet puts its pods
// into, and returns its name. Version 1 has a folder for each controller,
// version 2 one for all.
func makeCgroups() (string, error) {
	roots, err := cgroupRoots()
	if err != nil {
		return "", err
	}
	for _, root := range roots {
		if filepath.Base(root) == "unified" { // the kubelet makes that one itself
			continue
		}
		group := filepath.Join(root, cgroupName)
		if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		// In version 1 a new group may use no CPU and no memory until it is told which.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			all, err := os.ReadFile(filepath.Join(root, file))
			if err != nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(group, file), all, 0o644); err != nil {
				return "", err
			}
		}
	}
	return "/" + cgroupName, nil
}

// cgroupRoots are the folders below which groups are.
func cgroupRoots() ([]string, error) {
	if _, err := os.Stat(filepath.Join(cgroupMount, "cgroup.controllers")); err == nil {
		return []string{cgroupMount}, nil
	}
	folders, err := os.ReadDir(cgroupMount)
	if err != nil {
		return nil, err
	}
	var roots []string
	for _, f := range folders {
		if f.IsDir() {
			roots = append(roots, filepath.Join(cgroupMount, f.Name()))
		}
	}
	return roots, nil
}

// removeCgroups removes the group and those below it.
func removeCgroups() error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		var groups []string
		walk := filepath.WalkDir(filepath.Join(root, cgroupName), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				groups = append(groups, path)
			}
			return nil // what is gone is gone
		})
		slices.Reverse(groups)
		for _, g := range groups {
			if e := os.Remove(g); e != nil && !errors.Is(e, fs.ErrNotExist) {
				walk = errors.Join(walk, e)
			}
		}
		err = errors.Join(err, walk)
	}
	return err
}
