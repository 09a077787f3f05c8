package cluster

import (
	"os"
	"path/filepath"
	"testing"
)

// Nodes beside the first one on a machine have folders that are called by number.
func TestSharesDisk(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "nodes", "2"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := &server{Config: &Config{Name: "proa", DataDir: dir, Agent: &Agent{NodeName: "proa"}}}
	for node, want := range map[string]bool{"proa": true, "proa-2": true, "proa-3": false, "other-2": false, "proa-../2": false, "2": false} {
		if got := s.sharesDisk(node); got != want {
			t.Errorf("%s: %v", node, got)
		}
	}
}
