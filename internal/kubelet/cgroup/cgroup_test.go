package cgroup

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// A node's pods weigh what its CPUs do, not what one process does.
func TestWeightOfAllPods(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: control groups are made")
	}
	name := "proa-test-" + strconv.Itoa(os.Getpid())
	tree, err := New(name, "")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		for _, c := range tree.hierarchies() {
			remove(tree.dir(c, ""))
		}
	})
	file, least := "cpu.shares", 1024*runtime.NumCPU()
	if tree.V2() {
		file, least = "cpu.weight", 100
	}
	read := func(group string) int {
		b, err := os.ReadFile(filepath.Join(tree.dir("cpu", group), file))
		if err != nil {
			t.Skipf("needs the cpu controller: %v", err)
		}
		n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		return n
	}
	for _, group := range []string{"", "kubepods"} {
		if n := read(group); n < least {
			t.Errorf("%s of %q is %d, want %d at least", file, group, n, least)
		}
	}
	if n := read("kubepods/besteffort"); n > 2 {
		t.Errorf("%s of best-effort pods is %d", file, n)
	}
}
