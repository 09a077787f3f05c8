// Package archtest holds the rules of the architecture as tests: who may
// import whom, that every package says what it is, how long a file may be, and
// which calls a decider may not make. See ARCHITECTURE.md.
package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Module is the import path of the tree that is checked.
const Module = "github.com/proa-dev/proa"

// File is one Go file of the tree.
type File struct {
	Path    string // slash-separated, from the root: "internal/api/kind.go"
	Package string // its folder: "internal/api"
	Test    bool
	Lines   int
	Imports []string
	Doc     bool // has a package comment
	Syntax  *ast.File
}

// Generated says that a tool wrote the file.
func (f File) Generated() bool { return ast.IsGenerated(f.Syntax) }

// Load parses the Go files of the module rooted at a folder, without those of
// nested modules.
func Load(root string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skip(root, name, d)
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		f, err := load(root, name)
		if err == nil {
			files = append(files, f)
		}
		return err
	})
	return files, err
}

func skip(root, name string, d fs.DirEntry) error {
	if name == root {
		return nil
	}
	if d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

func load(root, name string) (File, error) {
	src, err := os.ReadFile(name)
	if err != nil {
		return File{}, err
	}
	syntax, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return File{}, err
	}
	rel, err := filepath.Rel(root, name)
	if err != nil {
		return File{}, err
	}
	f := File{
		Path:   filepath.ToSlash(rel),
		Test:   strings.HasSuffix(name, "_test.go"),
		Lines:  strings.Count(string(src), "\n"),
		Doc:    syntax.Doc != nil,
		Syntax: syntax,
	}
	f.Package = path.Dir(f.Path)
	for _, i := range syntax.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return File{}, err
		}
		f.Imports = append(f.Imports, p)
	}
	return f, nil
}

// rooms names, for each room of the house, the rooms it may import besides
// itself. A room is a folder below internal with all that is below it.
var rooms = map[string][]string{
	"api":        {},
	"store":      {"api"},
	"cache":      {"api", "store"},
	"apiserver":  {"api", "store", "cache"},
	"client":     {"api", "cache"},
	"controller": {"api", "client"},
	"scheduler":  {"api", "client"},
	"kubelet":    {"api", "client"},
	"network":    {"api", "client"},
	"cluster":    {"api", "store", "cache", "apiserver", "client", "controller", "scheduler", "kubelet", "network"},
	"simulate":   {"api", "store", "cache", "apiserver", "client", "controller", "scheduler"},
	"cli":        {"cluster", "api", "scheduler", "simulate"},
	"archtest":   {},
}

// Import says why a package may not import another, "" = it may. Both are
// folders from the root of the module.
func Import(from, to string) string {
	a, b := room(from), room(to)
	switch {
	case a == b || strings.HasPrefix(from, "test"):
		return ""
	case from == "cmd/proa-cni":
		if to == "internal/network/pod/cni" {
			return ""
		}
		return "cmd/proa-cni is started for each pod and knows only internal/network/pod/cni"
	case strings.HasPrefix(from, "cmd/"):
		if b == "cli" || b == "cluster" {
			return ""
		}
		return "cmd knows only internal/cli and internal/cluster"
	}
	allowed, known := rooms[a]
	if !known {
		return "internal/" + a + " is no room of the house: add it to archtest and to ARCHITECTURE.md"
	}
	for _, r := range allowed {
		if r == b {
			return ""
		}
	}
	return "internal/" + a + " may import " + list(allowed)
}

func list(allowed []string) string {
	if len(allowed) == 0 {
		return "nothing of ours"
	}
	return "only internal/{" + strings.Join(allowed, ",") + "}"
}

func room(pkg string) string {
	rest, ok := strings.CutPrefix(pkg, "internal/")
	if !ok {
		return pkg
	}
	room, _, _ := strings.Cut(rest, "/")
	return room
}

// Decider says whether a file is one that decides: plan.go, decide*.go.
func Decider(file string) bool {
	base := path.Base(file)
	return base == "plan.go" || strings.HasPrefix(base, "decide") && !strings.HasSuffix(base, "_test.go")
}

// Calls returns the calls pkg.name of a package-level function in a file.
func Calls(f *ast.File, pkg, name string) int {
	n := 0
	ast.Inspect(f, func(node ast.Node) bool {
		if s, ok := node.(*ast.SelectorExpr); ok && s.Sel.Name == name {
			if id, ok := s.X.(*ast.Ident); ok && id.Name == pkg {
				n++
			}
		}
		return true
	})
	return n
}
