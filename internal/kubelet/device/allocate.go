package device

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	wire "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/proa-dev/proa/internal/kubelet/pod"
)

// Wants says whether a container of a pod is to get devices.
func (m *Manager) Wants(p *v1.Pod) bool {
	for _, list := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			if len(m.wants(p, &list[i])) > 0 {
				return true
			}
		}
	}
	return false
}

// Allocate devices to the containers of a pod that have not got theirs. An error
// means that the pod cannot run here.
func (m *Manager) Allocate(ctx context.Context, p *v1.Pod) error {
	m.choosing.Lock()
	defer m.choosing.Unlock()
	reuse := map[string]map[string]bool{} // what init containers leave to those after them
	err := each(p, func(c *v1.Container, passes bool) error {
		want := m.wants(p, c)
		for _, name := range slices.Sorted(maps.Keys(want)) {
			g := m.granted(p.UID, c.Name, name)
			if g == nil {
				var err error
				if g, err = m.allocate(ctx, p, c, name, want[name], reuse[name]); err != nil {
					return err
				}
			}
			for _, id := range g.IDs {
				if reuse[name] == nil {
					reuse[name] = map[string]bool{}
				}
				reuse[name][id] = passes
			}
		}
		return nil
	})
	if err != nil {
		m.Free(p.UID)
		return err
	}
	m.keep()
	return nil
}

// each container of a pod in the order in which they run. passes: what it has goes
// to others after it.
func each(p *v1.Pod, visit func(c *v1.Container, passes bool) error) error {
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if err := visit(c, !pod.Sidecar(c)); err != nil {
			return err
		}
	}
	for i := range p.Spec.Containers {
		if err := visit(&p.Spec.Containers[i], false); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) granted(uid types.UID, container, name string) *grant {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.grants[uid] {
		if g.Container == container && g.Resource == name {
			return g
		}
	}
	return nil
}

func (m *Manager) allocate(ctx context.Context, p *v1.Pod, c *v1.Container, name string, n int, reuse map[string]bool) (*grant, error) {
	m.mu.Lock()
	r := m.resources[name]
	plugin := r.plugin
	taken := map[string]bool{}
	for _, list := range m.grants {
		for _, g := range list {
			for _, id := range g.IDs {
				taken[id] = taken[id] || g.Resource == name
			}
		}
	}
	must, free := choose(r.healthy, taken, reuse, n)
	m.mu.Unlock()
	if len(must)+len(free) < n {
		return nil, fmt.Errorf("requested number of devices unavailable for %s. Requested: %d, Available: %d", name, n, len(must)+len(free))
	}
	if plugin == nil {
		return nil, fmt.Errorf("endpoint not found in cache for a registered resource: %s", name)
	}
	ids, err := plugin.prefer(ctx, must, free, n)
	if err != nil {
		return nil, err
	}
	cctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	out, err := plugin.Allocate(cctx, &wire.AllocateRequest{ContainerRequests: []*wire.ContainerAllocateRequest{{DevicesIds: ids}}})
	if err != nil {
		return nil, err
	}
	if len(out.ContainerResponses) == 0 {
		return nil, fmt.Errorf("no containers return in allocation response of %s", name)
	}
	b, err := proto.Marshal(out.ContainerResponses[0])
	if err != nil {
		return nil, err
	}
	g := &grant{Container: c.Name, Resource: name, IDs: ids, Response: b}
	m.mu.Lock()
	m.grants[p.UID] = append(m.grants[p.UID], g)
	m.mu.Unlock()
	return g, nil
}

// choose up to n devices that can be had again, and list all others that are free.
func choose(healthy, taken, reuse map[string]bool, n int) (must, free []string) {
	for _, id := range slices.Sorted(maps.Keys(healthy)) {
		switch {
		case !healthy[id]:
		case reuse[id] && len(must) < n:
			must = append(must, id)
		case !taken[id]:
			free = append(free, id)
		}
	}
	return must, free
}

