package device

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// state as it is written down.
type state struct {
	Resources []string // whose plugins have registered
	Grants    map[types.UID][]*grant
}

// file beside the sockets of plugins.
const file = "kubelet_internal_checkpoint"

// load what a kubelet before this one has written down. The plugins register again
// when they see the new kubelet's socket; until then there are no devices.
func (m *Manager) load() error {
	var s state
	if err := m.saved.Load(&s); err != nil {
		return fmt.Errorf("kubelet: which containers have which devices is not known: %w; drain the node and remove %s", err, m.saved.Path)
	}
	for _, name := range s.Resources {
		m.resources[name] = &resourceOf{healthy: map[string]bool{}, gone: true}
	}
	for pod, list := range s.Grants {
		for _, g := range list {
			if m.resources[g.Resource] == nil {
				m.resources[g.Resource] = &resourceOf{healthy: map[string]bool{}, gone: true}
			}
		}
		m.grants[pod] = list
	}
	return nil
}

// save what is known, if it is not what was saved last.
func (m *Manager) save() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.saved.Save(state{slices.Sorted(maps.Keys(m.resources)), m.grants})
}
