package device

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
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
	b, err := os.ReadFile(m.Root.Join(folder, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var s state
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return fmt.Errorf("kubelet: which containers have which devices is not known: %w; drain the node and remove %s", err, m.Root.Join(folder, file))
	}
	m.saved = b
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
	b, err := json.Marshal(state{slices.Sorted(maps.Keys(m.resources)), m.grants})
	if err != nil || bytes.Equal(b, m.saved) {
		return err
	}
	path := m.Root.Join(folder, file)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	m.saved = b
	return nil
}
