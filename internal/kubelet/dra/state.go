package dra

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/kubelet/plugin"
)

// claim that pods of the node use.
type claim struct {
	UID       types.UID
	Namespace string
	Name      string
	Pods      []types.UID
	// Drivers of the claim, and the devices that each has prepared.
	Drivers  map[string][]Device
	Prepared bool

	lock plugin.Lock // who holds it may call drivers about the claim
}

// Device that a driver has prepared.
type Device struct {
	Pool     string   `json:",omitempty"`
	Name     string   `json:",omitempty"`
	Share    *string  `json:",omitempty"`
	Requests []string `json:",omitempty"` // of the claim that it is for, none = all
	CDI      []string `json:",omitempty"` // names for the container runtime
}

func (d *Device) id() string { return d.Pool + "/" + d.Name }

// serves a request of the claim, "" = all of them.
func (d *Device) serves(request string) bool {
	return request == "" || len(d.Requests) == 0 || slices.Contains(d.Requests, request)
}

func newClaim() *claim {
	return &claim{Drivers: map[string][]Device{}, lock: plugin.NewLock()}
}

func (c *claim) key() key { return key{c.Namespace, c.Name} }

// state as it is written down.
type state struct {
	Boot    string   // of the machine: after another, nothing is prepared
	Drivers []string // that are known
	Claims  []*claim
}

// file in the kubelet's folder.
const file = "dra_manager_state.json"

func boot() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// load what a kubelet before this one has written down.
func (m *Manager) load() error {
	var s state
	if err := m.saved.Load(&s); err != nil {
		return fmt.Errorf("kubelet: what is prepared for pods is not known: %w; drain the node and remove %s", err, m.saved.Path)
	}
	same := s.Boot == m.boot
	for _, c := range s.Claims {
		c.lock = plugin.NewLock()
		c.Prepared = c.Prepared && same
		if c.Drivers == nil {
			c.Drivers = map[string][]Device{}
		}
		m.claims[c.key()] = c
	}
	for _, name := range s.Drivers {
		m.known[name] = true
		m.leave(name)
	}
	return nil
}

// save what is prepared, if it is not what was saved last.
func (m *Manager) save() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := state{Boot: m.boot, Drivers: slices.Sorted(maps.Keys(m.known))}
	for _, c := range m.claims {
		s.Claims = append(s.Claims, c)
	}
	slices.SortFunc(s.Claims, func(a, b *claim) int { return compare(a.key(), b.key()) })
	if err := m.saved.Save(s); err != nil {
		return fmt.Errorf("checkpoint ResourceClaim state: %w", err)
	}
	return nil
}
