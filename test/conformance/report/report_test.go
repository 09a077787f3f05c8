package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-dev/proa/test/conformance/suite"
)

func tests() []*suite.Test {
	return []*suite.Test{
		{Name: "[sig-node] B", State: suite.Failed, Took: 3 * time.Second, Reason: "failed at test/e2e/b.go:7\n\nexpected `one`\nmore\nand more\nand too much"},
		{Name: "[sig-node] A", State: suite.Passed, Took: time.Second},
		{Name: "[sig-apps] C", State: suite.NotRun},
	}
}

func TestSummary(t *testing.T) {
	var out strings.Builder
	Summary(&out, tests())
	for _, want := range []string{
		"FAILED [sig-node] B\n    failed at test/e2e/b.go:7\n    expected `one`\n    more\n    and more\n",
		"sig-node                  1 passed    1 failed  of 2\n",
		"1 passed, 1 failed, 1 of 3, 1 not run\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "too much") {
		t.Error("all lines of the reason are shown")
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	if err := Folder(dir, tests()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"passed": "[sig-node] A\n", "failed": "[sig-node] B\n", "skipped": "", "notrun": "[sig-apps] C\n",
		"times": "     3.0 [sig-node] B\n     1.0 [sig-node] A\n",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, name+".txt")); err != nil || string(got) != want {
			t.Errorf("%s.txt: %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestPage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	for _, c := range []struct {
		page Page
		want []string
	}{
		{Page{Suite: "v1.36.3", Proa: "v1", Nodes: 2, Tests: tests()}, []string{
			"Upstream's suite v1.36.3, Proa v1, 2 nodes", "| sig-node | 1 | 1 | 0 | 2 |\n| **all** | **1** | **1** | **0** | **3** |\n",
			"- [sig-node] B\n  failed: `failed at test/e2e/b.go:7: ",
		}},
		{Page{Suite: "v1.36.3", Tests: tests()[1:2]}, []string{"| **all** | **1** | **0** | **0** | **1** |\n\nEvery test passed.\n\n## Running it"}},
		{Page{}, []string{"The suite was not run as a whole since this page was made.\n\n## Running it"}},
	} {
		if err := c.page.Write(file); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.Contains(string(got), want) {
				t.Errorf("%q is not in:\n%s", want, got)
			}
		}
	}
}
