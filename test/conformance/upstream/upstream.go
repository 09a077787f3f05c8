// Package upstream builds Kubernetes' own programs, its end-to-end tests and
// etcd from their Go modules, at the versions that this module's go.mod names.
package upstream

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Module whose version is the version of everything here.
const Module = "k8s.io/kubernetes"

// Program is one that can be built; Tests says that it is made of a package's
// tests.
type Program struct {
	Name, Package string
	Tests         bool
}

// Programs of upstream, by the names they get.
func Programs() []Program {
	const own = "github.com/proa-dev/proa/test/conformance/"
	return []Program{
		{Name: "etcd", Package: own + "etcd"},
		{Name: "kube-apiserver", Package: Module + "/cmd/kube-apiserver"},
		{Name: "kube-controller-manager", Package: Module + "/cmd/kube-controller-manager"},
		{Name: "kube-scheduler", Package: Module + "/cmd/kube-scheduler"},
		{Name: "kubelet", Package: Module + "/cmd/kubelet"},
		{Name: "kubectl", Package: Module + "/cmd/kubectl"},
		{Name: "agnhost", Package: Module + "/test/images/agnhost"},
		{Name: "nnp", Package: Module + "/test/images/nonewprivs"},
		{Name: "sample-apiserver", Package: "k8s.io/sample-apiserver"},
		{Name: "ginkgo", Package: "github.com/onsi/ginkgo/v2/ginkgo"},
		{Name: "e2e.test", Package: Module + "/test/e2e", Tests: true},
	}
}

// Suite names the programs that a run of the conformance suite needs.
func Suite() []string {
	return []string{"kubectl", "e2e.test", "ginkgo", "agnhost", "nnp", "sample-apiserver", "etcd"}
}

// Builder builds into a folder.
type Builder struct {
	Source string // folder of this module
	Out    string
	Say    func(format string, args ...any)
}

// Build the programs of these names that are not there yet. To have one built
// again, remove it.
func (b *Builder) Build(ctx context.Context, names ...string) error {
	if err := os.MkdirAll(b.Out, 0o755); err != nil {
		return err
	}
	known := map[string]Program{}
	for _, p := range Programs() {
		known[p.Name] = p
	}
	for _, name := range names {
		p, ok := known[name]
		if !ok {
			return fmt.Errorf("there is no program %q: choose of %s", name, strings.Join(list(), ", "))
		}
		if _, err := os.Stat(b.Path(name)); err == nil {
			continue
		}
		if err := b.build(ctx, p); err != nil {
			return fmt.Errorf("building %s: %w", name, err)
		}
	}
	return nil
}

// Path of a program.
func (b *Builder) Path(name string) string { return filepath.Join(b.Out, name) }

// Version of upstream, as go.mod has it: v1.36.3.
func (b *Builder) Version(ctx context.Context) (string, error) {
	return b.ask(ctx, "list", "-m", "-f", "{{.Version}}", Module)
}

// Folder of upstream's source, for the few files that images take from it.
func (b *Builder) Folder(ctx context.Context) (string, error) {
	if _, err := b.ask(ctx, "mod", "download", Module); err != nil {
		return "", err
	}
	return b.ask(ctx, "list", "-m", "-f", "{{.Dir}}", Module)
}

func (b *Builder) build(ctx context.Context, p Program) error {
	version, err := b.Version(ctx)
	if err != nil {
		return err
	}
	b.Say("building upstream's %s %s (once)", p.Name, version)
	// Beside its place and then moved, so that what is there is whole.
	scratch := b.Path(p.Name) + ".new"
	args := []string{"build"}
	if p.Tests {
		args = []string{"test", "-c"}
	}
	args = append(args, "-ldflags", "-s -w "+stamp(version), "-o", scratch, p.Package)
	if _, err := b.ask(ctx, args...); err != nil {
		return err
	}
	return os.Rename(scratch, b.Path(p.Name))
}

// stamp is what upstream's build tells its programs about their version.
func stamp(version string) string {
	const v = "k8s.io/component-base/version."
	part := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	return fmt.Sprintf("-X %sgitVersion=%s -X %sgitMajor=%s -X %sgitMinor=%s", v, version, v, part[0], v, part[1])
}

// ask runs the go command in this module and returns what it printed.
func (b *Builder) ask(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = b.Source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", args[0], err, strings.TrimSpace(problem.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

func list() []string {
	var names []string
	for _, p := range Programs() {
		names = append(names, p.Name)
	}
	return names
}
