package plugin

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCheckpoint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	c := Checkpoint{Path: path}
	state := []string{"as it was"}
	if err := c.Load(&state); err != nil || state[0] != "as it was" {
		t.Fatalf("nothing was saved: %v %v", state, err)
	}
	if err := c.Save([]string{"a"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := c.Save([]string{"a"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("what was saved last was written again")
	}
	if err := c.Save([]string{"b"}); err != nil {
		t.Fatal(err)
	}
	after := Checkpoint{Path: path}
	if err := after.Load(&state); err != nil || len(state) != 1 || state[0] != "b" {
		t.Errorf("%v %v", state, err)
	}
	if left, _ := filepath.Glob(path + "?*"); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if err := os.WriteFile(path, []byte("["), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := after.Load(&state); err == nil {
		t.Error("half a file was read")
	}
}
