package cluster

import (
	"fmt"
	"os"
	"path/filepath"

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
			here := s.Agent != nil && s.Agent.NodeName == node
			if _, err := os.Stat(filepath.Join(s.DataDir, "nodes", node)); err == nil {
				here = true
			}
			if !here {
				return fmt.Errorf("the folder is on node %s: remove %s there, then delete the volume", node, path)
			}
			return os.RemoveAll(path)
		},
	}
}
