package dra

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	wire "k8s.io/kubelet/pkg/apis/dra/v1"

	"github.com/proa-dev/proa/internal/kubelet/plugin"
)

const (
	callTime       = 45 * time.Second // as long as drivers are used to
	driverPatience = 10 * time.Second // for a driver that is not there
	lastRetry      = 5 * time.Minute
)

// Services that a driver may offer, the best first. Both say the same in the same
// bytes, so that one set of messages does for both.
const (
	service     = "v1.DRAPlugin"
	serviceBeta = "v1beta1.DRAPlugin"
	packages    = "/k8s.io.kubelet.pkg.apis.dra."
)

// driver that has registered.
type driver struct {
	plugin.Info
	service string
	conn    *grpc.ClientConn
	stop    context.CancelFunc
	ready   bool // it is connected
}

func (d *driver) prepare(ctx context.Context, r *wire.NodePrepareResourcesRequest) (*wire.NodePrepareResourcesResponse, error) {
	out := &wire.NodePrepareResourcesResponse{}
	return out, d.conn.Invoke(ctx, packages+d.service+"/NodePrepareResources", r, out)
}

func (d *driver) unprepare(ctx context.Context, r *wire.NodeUnprepareResourcesRequest) (*wire.NodeUnprepareResourcesResponse, error) {
	out := &wire.NodeUnprepareResourcesResponse{}
	return out, d.conn.Invoke(ctx, packages+d.service+"/NodeUnprepareResources", r, out)
}

// choose the service of a driver.
func choose(versions []string) (string, error) {
	for _, s := range []string{service, serviceBeta} {
		if slices.Contains(versions, s) {
			return s, nil
		}
	}
	return "", fmt.Errorf("none of the services [%s] is supported; a DRA driver has to offer %s or %s", strings.Join(versions, " "), service, serviceBeta)
}

// Validate implements plugin.Handler.
func (m *Manager) Validate(i plugin.Info) error {
	if _, err := choose(i.Versions); err != nil {
		return fmt.Errorf("invalid supported gRPC versions of DRA driver plugin %s at endpoint %s: %w", i.Name, i.Said, err)
	}
	return nil
}

// Register implements plugin.Handler.
func (m *Manager) Register(_ context.Context, i plugin.Info) error {
	s, err := choose(i.Versions)
	if err != nil {
		return err
	}
	conn, err := plugin.Dial(i.Endpoint, grpc.WithIdleTimeout(0))
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(m.ctx)
	d := &driver{Info: i, service: s, conn: conn, stop: stop}
	m.mu.Lock()
	if slices.ContainsFunc(m.drivers.Of(i.Name), func(o *driver) bool { return o.Said == d.Said }) {
		m.mu.Unlock()
		stop()
		_ = conn.Close()
		return fmt.Errorf("endpoint %s already registered for DRA driver plugin %s", i.Said, i.Name)
	}
	m.known[i.Name] = true
	m.drivers.Add(i.Name, d)
	m.look(i.Name)
	m.mu.Unlock()
	m.group.Go(func() { m.follow(ctx, d) })
	m.group.Go(func() { m.watchHealth(ctx, d) })
	if m.Came != nil {
		m.Came()
	}
	return m.save()
}

// Deregister implements plugin.Handler.
func (m *Manager) Deregister(i plugin.Info) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, was := m.drivers.Remove(i.Name, i.Said)
	if !was {
		return
	}
	d.stop()
	_ = d.conn.Close()
	m.look(i.Name)
}

// follow whether the driver is connected: one that is not may be gone for good.
func (m *Manager) follow(ctx context.Context, d *driver) {
	for state := d.conn.GetState(); state != connectivity.Shutdown; state = d.conn.GetState() {
		if state == connectivity.Idle {
			d.conn.Connect()
		}
		m.mu.Lock()
		if is := state == connectivity.Ready; is != d.ready {
			d.ready = is
			m.look(d.Name)
		}
		m.mu.Unlock()
		if !d.conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}

// look whether a driver is away, and begin or end to wait for it. The manager is locked.
func (m *Manager) look(name string) {
	here := slices.ContainsFunc(m.drivers.Of(name), func(d *driver) bool { return d.ready })
	if stop := m.away[name]; here && stop != nil {
		stop()
		delete(m.away, name)
	} else if !here && stop == nil {
		m.leave(name)
	}
}

// leave waits for a driver that is away; then it is told that it has left. The
// manager is locked, or nobody else has it yet.
func (m *Manager) leave(name string) {
	ctx, stop := context.WithCancel(m.ctx)
	m.away[name] = stop
	m.group.Go(func() {
		for wait := m.Grace; ; wait = min(2*wait, lastRetry) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			if m.Left == nil {
				break
			}
			err := m.Left(ctx, name)
			if err == nil {
				break
			}
			if ctx.Err() == nil {
				m.Log.Warn("ResourceSlices of a driver that is away are not deleted", "driver", name, "err", err)
			}
		}
		m.mu.Lock()
		if len(m.drivers.Of(name)) == 0 && ctx.Err() == nil {
			delete(m.known, name)
		}
		m.mu.Unlock()
		if err := m.save(); err != nil {
			m.Log.Warn("drivers not written down", "err", err)
		}
	})
}

// driver to call: the latest of its name, a connected one if there is any.
func (m *Manager) driver(name string) (*driver, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.drivers.Of(name)
	if len(list) == 0 {
		return nil, fmt.Errorf("DRA driver %s is not registered", name)
	}
	for _, d := range slices.Backward(list) {
		if d.ready {
			return d, nil
		}
	}
	return list[len(list)-1], nil
}

// await a driver for as long as ctx lasts.
func (m *Manager) await(ctx context.Context, name string) (*driver, error) {
	m.drivers.Await(ctx, name)
	return m.driver(name)
}
