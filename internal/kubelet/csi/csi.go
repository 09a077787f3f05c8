// Package csi is the node's side of volumes of CSI drivers: it tells the cluster
// which drivers the node has, and stages, publishes and grows volumes through them.
// What is mounted is written down beside it, as every kubelet writes it, so that it
// is taken away also after the kubelet was started anew.
package csi

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api/storage"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/kubelet/plugin"
)

// Config of a Manager.
type Config struct {
	Root   plugin.Root
	Node   string
	Conn   client.Conn
	Events *event.Recorder
	Log    *slog.Logger
	// Self is the Node object, nil if it is not known, and a channel that is closed
	// when it changes.
	Self   func() (*v1.Node, <-chan struct{})
	Secret func(namespace, name string) (*v1.Secret, error)
	Token  func(ctx context.Context, namespace, account string, r *authv1.TokenRequest) (*authv1.TokenRequest, error)
	// Used is told when InUse has changed.
	Used func()
	// Came is told when a driver has registered.
	Came func()
}

// Manager of a node's CSI drivers and their volumes.
type Manager struct {
	Config
	ctx     context.Context
	drivers plugin.Drivers[*driver]

	mu        sync.Mutex
	volumes   map[volumeID]*volume
	published map[publication]*mounted

	writing sync.Mutex // the node's CSINode and annotation
}

// New manager, which knows what is mounted on the node. What it does in the
// background ends with ctx.
func New(ctx context.Context, c Config) *Manager {
	m := &Manager{Config: c, ctx: ctx, volumes: map[volumeID]*volume{}, published: map[publication]*mounted{}}
	m.restore()
	m.mu.Lock() // the first may be gone before the last is looked at
	defer m.mu.Unlock()
	for _, v := range m.volumes {
		m.release(v)
	}
	return m
}

// Validate implements plugin.Handler.
func (m *Manager) Validate(i plugin.Info) error {
	if len(i.Versions) == 0 {
		return fmt.Errorf("kubernetes.io/csi: ValidatePlugin for CSI driver %q failed. Plugin returned an empty list for supported versions", i.Name)
	}
	if !slices.ContainsFunc(i.Versions, func(v string) bool { return strings.HasPrefix(strings.TrimPrefix(v, "v"), "1.") }) {
		return fmt.Errorf("kubernetes.io/csi: ValidatePlugin for CSI driver %q failed. None of the versions specified %q are supported; a driver has to speak version 1 of CSI", i.Name, i.Versions)
	}
	return nil
}

// Register implements plugin.Handler.
func (m *Manager) Register(ctx context.Context, i plugin.Info) error {
	d, err := m.dial(i)
	if err != nil {
		return err
	}
	info, err := d.info(ctx)
	if err == nil {
		err = m.install(ctx, info)
	}
	if err != nil {
		_ = d.conn.Close()
		return err
	}
	m.drivers.Add(i.Name, d)
	if m.Came != nil {
		m.Came()
	}
	return nil
}

// Deregister implements plugin.Handler. What the driver has mounted stays.
func (m *Manager) Deregister(i plugin.Info) {
	d, was := m.drivers.Remove(i.Name, i.Said)
	if !was {
		return
	}
	_ = d.conn.Close()
	if len(m.drivers.Of(i.Name)) > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(m.ctx, callTime)
	defer cancel()
	if err := m.uninstall(ctx, i.Name); err != nil {
		m.Log.Warn("CSI driver not taken off the node", "driver", i.Name, "err", err)
	}
}

// Again tells the cluster of the drivers once more: the Node object is another one.
func (m *Manager) Again(ctx context.Context) {
	for _, name := range m.drivers.Names() {
		d, err := m.driver(name)
		if err != nil {
			continue // it has gone
		}
		info, err := d.info(ctx)
		if err == nil {
			err = m.install(ctx, info)
		}
		if err != nil && ctx.Err() == nil {
			m.Log.Warn("CSI driver not told of", "driver", name, "err", err)
		}
	}
}

// driver that has registered under a name.
func (m *Manager) driver(name string) (*driver, error) {
	if list := m.drivers.Of(name); len(list) > 0 {
		return list[len(list)-1], nil
	}
	return nil, fmt.Errorf("driver name %s not found in the list of registered CSI drivers", name)
}

// await a driver for as long as ctx lasts.
func (m *Manager) await(ctx context.Context, name string) (*driver, error) {
	m.drivers.Await(ctx, name)
	return m.driver(name)
}

// InUse lists the volumes that the node uses and that have to stay attached, as
// status.volumesInUse of the node shows them.
func (m *Manager) InUse() []v1.UniqueVolumeName {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []v1.UniqueVolumeName
	for id, v := range m.volumes {
		if v.attach {
			list = append(list, id.Name())
		}
	}
	slices.Sort(list)
	return list
}

// volumeID names a volume: a disk, or one that a pod brings itself.
type volumeID = storage.Disk

// volume that pods of the node use.
type volume struct {
	id   volumeID
	lock plugin.Lock // who holds it may change what is below

	staging string            // where it is or may be staged, "" = it is not
	ready   bool              // it is staged
	record  string            // folder of the record about it, "" = none
	size    resource.Quantity // as the node knows it, zero = it does not

	// Guarded by the manager.
	block   bool
	attach  bool // it has to be attached to the node
	users   map[types.UID]bool
	leaving bool // it is being unstaged
}

// publication is one volume of one pod: name is that of the PersistentVolume or of
// the pod's inline volume.
type publication struct {
	pod  types.UID
	name string
}

// mounted is what is known about a publication.
type mounted struct {
	id     volumeID
	done   bool   // it is in place
	anew   bool   // it has to be published again from time to time
	grows  bool   // the driver can grow it while it is in use
	owned  bool   // its files belong to the pod's fsGroup
	before bool   // it was published once: what is there is in use
	device bool   // it is a block volume
	as     string // what the pod calls it
	claim  string // of the pod, "" = none
	usage  Usage  // as last asked for
	found  bool   // it was there when the kubelet came; of its driver nothing is known yet
}
