// Package dra prepares what ResourceClaims have allocated to pods of this node: it
// calls the drivers before a pod's sandbox is made and after its containers have
// ended, and knows which CDI devices its containers get. What is prepared is written
// down, so that a kubelet that comes later knows it, too (KEP-4381).
package dra

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	wire "k8s.io/kubelet/pkg/apis/dra/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/kubelet/plugin"
)

// Config of a Manager.
type Config struct {
	Root plugin.Root
	Conn client.Conn
	Log  *slog.Logger
	// Came is told when a driver has registered.
	Came func()
	// Left is told when a driver has stayed away for the grace period: what it has
	// published about the node is not true any more. nil = nobody wants to know.
	Left func(ctx context.Context, driver string) error
	// Sick is told which pods have devices whose health has changed, nil = nobody is.
	Sick func(pods []types.UID)
	// Grace is for how long a driver may stay away, 0 = 30 seconds.
	Grace time.Duration
}

// Manager of the node's DRA drivers and of the claims that are prepared.
type Manager struct {
	Config
	ctx   context.Context
	boot  string         // of the machine, by its id
	group sync.WaitGroup // what goes on in the background

	mu      sync.Mutex
	drivers plugin.Drivers[*driver]
	known   map[string]bool // drivers that have registered and whose time has not run out
	claims  map[key]*claim
	away    map[string]context.CancelFunc // drivers that are waited for
	health  map[string]map[string]health  // by driver, by pool/device
	saved   plugin.Checkpoint
}

// key of a claim: namespace and name.
type key struct{ namespace, name string }

// New manager, which knows what is prepared.
func New(ctx context.Context, c Config) (*Manager, error) {
	if c.Grace == 0 {
		c.Grace = 30 * time.Second
	}
	m := &Manager{
		Config: c, ctx: ctx, boot: boot(), known: map[string]bool{}, claims: map[key]*claim{},
		health: map[string]map[string]health{}, away: map[string]context.CancelFunc{}, saved: plugin.Checkpoint{Path: c.Root.Join(file)},
	}
	return m, m.load()
}

// wanted is a claim that a pod is to get.
type wanted struct {
	key     key
	uid     types.UID
	drivers []string
}

// Prepare what the claims of a pod have allocated. It may be called again at any
// time; what is prepared is not prepared again.
func (m *Manager) Prepare(ctx context.Context, p *v1.Pod) error {
	if !Uses(p) {
		return nil
	}
	if err := m.prepare(ctx, p); err != nil {
		return &Error{err}
	}
	return nil
}

// Error of preparing, in upstream's words.
type Error struct{ Err error }

