// Package cluster starts the cluster under test: Proa with two nodes, the second
// a network namespace of this machine, and removes it again.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Proa is the program that makes clusters.
type Proa struct {
	Program string // path of proa
	Runtime string // folder with containerd, runc and the CNI plugins
	Dir     string // for a kubeconfig of our own: the user's stays as it is
}

// Up makes a cluster and returns its kubeconfig.
func (p *Proa) Up(ctx context.Context, name string, nodes int) (kubeconfig string, err error) {
	if _, err := p.find(ctx, name); err == nil {
		return "", fmt.Errorf("%w: %q, of a run that goes on or was killed; if no run goes on, remove it by %s delete --name %s", ErrExists, name, p.Program, name)
	}
	if _, err := p.ask(ctx, "up", "--name", name, "--nodes", fmt.Sprint(nodes), "--runtime-dir", p.Runtime); err != nil {
		return "", err
	}
	return p.find(ctx, name)
}

// find the kubeconfig of a cluster of this machine.
func (p *Proa) find(ctx context.Context, name string) (kubeconfig string, err error) {
	out, err := p.ask(ctx, "status", "--name", name, "-o", "json")
	if err != nil {
		return "", err
	}
	var clusters []struct{ Name, Kubeconfig string }
	if err := json.Unmarshal([]byte(out), &clusters); err != nil {
		return "", fmt.Errorf("proa status: %w", err)
	}
	for _, c := range clusters {
		if c.Name == name {
			return c.Kubeconfig, nil
		}
	}
	return "", fmt.Errorf("proa status does not know the cluster %q", name)
}

// Delete a cluster; one that is not there is no error.
func (p *Proa) Delete(ctx context.Context, name string) error {
	_, err := p.ask(ctx, "delete", "--name", name, "--runtime-dir", p.Runtime)
	return err
}

// Import an archive of images into the cluster of a kubeconfig. ErrNotProa says
// that the cluster takes none.
func (p *Proa) Import(ctx context.Context, kubeconfig, archive string) error {
	if _, err := p.ask(ctx, "image", "ls", "--kubeconfig", kubeconfig); err != nil {
		return fmt.Errorf("%w (%w)", ErrNotProa, err)
	}
	_, err := p.ask(ctx, "image", "import", "--kubeconfig", kubeconfig, archive)
	return err
}

// Errors that callers tell apart.
var (
	ErrExists  = errors.New("there is a cluster of that name already")
	ErrNotProa = errors.New("the cluster is not Proa's") // and takes no images
)

// Version of proa.
func (p *Proa) Version(ctx context.Context) (string, error) {
	out, err := p.ask(ctx, "version", "-o", "json")
	if err != nil {
		return "", err
	}
	var v struct{ Proa string }
	err = json.Unmarshal([]byte(out), &v)
	return v.Proa, err
}

// ask runs proa and returns what it printed.
func (p *Proa) ask(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, p.Program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(p.Dir, "kubeconfig"))
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("proa %s: %w\n%s", strings.Join(args[:min(2, len(args))], " "), err, strings.TrimSpace(problem.String()))
	}
	return string(out), nil
}
