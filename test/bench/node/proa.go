package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Proa makes clusters by "proa up".
type Proa struct {
	Bin   string // folder with proa and the runtime's programs
	Below string // folder for a kubeconfig of our own
	Name  string // of the cluster
}

// Up makes a cluster and says how long it took until its nodes were ready.
func (p *Proa) Up(ctx context.Context, nodes int) (*Node, time.Duration, error) {
	if _, err := p.status(ctx); err == nil {
		return nil, 0, fmt.Errorf("there is a cluster %q already: remove it by %s delete --name %s", p.Name, p.program(), p.Name)
	}
	n := &Node{stop: []func(context.Context) error{p.delete}}
	began := time.Now()
	_, err := p.Run(ctx, nil, "up", "--name", p.Name, "--nodes", fmt.Sprint(nodes), "--runtime-dir", p.Bin)
	took := time.Since(began)
	if err == nil {
		var s *status
		if s, err = p.status(ctx); err == nil {
			n.Kubeconfig, n.PIDs = s.Kubeconfig, []int{s.PID}
		}
	}
	if err != nil {
		return nil, 0, errors.Join(err, n.Stop(ctx))
	}
	return n, took, nil
}

// status of a cluster as "proa status" prints it.
type status struct {
	Kubeconfig string
	PID        int
}

func (p *Proa) status(ctx context.Context) (*status, error) {
	out, err := p.Run(ctx, nil, "status", "--name", p.Name, "-o", "json")
	if err != nil {
		return nil, err
	}
	var list []status
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("there is no cluster %q", p.Name)
	}
	return &list[0], nil
}

func (p *Proa) delete(ctx context.Context) error {
	_, err := p.Run(ctx, nil, "delete", "--name", p.Name, "--runtime-dir", p.Bin)
	return err
}

func (p *Proa) program() string { return filepath.Join(p.Bin, "proa") }

// Run proa and return what it printed. The user's kubeconfig stays as it is.
func (p *Proa) Run(ctx context.Context, in []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, p.program(), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(p.Below, "kubeconfig"))
	cmd.Stdin = strings.NewReader(string(in))
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("proa %s: %w\n%s", strings.Join(args[:min(2, len(args))], " "), err, strings.TrimSpace(problem.String()))
	}
	return out, nil
}