// prefer asks the plugin which of the free devices it would take, if it cares.
func (c *client) prefer(ctx context.Context, must, free []string, n int) ([]string, error) {
	if len(must) == n {
		return must, nil
	}
	if c.options.GetGetPreferredAllocationAvailable() {
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		out, err := c.GetPreferredAllocation(ctx, &wire.PreferredAllocationRequest{ContainerRequests: []*wire.ContainerPreferredAllocationRequest{
			{AvailableDeviceIDs: append(slices.Clone(must), free...), MustIncludeDeviceIDs: must, AllocationSize: int32(n)}}})
		if err != nil {
			return nil, fmt.Errorf("device plugin GetPreferredAllocation rpc failed with err: %w", err)
		}
		if len(out.ContainerResponses) > 0 {
			for _, id := range out.ContainerResponses[0].DeviceIDs {
				if i := slices.Index(free, id); i >= 0 && len(must) < n {
					must, free = append(must, id), slices.Delete(free, i, i+1)
				}
			}
		}
	}
	return append(must, free[:n-len(must)]...), nil
}

// Apply what a container's devices need to its configuration, and tell plugins that
// want to know that it starts.
func (m *Manager) Apply(ctx context.Context, cfg *cri.ContainerConfig, p *v1.Pod, c *v1.Container) error {
	m.mu.Lock()
	var list []*grant
	var plugins []*client
	for _, g := range m.grants[p.UID] {
		if g.Container == c.Name {
			list = append(list, g)
			plugins = append(plugins, m.resources[g.Resource].plugin)
		}
	}
	m.mu.Unlock()
	for i, g := range list {
		if d := plugins[i]; d != nil && d.options.GetPreStartRequired() {
			cctx, cancel := context.WithTimeout(ctx, callTime)
			_, err := d.PreStartContainer(cctx, &wire.PreStartContainerRequest{DevicesIds: g.IDs})
			cancel()
			if err != nil {
				return fmt.Errorf("device plugin PreStartContainer rpc failed with err: %w", err)
			}
		}
		r := &wire.ContainerAllocateResponse{}
		if err := proto.Unmarshal(g.Response, r); err != nil {
			return fmt.Errorf("what was allocated of %s cannot be read: %w", g.Resource, err)
		}
		apply(cfg, r)
	}
	return nil
}

// apply a plugin's answer; what the configuration has already goes before it.
func apply(cfg *cri.ContainerConfig, r *wire.ContainerAllocateResponse) {
	for _, k := range slices.Sorted(maps.Keys(r.Envs)) {
		if !slices.ContainsFunc(cfg.Envs, func(e *cri.KeyValue) bool { return e.Key == k }) {
			cfg.Envs = append(cfg.Envs, &cri.KeyValue{Key: k, Value: []byte(r.Envs[k])})
		}
	}
	for _, x := range r.Mounts {
		if !slices.ContainsFunc(cfg.Mounts, func(y *cri.Mount) bool { return y.ContainerPath == x.ContainerPath }) {
			cfg.Mounts = append(cfg.Mounts, &cri.Mount{ContainerPath: x.ContainerPath, HostPath: x.HostPath, Readonly: x.ReadOnly})
		}
	}
	for _, x := range r.Devices {
		if !slices.ContainsFunc(cfg.Devices, func(y *cri.Device) bool { return y.ContainerPath == x.ContainerPath }) {
			cfg.Devices = append(cfg.Devices, &cri.Device{ContainerPath: x.ContainerPath, HostPath: x.HostPath, Permissions: x.Permissions})
		}
	}
	for k, v := range r.Annotations {
		if _, have := cfg.Annotations[k]; !have {
			cfg.Annotations[k] = v
		}
	}
	for _, x := range r.CdiDevices {
		if !slices.ContainsFunc(cfg.CDIDevices, func(y *cri.CDIDevice) bool { return y.Name == x.Name }) {
			cfg.CDIDevices = append(cfg.CDIDevices, &cri.CDIDevice{Name: x.Name})
		}
	}
}
