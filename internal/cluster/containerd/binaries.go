package containerd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// programs that must be in one folder.
var programs = []string{"containerd", "containerd-shim-runc-v2", "runc", "proa-cni"}

// FindBinaries returns the folder with containerd and what it needs: the one
// given, or that of this program, or the first one in PATH that has them all.
func FindBinaries(given string) (string, error) {
	if given != "" {
		if m := missing(given); len(m) > 0 {
			return "", fmt.Errorf("%s lacks %s: \"make tools\" builds them", given, strings.Join(m, ", "))
		}
		return filepath.Abs(given)
	}
	var first string
	self, err := os.Executable()
	if err == nil {
		first = filepath.Dir(self)
		if len(missing(first)) == 0 {
			return first, nil
		}
	}
	if found, err := exec.LookPath("containerd"); err == nil && len(missing(filepath.Dir(found))) == 0 {
		return filepath.Dir(found), nil
	}
	return "", fmt.Errorf("the programs that run containers are not beside proa in %s (missing: %s): \"make tools\" builds them into bin/, or name their folder with --runtime-dir, or a runtime that runs already with --container-runtime-endpoint",
		first, strings.Join(missing(first), ", "))
}

func missing(dir string) (names []string) {
	for _, p := range programs {
		if info, err := os.Stat(filepath.Join(dir, p)); err != nil || info.Mode()&0o111 == 0 || info.IsDir() {
			names = append(names, p)
		}
	}
	return names
}
