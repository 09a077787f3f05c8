package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// keepHost remembers what upstream's kubelet changes on the machine besides its
// own folders, and returns a function that undoes it.
func keepHost() (restore func(context.Context) error, err error) {
	before := map[string][]byte{}
	for _, name := range []string{
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
	} {
		file := filepath.Join("/proc/sys", name)
		if before[file], err = os.ReadFile(file); err != nil {
			return nil, err
		}
	}
	var made []string
	for _, folder := range []string{
		"/var/log/containers", // links to logs
		"/var/lib/kubelet",    // device plugins have no other place
	} {
		if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
			made = append(made, folder)
		}
	}
	return func(context.Context) error {
		var errs []error
		for file, value := range before {
			errs = append(errs, os.WriteFile(file, value, 0o644))
		}
		for _, folder := range made {
			errs = append(errs, os.RemoveAll(folder))
		}
		return errors.Join(errs...)
	}, nil
}
