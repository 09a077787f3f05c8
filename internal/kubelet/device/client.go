package device

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	wire "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/proa-dev/proa/internal/kubelet/plugin"
)

const callTime = 30 * time.Second

// client of one plugin.
type client struct {
	wire.DevicePluginClient
	socket  string
	conn    *grpc.ClientConn
	stop    context.CancelFunc
	options *wire.DevicePluginOptions
}

func (c *client) close() {
	c.stop()
	_ = c.conn.Close()
}

// folder of the sockets of plugins and of the kubelet's own.
const folder = "device-plugins"

// Serve the socket at which plugins register, until ctx ends.
func (m *Manager) Serve(ctx context.Context) error {
	dir := m.Root.Join(folder)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("kubelet: %w", err)
	}
	path := filepath.Join(dir, "kubelet.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kubelet: %w", err)
	}
	l, err := plugin.Listen(path)
	if err != nil {
		return fmt.Errorf("kubelet: socket of device plugins: %w", err)
	}
	return m.serve(ctx, l)
}

func (m *Manager) serve(ctx context.Context, l net.Listener) error {
	s := grpc.NewServer()
	wire.RegisterRegistrationServer(s, &registration{m: m})
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	defer m.group.Wait()
	if err := s.Serve(l); err != nil && ctx.Err() == nil {
		return err
	}
	return ctx.Err()
}

// registration is what plugins call.
type registration struct {
	wire.UnimplementedRegistrationServer
	m *Manager
}

// Register implements the plugins' interface.
func (r *registration) Register(_ context.Context, q *wire.RegisterRequest) (*wire.Empty, error) {
	if q.Version != wire.Version {
		return nil, fmt.Errorf("requested API version %q is not supported by kubelet. Supported version is %q", q.Version, wire.Version)
	}
	if err := checkName(q.ResourceName); err != nil {
		return nil, err
	}
	if q.Endpoint == "" || q.Endpoint != filepath.Base(q.Endpoint) {
		return nil, fmt.Errorf("the endpoint %q is not the name of a socket beside the kubelet's", q.Endpoint)
	}
	return &wire.Empty{}, r.m.follow(q.ResourceName, r.m.Root.Join(folder, q.Endpoint), q.Options)
}

func checkName(name string) error {
	domain, rest, ok := strings.Cut(name, "/")
	if !ok || domain == "" || rest == "" || domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io") || strings.HasPrefix(name, "requests.") {
		return fmt.Errorf("the ResourceName %q is invalid: it has to be of the form domain/name, and the domain not one of Kubernetes", name)
	}
	return nil
}

// Validate implements plugin.Handler.
func (m *Manager) Validate(i plugin.Info) error {
	if !slices.Contains(i.Versions, wire.Version) {
		return fmt.Errorf("device plugin registration failed: versions %q are not supported by kubelet. Supported version is %q", i.Versions, wire.Version)
	}
	return checkName(i.Name)
}

// Register implements plugin.Handler.
func (m *Manager) Register(_ context.Context, i plugin.Info) error {
	return m.follow(i.Name, i.Endpoint, nil)
}

// Deregister implements plugin.Handler. Another may have taken over meanwhile.
func (m *Manager) Deregister(i plugin.Info) {
	m.mu.Lock()
	r := m.resources[i.Name]
	var c *client
	if r != nil {
		c = r.plugin
	}
	m.mu.Unlock()
	if c != nil && c.socket == i.Endpoint {
		c.close()
	}
}

// follow the devices of a plugin for as long as it is there.
func (m *Manager) follow(name, socket string, options *wire.DevicePluginOptions) error {
	conn, err := plugin.Dial(socket, grpc.WithIdleTimeout(0))
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(m.ctx)
	c := &client{DevicePluginClient: wire.NewDevicePluginClient(conn), socket: socket, conn: conn, stop: stop, options: options}
	m.group.Go(func() {
		defer c.close()
		if c.options == nil {
			first, cancel := context.WithTimeout(ctx, callTime)
			c.options, err = c.GetDevicePluginOptions(first, &wire.Empty{}, grpc.WaitForReady(true))
			cancel()
			if err != nil {
				m.Log.Warn("device plugin does not tell its options", "resource", name, "err", err)
			}
		}
		m.came(name, c)
		defer m.left(name, c)
		stream, err := c.ListAndWatch(ctx, &wire.Empty{}, grpc.WaitForReady(true))
		for err == nil {
			var r *wire.ListAndWatchResponse
			if r, err = stream.Recv(); err == nil {
				m.listed(name, c, r.Devices)
			}
		}
		if ctx.Err() == nil {
			m.Log.Info("device plugin gone", "resource", name, "err", err)
		}
	})
	return nil
}
