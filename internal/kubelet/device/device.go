// Package device serves device plugins: programs that say which devices of a
// resource ("nvidia.com/gpu") the node has, and what a container needs to use those
// that it gets. Which containers have which is written down, so that a kubelet that
// comes later knows it, too.
package device

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	wire "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/proa-dev/proa/internal/kubelet/plugin"
)

// Config of a Manager.
type Config struct {
	Root plugin.Root
	Log  *slog.Logger
	// Changed is told when Capacity has.
	Changed func()
	// Grace is how long the devices of a plugin that is gone count as the node's,
	// 0 = 5 minutes.
	Grace time.Duration
}

// Manager of the node's device plugins.
type Manager struct {
	Config
	ctx   context.Context
	group sync.WaitGroup

	mu        sync.Mutex
	resources map[string]*resourceOf
	grants    map[types.UID][]*grant
	choosing  sync.Mutex // devices are chosen for one pod at a time
	saved     plugin.Checkpoint
}

// resourceOf a plugin.
type resourceOf struct {
	plugin  *client // nil = it is not there
	healthy map[string]bool
	gone    bool // it has not been there for too long: the node has none
}

// grant of devices to a container.
type grant struct {
	Container string
	Resource  string
	IDs       []string
	Response  []byte // of Allocate, for the container's configuration
}

// New manager, which knows what was granted.
func New(ctx context.Context, c Config) (*Manager, error) {
	if c.Grace == 0 {
		c.Grace = 5 * time.Minute
	}
	m := &Manager{
		Config: c, ctx: ctx, resources: map[string]*resourceOf{}, grants: map[types.UID][]*grant{},
		saved: plugin.Checkpoint{Path: c.Root.Join(folder, file)},
	}
	return m, m.load()
}

// Capacity of the node in devices: all there are, and those that are healthy.
func (m *Manager) Capacity() (capacity, allocatable v1.ResourceList) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, r := range m.resources {
		if capacity == nil {
			capacity, allocatable = v1.ResourceList{}, v1.ResourceList{}
		}
		all, good := len(r.healthy), 0
		for _, ok := range r.healthy {
			if ok {
				good++
			}
		}
		if r.gone {
			all, good = 0, 0
		}
		capacity[v1.ResourceName(name)] = *resource.NewQuantity(int64(all), resource.DecimalSI)
		allocatable[v1.ResourceName(name)] = *resource.NewQuantity(int64(good), resource.DecimalSI)
	}
	return capacity, allocatable
}

// came takes in a plugin that has registered; the one before it is followed no more.
func (m *Manager) came(name string, c *client) {
	m.mu.Lock()
	r := m.resources[name]
	if r == nil {
		r = &resourceOf{healthy: map[string]bool{}}
		m.resources[name] = r
	}
	old := r.plugin
	r.plugin = c
	m.mu.Unlock()
	if old != nil {
		old.close()
	}
	m.keep()
}

// listed takes in the devices that a plugin has.
func (m *Manager) listed(name string, c *client, devices []*wire.Device) {
	now := make(map[string]bool, len(devices))
	for _, d := range devices {
		now[d.ID] = d.Health == wire.Healthy
	}
	m.mu.Lock()
	r := m.resources[name]
	if r == nil || r.plugin != c {
		m.mu.Unlock()
		return
	}
	same := maps.Equal(r.healthy, now) && !r.gone
	r.healthy, r.gone = now, false
	m.mu.Unlock()
	if !same {
		m.Changed()
	}
}

// left notices that a plugin is gone: its devices are not healthy, and after the
// grace period there are none.
func (m *Manager) left(name string, c *client) {
	m.mu.Lock()
	r := m.resources[name]
	if r == nil || r.plugin != c {
		m.mu.Unlock()
		return
	}
	r.plugin = nil
	for id := range r.healthy {
		r.healthy[id] = false
	}
	m.mu.Unlock()
	m.Changed()
	m.group.Go(func() {
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(m.Grace):
		}
		m.mu.Lock()
		still := r.plugin == nil
		r.gone = r.gone || still
		m.mu.Unlock()
		if still {
			m.Changed()
		}
	})
}

// Free what a pod was granted: its containers have ended.
func (m *Manager) Free(pod types.UID) {
	m.mu.Lock()
	_, had := m.grants[pod]
	delete(m.grants, pod)
	m.mu.Unlock()
	if had {
		m.keep()
	}
}

// keep what is known over a restart.
func (m *Manager) keep() {
	if err := m.save(); err != nil {
		m.Log.Error("grants of devices not written down", "err", err)
	}
}

// wants lists the devices that a container is to get, by resource.
func (m *Manager) wants(p *v1.Pod, c *v1.Container) map[string]int {
	var want map[string]int
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.resources) == 0 {
		return nil
	}
	for name, q := range c.Resources.Limits {
		if m.resources[string(name)] == nil || q.Value() <= 0 || claimed(p, c.Name, string(name)) {
			continue
		}
		if want == nil {
			want = map[string]int{}
		}
		want[string(name)] = int(q.Value())
	}
	return want
}

// claimed says whether a resource of a container comes from a ResourceClaim.
func claimed(p *v1.Pod, container, resource string) bool {
	e := p.Status.ExtendedResourceClaimStatus
	return e != nil && slices.ContainsFunc(e.RequestMappings, func(r v1.ContainerExtendedResourceRequest) bool {
		return r.ContainerName == container && r.ResourceName == resource
	})
}
