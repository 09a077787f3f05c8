package archtest

import (
	"strings"
	"testing"
)

func tree(t *testing.T) []File {
	t.Helper()
	files, err := Load("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("found %d Go files: is this the root of the module?", len(files))
	}
	return files
}

func TestImports(t *testing.T) {
	for _, f := range tree(t) {
		for _, i := range f.Imports {
			if strings.HasPrefix(i, "k8s.io/kubernetes") && !strings.HasPrefix(f.Path, "test/") {
				t.Errorf("%s imports %s: it is no library, write what is needed", f.Path, i)
			}
			to, ours := strings.CutPrefix(i, Module+"/")
			if !ours || f.Test {
				continue
			}
			if why := Import(f.Package, to); why != "" {
				t.Errorf("%s imports %s: %s", f.Path, to, why)
			}
		}
	}
}

func TestPackageDocs(t *testing.T) {
	doc := map[string]bool{}
	for _, f := range tree(t) {
		if !f.Test {
			doc[f.Package] = doc[f.Package] || f.Doc
		}
	}
	for pkg, ok := range doc {
		if !ok {
			t.Errorf("%s has no package comment: say in a sentence or two what is found there", pkg)
		}
	}
}

func TestDepth(t *testing.T) {
	for _, f := range tree(t) {
		rest, below := strings.CutPrefix(f.Package, "internal/")
		if below && strings.Count(rest, "/") > 2 {
			t.Errorf("%s is more than three folders below internal", f.Path)
		}
	}
}

func TestFileLength(t *testing.T) {
	for _, f := range tree(t) {
		switch {
		case f.Generated():
		case f.Lines > 1000:
			t.Errorf("%s has %d lines: split it by what it is about (1000 at most)", f.Path, f.Lines)
		case f.Lines > 500:
			t.Logf("%s has %d lines: look at it twice", f.Path, f.Lines)
		}
	}
}

func TestDecidersHaveNoClock(t *testing.T) {
	for _, f := range tree(t) {
		if Decider(f.Path) && Calls(f.Syntax, "time", "Now")+Calls(f.Syntax, "time", "Since") > 0 {
			t.Errorf("%s decides, so the time is given to it: no time.Now, no time.Since", f.Path)
		}
	}
}

func TestRules(t *testing.T) {
	for _, c := range []struct {
		from, to string
		good     bool
	}{
		{"internal/api/core", "internal/api", true},
		{"internal/api", "internal/store", false},
		{"internal/client/local", "internal/apiserver", false},
		{"internal/scheduler", "internal/kubelet", false},
		{"internal/cluster", "internal/kubelet", true},
		{"internal/cluster", "internal/cli", false},
		{"cmd/proa", "internal/cli", true},
		{"cmd/proa", "internal/store", false},
		{"cmd/proa-cni", "internal/network/pod/cni", true},
		{"cmd/proa-cni", "internal/cluster", false},
		{"internal/shed", "internal/api", false},
	} {
		if why := Import(c.from, c.to); (why == "") != c.good {
			t.Errorf("%s imports %s: %q", c.from, c.to, why)
		}
	}
}
