package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/proa-dev/proa/internal/controller/volume"
)

// localVolumes are folders below the data folder, of the same name on each node.
// Those on other machines cannot be removed from here.
func (s *server) localVolumes() volume.Config {
	return volume.Config{
		Path: func(_, name string) string { return filepath.Join(s.DataDir, "volumes", name) },
		Remove: func(node, path string) error {
			if filepath.Dir(path) != filepath.Join(s.DataDir, "volumes") {
				return fmt.Errorf("%s is not below %s: remove it by hand on node %s, then delete the volume", path, filepath.Join(s.DataDir, "volumes"), node)
			}
			if !s.sharesDisk(node) {
				return fmt.Errorf("the folder is on node %s: remove %s there, then delete the volume", node, path)
			}
			return os.RemoveAll(path)
		},
	}
}

// sharesDisk says whether a node keeps its folders on this machine: the one of this
// process, and those beside it. They are called after it and have a number, by which
// their folders are called: NODE-2 is in nodes/2.
func (s *server) sharesDisk(node string) bool {
	if s.Agent == nil || s.Agent.NodeName == node {
		return s.Agent != nil
	}
	number, beside := strings.CutPrefix(node, s.Agent.NodeName+"-")
	if n, err := strconv.Atoi(number); !beside || err != nil || n < 2 {
		return false
	}
	_, err := os.Stat(filepath.Join(s.DataDir, "nodes", number))
	return err == nil
}