func (e *Error) Error() string { return "prepare dynamic resources: " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

func (m *Manager) prepare(ctx context.Context, p *v1.Pod) error {
	names, err := claimsOf(p)
	if err != nil {
		return err
	}
	var list []wanted
	for _, n := range names {
		w, err := m.wanted(ctx, p, n)
		if err != nil {
			return err
		}
		list = append(list, w)
	}
	open, unlock, err := m.hold(ctx, p.UID, list)
	if err != nil {
		return err
	}
	defer unlock()
	for name, claims := range byDriver(open) {
		if err := m.call(ctx, name, claims); err != nil {
			return err
		}
	}
	m.mu.Lock()
	for _, c := range open {
		c.Prepared = true
	}
	m.mu.Unlock()
	return m.save()
}

// wanted reads a claim and checks that the pod may use it and that its drivers are there.
func (m *Manager) wanted(ctx context.Context, p *v1.Pod, n named) (wanted, error) {
	c, err := client.For[*resourcev1.ResourceClaim](m.Conn).Get(ctx, p.Namespace, n.name)
	if err != nil {
		return wanted{}, fmt.Errorf("fetch ResourceClaim %s: %w", n.name, err)
	}
	if err := allowed(p, c, n.owned); err != nil {
		return wanted{}, err
	}
	w := wanted{key: key{c.Namespace, c.Name}, uid: c.UID}
	for _, r := range c.Status.Allocation.Devices.Results {
		if slices.Contains(w.drivers, r.Driver) {
			continue
		}
		w.drivers = append(w.drivers, r.Driver)
		if _, err := m.driver(r.Driver); err != nil {
			return wanted{}, err
		}
	}
	return w, nil
}

// hold the claims of a pod for it, and lock those that are not prepared yet until
// unlock is called.
func (m *Manager) hold(ctx context.Context, pod types.UID, list []wanted) (open []*claim, unlock func(), err error) {
	var locked []*claim
	unlock = func() {
		for _, c := range locked {
			c.lock.Free()
		}
	}
	slices.SortFunc(list, func(a, b wanted) int { return compare(a.key, b.key) })
	for _, w := range list {
		c, err := m.enter(pod, w)
		if err == nil {
			err = c.lock.Take(ctx)
		}
		if err != nil {
			unlock()
			return nil, nil, err
		}
		locked = append(locked, c)
		if !c.Prepared {
			open = append(open, c)
		}
	}
	if err := m.save(); err != nil {
		unlock()
		return nil, nil, err
	}
	return open, unlock, nil
}

// enter a pod as a user of a claim.
func (m *Manager) enter(pod types.UID, w wanted) (*claim, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.claims[w.key]
	if c == nil {
		c = newClaim()
		c.UID, c.Namespace, c.Name = w.uid, w.key.namespace, w.key.name
		for _, d := range w.drivers {
			c.Drivers[d] = nil
		}
		m.claims[w.key] = c
	}
	if c.UID != w.uid {
		return nil, fmt.Errorf("old ResourceClaim with same name %s and different UID %s still exists (previous pod force-deleted?!)", c.Name, c.UID)
	}
	if !slices.Contains(c.Pods, pod) {
		c.Pods = append(c.Pods, pod)
	}
	return c, nil
}

func byDriver(claims []*claim) map[string][]*claim {
	all := map[string][]*claim{}
	for _, c := range claims {
		for d := range c.Drivers {
			all[d] = append(all[d], c)
		}
	}
	return all
}

// call a driver to prepare claims, which are locked.
func (m *Manager) call(ctx context.Context, name string, claims []*claim) error {
	d, err := m.driver(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	r, err := d.prepare(ctx, &wire.NodePrepareResourcesRequest{Claims: requests(claims)})
	if err != nil {
		return fmt.Errorf("NodePrepareResources: %w", err)
	}
	for _, c := range claims {
		got, ok := r.Claims[string(c.UID)]
		switch {
		case !ok:
			return fmt.Errorf("NodePrepareResources skipped ResourceClaim %s", c.Name)
		case got.GetError() != "":
			return fmt.Errorf("NodePrepareResources failed for ResourceClaim %s: %s", c.Name, got.Error)
		}
		var devices []Device
		for _, x := range got.GetDevices() {
			devices = append(devices, Device{Pool: x.PoolName, Name: x.DeviceName, Share: x.ShareId, Requests: x.RequestNames, CDI: x.CdiDeviceIds})
		}
		m.mu.Lock()
		c.Drivers[name] = devices
		m.mu.Unlock()
	}
	return nil
}

func requests(claims []*claim) (list []*wire.Claim) {
	for _, c := range claims {
		list = append(list, &wire.Claim{Namespace: c.Namespace, Uid: string(c.UID), Name: c.Name})
	}
	return list
}

// Unprepare what only a pod that has ended still held.
func (m *Manager) Unprepare(ctx context.Context, pod types.UID) error {
	m.mu.Lock()
	var list []*claim
	for _, c := range m.claims {
		if slices.Contains(c.Pods, pod) {
			list = append(list, c)
		}
	}
	m.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, func(a, b *claim) int { return compare(a.key(), b.key()) })
	var last []*claim
	for _, c := range list {
		if err := c.lock.Take(ctx); err != nil {
			return err
		}
		defer c.lock.Free()
		m.mu.Lock()
		if len(c.Pods) == 1 {
			last = append(last, c)
		} else {
			c.Pods = slices.DeleteFunc(c.Pods, func(u types.UID) bool { return u == pod })
		}
		m.mu.Unlock()
	}
	for name, claims := range byDriver(last) {
		if err := m.callBack(ctx, name, claims); err != nil {
			return fmt.Errorf("unprepare dynamic resources: %w", err)
		}
	}
	m.mu.Lock()
	for _, c := range last {
		if c.Pods = slices.DeleteFunc(c.Pods, func(u types.UID) bool { return u == pod }); len(c.Pods) == 0 {
			delete(m.claims, c.key())
		} else { // another has come meanwhile, and waits
			c.Prepared = false
		}
	}
	m.mu.Unlock()
	return m.save()
}

func (m *Manager) callBack(ctx context.Context, name string, claims []*claim) error {
	patience, cancel := context.WithTimeout(ctx, driverPatience)
	defer cancel()
	d, err := m.await(patience, name)
	if err != nil {
		return err
	}
	ctx, cancel = context.WithTimeout(ctx, callTime)
	defer cancel()
	r, err := d.unprepare(ctx, &wire.NodeUnprepareResourcesRequest{Claims: requests(claims)})
	if err != nil {
		return fmt.Errorf("NodeUnprepareResources: %w", err)
	}
	for _, c := range claims {
		got, ok := r.Claims[string(c.UID)]
		switch {
		case !ok:
			return fmt.Errorf("NodeUnprepareResources skipped ResourceClaim %s", c.Name)
		case got.GetError() != "":
			return fmt.Errorf("NodeUnprepareResources failed for ResourceClaim %s: %s", c.Name, got.Error)
		}
	}
	return nil
}

// Devices that a container gets, by their CDI names.
func (m *Manager) Devices(p *v1.Pod, c *v1.Container) ([]*cri.CDIDevice, error) {
	if !Uses(p) {
		return nil, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*cri.CDIDevice
	for _, want := range requested(p, c) {
		have := m.claims[key{p.Namespace, want.claim}]
		if have == nil {
			return nil, fmt.Errorf("ResourceClaim %s of namespace %s is not prepared on this node", want.claim, p.Namespace)
		}
		for _, name := range slices.Sorted(maps.Keys(have.Drivers)) {
			for _, d := range have.Drivers[name] {
				if !d.serves(want.request) {
					continue
				}
				for _, id := range d.CDI {
					if !slices.ContainsFunc(list, func(x *cri.CDIDevice) bool { return x.Name == id }) {
						list = append(list, &cri.CDIDevice{Name: id})
					}
				}
			}
		}
	}
	return list, nil
}
