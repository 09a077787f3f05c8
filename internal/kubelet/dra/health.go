package dra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	wire "k8s.io/kubelet/pkg/apis/dra-health/v1alpha1"
)

const (
	healthLasts = 30 * time.Second // unless a driver says otherwise
	healthRetry = 5 * time.Second
)

// health of a device, as its driver has told it last (KEP-4680).
type health struct {
	status  v1.ResourceHealthStatus
	message string
	until   time.Time // after that nothing is known
}

// watchHealth follows what a driver says of its devices, if it says anything.
func (m *Manager) watchHealth(ctx context.Context, d *driver) {
	defer m.heard(d.Name, nil)
	for {
		stream, err := wire.NewDRAResourceHealthClient(d.conn).NodeWatchResources(ctx, &wire.NodeWatchResourcesRequest{}, grpc.WaitForReady(true))
		for err == nil {
			var r *wire.NodeWatchResourcesResponse
			if r, err = stream.Recv(); err == nil {
				m.heard(d.Name, r.Devices)
			}
		}
		if status.Code(err) == codes.Unimplemented {
			return
		}
		if !errors.Is(err, io.EOF) && ctx.Err() == nil {
			m.Log.Info("health of devices is not told any more", "driver", d.Name, "err", err)
		}
		m.heard(d.Name, nil)
		select {
		case <-ctx.Done():
			return
		case <-time.After(healthRetry):
		}
	}
}

// heard takes in all that a driver says, and has pods told that have such devices.
func (m *Manager) heard(driver string, devices []*wire.DeviceHealth) {
	now := time.Now()
	all := make(map[string]health, len(devices))
	for _, d := range devices {
		h := health{status: v1.ResourceHealthStatusUnknown, message: d.Message, until: now.Add(healthLasts)}
		switch d.Health {
		case wire.HealthStatus_HEALTHY:
			h.status = v1.ResourceHealthStatusHealthy
		case wire.HealthStatus_UNHEALTHY:
			h.status = v1.ResourceHealthStatusUnhealthy
		}
		if s := d.HealthCheckTimeoutSeconds; s > 0 {
			h.until = now.Add(time.Duration(s) * time.Second)
		}
		if most := v1.ResourceHealthMessageMaxLength; len(h.message) > most {
			h.message = h.message[:most-3] + "..."
		}
		all[d.GetDevice().GetPoolName()+"/"+d.GetDevice().GetDeviceName()] = h
	}
	m.mu.Lock()
	old := m.health[driver]
	if len(all) > 0 {
		m.health[driver] = all
	} else {
		delete(m.health, driver)
	}
	var pods []types.UID
	for _, c := range m.claims {
		if slices.ContainsFunc(c.Drivers[driver], func(d Device) bool {
			a, b := old[d.id()], all[d.id()]
			return a.status != b.status || a.message != b.message || a.until.Before(now) != b.until.Before(now)
		}) {
			pods = append(pods, c.Pods...)
		}
	}
	m.mu.Unlock()
	if len(pods) > 0 && m.Sick != nil {
		m.Sick(pods)
	}
}

// Status writes the health of the devices of a pod's containers into its status. It
// returns when that will not be known any more, zero = never.
func (m *Manager) Status(p *v1.Pod, s *v1.PodStatus, now time.Time) (until time.Time) {
	if !Uses(p) {
		return until
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range s.ContainerStatuses {
		cs := &s.ContainerStatuses[i]
		at := slices.IndexFunc(p.Spec.Containers, func(c v1.Container) bool { return c.Name == cs.Name })
		if at < 0 {
			continue
		}
		cs.AllocatedResourcesStatus = nil
		for _, r := range p.Spec.Containers[at].Resources.Claims {
			name := "claim:" + r.Name
			if r.Request != "" {
				name += "/" + r.Request
			}
			if list := m.healthOf(p, r, now, &until); len(list) > 0 {
				cs.AllocatedResourcesStatus = append(cs.AllocatedResourcesStatus, v1.ResourceStatus{Name: v1.ResourceName(name), Resources: list})
			}
		}
	}
	return until
}

// healthOf the devices that a container has of a claim. The manager is locked.
func (m *Manager) healthOf(p *v1.Pod, r v1.ResourceClaim, now time.Time, until *time.Time) (list []v1.ResourceHealth) {
	at := slices.IndexFunc(p.Spec.ResourceClaims, func(c v1.PodResourceClaim) bool { return c.Name == r.Name })
	if at < 0 {
		return nil
	}
	name, _, err := resourceclaim.Name(p, &p.Spec.ResourceClaims[at])
	if err != nil || name == nil {
		return nil
	}
	c := m.claims[key{p.Namespace, *name}]
	if c == nil {
		return nil
	}
	request := resourceclaim.BaseRequestRef(r.Request)
	for _, driver := range slices.Sorted(maps.Keys(c.Drivers)) {
		for _, d := range c.Drivers[driver] {
			if !d.serves(request) {
				continue
			}
			h := v1.ResourceHealth{ResourceID: v1.ResourceID(fmt.Sprintf("%s/%s", driver, d.id())), Health: v1.ResourceHealthStatusUnknown}
			if len(d.CDI) > 0 {
				h.ResourceID = v1.ResourceID(d.CDI[0])
			}
			if slices.ContainsFunc(list, func(o v1.ResourceHealth) bool { return o.ResourceID == h.ResourceID }) {
				continue
			}
			if is, known := m.health[driver][d.id()]; known && now.Before(is.until) {
				h.Health = is.status
				if is.message != "" {
					h.Message = &is.message
				}
				if until.IsZero() || is.until.Before(*until) {
					*until = is.until
				}
			}
			list = append(list, h)
		}
	}
	return list
}
