// Package local runs clusters in the background of one machine: "proa up" and
// what belongs to it. The first node is the machine itself, with the server in
// the same process; further nodes are network namespaces joined by a bridge,
// each with a containerd and a "proa agent" of its own. Several clusters live
// side by side: each has its own folder, ports, address ranges, bridge, tables
// and cgroups, all written down in one file, so that delete finds them all.
package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/proa-dev/proa/internal/cluster"
	"github.com/proa-dev/proa/internal/cluster/host"
	"github.com/proa-dev/proa/internal/cluster/pki"
)

// Root holds what local clusters need: a record of each, and their folders
// unless they have been put elsewhere.
const Root = "/var/lib/proa"

// Spec is a local cluster as it was made.
type Spec struct {
	Name      string `json:"name"`
	DataDir   string `json:"dataDir"`
	Slot      int    `json:"slot"` // numbers the clusters of this machine; ranges follow from it
	Nodes     int    `json:"nodes"`
	APIPort   int    `json:"apiPort"`
	HTTPPort  int    `json:"httpPort"`
	HTTPSPort int    `json:"httpsPort"`
	Kubelet   int    `json:"kubeletPort"`
}

var nameRule = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$`)

// CheckName says why a cluster cannot be called so.
func CheckName(name string) error {
	if !nameRule.MatchString(name) {
		return fmt.Errorf("--name %q: use 1 to 20 lower-case letters, digits and '-', the first a letter", name)
	}
	return nil
}

func records() string           { return filepath.Join(Root, "clusters") }
func record(name string) string { return filepath.Join(records(), name+".json") }

// Load the record of a cluster; nil when there is none.
func Load(name string) (*Spec, error) {
	data, err := os.ReadFile(record(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s := &Spec{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("%s: %w", record(name), err)
	}
	return s, nil
}

// All clusters of this machine, by name.
func All() ([]*Spec, error) {
	files, err := filepath.Glob(record("*"))
	if err != nil {
		return nil, err
	}
	var all []*Spec
	for _, f := range files {
		s, err := Load(strings.TrimSuffix(filepath.Base(f), ".json"))
		if err != nil {
			return nil, err
		}
		if s != nil {
			all = append(all, s)
		}
	}
	return all, nil
}

func (s *Spec) save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return pki.WriteFile(record(s.Name), append(data, '\n'), 0o644)
}

// slots is how many clusters have room side by side.
const slots = 12

// complete a new cluster's record: what was not chosen is, so that it meets no
// other cluster.
func (s *Spec) complete(others []*Spec) error {
	for s.Slot = 0; slices.ContainsFunc(others, func(o *Spec) bool { return o.Slot == s.Slot }); s.Slot++ {
	}
	if s.Slot >= slots {
		return fmt.Errorf(`%d clusters are the most on one machine: "proa delete --name NAME" removes one`, slots)
	}
	if s.DataDir == "" {
		s.DataDir = filepath.Join(Root, s.Name)
	}
	dir, err := filepath.Abs(s.DataDir)
	if err != nil {
		return err
	}
	s.DataDir = dir
	for _, o := range others {
		if o.DataDir == s.DataDir {
			return fmt.Errorf("--data-dir %s is that of the cluster %q: choose another", dir, o.Name)
		}
	}
	s.Nodes = max(s.Nodes, 1)
	s.choosePorts(others)
	return nil
}

// choosePorts takes the usual ones where they are free. Those the user has
// named are not changed: the check of the host says when they are taken.
func (s *Spec) choosePorts(others []*Spec) {
	taken := map[int]bool{}
	for _, o := range others {
		for _, p := range []int{o.APIPort, o.HTTPPort, o.HTTPSPort, o.Kubelet} {
			taken[p] = true
		}
	}
	choose := func(port *int, first ...int) {
		if *port != 0 {
			return
		}
		for next := first[len(first)-1] + 1; len(first) < 2000; next++ {
			first = append(first, next)
		}
		for _, p := range first {
			if !taken[p] && host.Free(p) {
				*port, taken[p] = p, true
				return
			}
		}
	}
	choose(&s.APIPort, cluster.DefaultSecurePort, 16443)
	choose(&s.HTTPPort, 80, 8080)
	choose(&s.HTTPSPort, 443, 8443)
	choose(&s.Kubelet, cluster.DefaultKubeletPort)
}

// What follows from the name and the slot.

// Context of the cluster in kubeconfigs.
func (s *Spec) Context() string {
	if s.Name == cluster.DefaultName {
		return s.Name
	}
	return cluster.DefaultName + "-" + s.Name
}

// Address of node i (from 1) on the bridge.
func (s *Spec) Address(i int) string {
	if i == 1 {
		return fmt.Sprintf("10.89.%d.1", s.Slot)
	}
	return fmt.Sprintf("10.89.%d.%d", s.Slot, 10+i)
}

// NodeName of node i.
func (s *Spec) NodeName(i int) string {
	if i == 1 {
		return s.Context()
	}
	return fmt.Sprintf("%s-%d", s.Context(), i)
}

func (s *Spec) bridgeRange() string  { return fmt.Sprintf("10.89.%d.0/24", s.Slot) }
func (s *Spec) serviceRange() string { return fmt.Sprintf("10.%d.0.0/16", 96+s.Slot) }
func (s *Spec) podRange() string     { return fmt.Sprintf("10.%d.0.0/16", 244-s.Slot) }
func (s *Spec) nodePorts() string {
	if s.Slot == 0 {
		return "30000-32767"
	}
	return fmt.Sprintf("%d-%d", 30000-2000*s.Slot, 31999-2000*s.Slot)
}
func (s *Spec) bridge() string        { return fmt.Sprintf("proa-br%d", s.Slot) }
func (s *Spec) veth(i int) string     { return fmt.Sprintf("proa-v%d-%d", s.Slot, i) }
func (s *Spec) netns(i int) string    { return s.NodeName(i) }
func (s *Spec) natTable() string      { return "proa-" + s.Name + "-bridge" }
func (s *Spec) cgroup(i int) string   { return "/" + s.NodeName(i) }
func (s *Spec) serverPID() string     { return filepath.Join(s.DataDir, "server.pid") }
func (s *Spec) nodeDir(i int) string  { return filepath.Join(s.DataDir, "nodes", fmt.Sprint(i)) }
func (s *Spec) agentPID(i int) string { return filepath.Join(s.nodeDir(i), "agent.pid") }
func (s *Spec) agentLog(i int) string { return filepath.Join(s.nodeDir(i), "agent.log") }
func (s *Spec) utsFile(i int) string  { return filepath.Join(s.DataDir, "nodes", fmt.Sprint(i), "uts") }

// ServerLog is the file in which the server logs.
func (s *Spec) ServerLog() string { return filepath.Join(s.DataDir, "server.log") }

// Server is the URL of the API.
func (s *Spec) Server() string { return fmt.Sprintf("https://%s:%d", s.Address(1), s.APIPort) }

// AdminKubeconfig is the file by which its administrator gets to the cluster.
func (s *Spec) AdminKubeconfig() string { return cluster.AdminKubeconfig(s.DataDir) }
