// Package gc deletes what nobody owns any more: objects whose owners are gone, as
// their owner references tell. It keeps no graph of its own: the cache indexes
// every kind by its owners' UIDs (index.Owners), and the watches say when to look.
package gc

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/index"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// Collector of garbage.
type Collector struct {
	conn  client.Conn
	queue *loop.Queue
	log   *slog.Logger

	mu      sync.Mutex
	waiting map[string]bool // keys of objects whose owner's kind is not served
	// owners are how many references to each UID the watches told of. Nearly all that is
	// deleted owns nothing and need not be asked for in every kind; a dependent that is
	// told of only later is looked at then.
	owners map[types.UID]int
}

// New collector; it watches every kind of the Conn's catalog.
func New(conn client.Conn, log *slog.Logger) *Collector {
	return &Collector{conn: conn, queue: loop.NewQueue("garbagecollector", log), log: log.With("controller", "garbagecollector"), waiting: map[string]bool{}, owners: map[types.UID]int{}}
}

// Run implements loop.Controller.
func (c *Collector) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { c.follow(ctx) })
	return c.queue.Run(ctx, 8, c.reconcile)
}

// follow watches every stored kind, and those that come later.
func (c *Collector) follow(ctx context.Context) {
	watched := map[*api.Kind]context.CancelFunc{}
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		changed := c.conn.Catalog().Changed()
		all := c.conn.Catalog().All()
		for k, stop := range watched {
			if !slices.Contains(all, k) {
				stop()
				delete(watched, k)
			}
		}
		for _, k := range all {
			if _, ok := watched[k]; ok || k.Virtual || !k.Does("watch") || !k.Does("delete") {
				continue
			}
			kctx, stop := context.WithCancel(ctx)
			watched[k] = stop
			wg.Go(func() { c.watch(kctx, k) })
		}
		c.mu.Lock()
		for key := range c.waiting {
			c.queue.Add(key)
		}
		clear(c.waiting)
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// later, once other kinds are served, an object is looked at again.
func (c *Collector) later(key string, r metav1.OwnerReference) {
	c.mu.Lock()
	c.waiting[key] = true
	c.mu.Unlock()
	if gv, err := schema.ParseGroupVersion(r.APIVersion); err == nil {
		if _, served := c.conn.Catalog().Kind(gv.WithKind(r.Kind)); served { // since a moment ago
			c.queue.Add(key)
		}
	}
}

func (c *Collector) watch(ctx context.Context, k *api.Kind) {
	events, err := c.conn.Watch(ctx, k, client.Scope{})
	if err != nil {
		if ctx.Err() == nil {
			c.log.Error("a kind is not watched, its garbage will stay", "kind", k.GroupVersionKind, "err", err)
		}
		return
	}
	defer events.Stop()
	for {
		batch, err := events.Next(ctx)
		if err != nil {
			return
		}
		for _, e := range batch {
			c.changed(ctx, k, e)
		}
	}
}

// changed decides who is to be looked at after a change.
func (c *Collector) changed(ctx context.Context, k *api.Kind, e client.Event) {
	c.count(e.Old, -1)
	c.count(e.New, +1)
	if e.New == nil {
		c.queue.Add(keyOf(k, e.Old)) // its dependents are looked at then
		c.wakeOwners(ctx, e.Old)
		return
	}
	now := e.New
	moved := e.Old == nil || !sameOwners(e.Old, now)
	switch {
	case foreground(now) || orphaning(now):
		c.queue.Add(keyOf(k, now))
	case len(now.GetOwnerReferences()) > 0 && moved:
		c.queue.Add(keyOf(k, now))
	}
	if e.Old != nil && moved {
		c.wakeOwners(ctx, e.Old) // one of them may have waited for this dependent
	}
}

// count the references of an object (nil = none).
func (c *Collector) count(obj api.Object, by int) {
	if obj == nil || len(obj.GetOwnerReferences()) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range obj.GetOwnerReferences() {
		if c.owners[r.UID] += by; c.owners[r.UID] == 0 {
			delete(c.owners, r.UID)
		}
	}
}

// owns says whether an object has dependents that the watches told of.
func (c *Collector) owns(uid types.UID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.owners[uid] > 0
}

func sameOwners(a, b api.Object) bool {
	return slices.EqualFunc(a.GetOwnerReferences(), b.GetOwnerReferences(), func(x, y metav1.OwnerReference) bool {
		return x.UID == y.UID && (x.BlockOwnerDeletion != nil && *x.BlockOwnerDeletion) == (y.BlockOwnerDeletion != nil && *y.BlockOwnerDeletion)
	})
}

// wakeOwners that wait for their dependents to be gone.
func (c *Collector) wakeOwners(ctx context.Context, obj api.Object) {
	for _, r := range obj.GetOwnerReferences() {
		k, o, err := c.owner(ctx, obj.GetNamespace(), r)
		switch {
		case o != nil && foreground(o):
			c.queue.Add(keyOf(k, o))
		case err != nil && k != nil: // it may be
			namespace := obj.GetNamespace()
			if k.Cluster {
				namespace = ""
			}
			c.queue.Add(key(k, namespace, r.Name, r.UID))
		}
	}
}

// eachDependent of an object, of every kind. After an error some are missing.
func (c *Collector) eachDependent(ctx context.Context, namespace string, uid types.UID, f func(*api.Kind, api.Object)) error {
	for _, k := range c.conn.Catalog().All() {
		if k.Virtual || k.Indexes[index.Owners] == nil {
			continue
		}
		list, _, err := c.conn.List(ctx, k, "", client.ListOptions{Index: index.Owners, Value: string(uid)})
		if err != nil && !apierrors.IsNotFound(err) { // a kind that has just gone has none
			return err
		}
		for _, d := range list {
			if namespace == "" || namespace == d.GetNamespace() {
				f(k, d)
			}
		}
	}
	return nil
}

var errNotServed = errors.New("it is not served")

// owner that a reference leads to; nil if there is none. The kind is known unless
// it is not served (errNotServed).
func (c *Collector) owner(ctx context.Context, namespace string, r metav1.OwnerReference) (*api.Kind, api.Object, error) {
	gv, err := schema.ParseGroupVersion(r.APIVersion)
	if err != nil {
		return nil, nil, nil
	}
	served, ok := c.conn.Catalog().Kind(gv.WithKind(r.Kind))
	if !ok {
		return nil, nil, fmt.Errorf("%s %s: %w", r.APIVersion, r.Kind, errNotServed)
	}
	if served.Cluster {
		namespace = ""
	} else if namespace == "" {
		return served.Kind, nil, nil // what belongs to no namespace cannot be owned from within one
	}
	obj, err := c.conn.Get(ctx, served.Kind, namespace, r.Name)
	switch {
	case apierrors.IsNotFound(err):
		return served.Kind, nil, nil
	case err != nil:
		return served.Kind, nil, err
	case obj.GetUID() != r.UID:
		return served.Kind, nil, nil
	}
	return served.Kind, obj, nil
}

// keyOf an object: group, kind, namespace, name and UID, so that another object
// of the same name is not mistaken for it.
func keyOf(k *api.Kind, obj api.Object) string {
	return key(k, obj.GetNamespace(), obj.GetName(), obj.GetUID())
}

func key(k *api.Kind, namespace, name string, uid types.UID) string {
	return strings.Join([]string{k.Group, k.Resource, namespace, name, string(uid)}, "|")
}

func (c *Collector) reconcile(ctx context.Context, key string) (time.Duration, error) {
	part := strings.Split(key, "|")
	var k *api.Kind
	for _, one := range c.conn.Catalog().All() {
		if one.Group == part[0] && one.Resource == part[1] {
			k = one
		}
	}
	var obj api.Object
	if k != nil {
		var err error
		if obj, err = c.conn.Get(ctx, k, part[2], part[3]); err != nil && !apierrors.IsNotFound(err) {
			return 0, err
		}
	}
	if obj == nil || string(obj.GetUID()) != part[4] { // it is gone: so may be what it owned
		uid := types.UID(part[4])
		if !c.owns(uid) {
			return 0, nil
		}
		return 0, c.eachDependent(ctx, part[2], uid, func(dk *api.Kind, d api.Object) { c.queue.Add(keyOf(dk, d)) })
	}
	if orphaning(obj) {
		return 0, c.orphan(ctx, k, obj)
	}
	if foreground(obj) {
		if err := c.waitForDependents(ctx, k, obj); err != nil {
			return 0, err
		}
	}
	return 0, c.examine(ctx, k, obj)
}

// examine whether an object still has an owner.
func (c *Collector) examine(ctx context.Context, k *api.Kind, obj api.Object) error {
	owners := map[types.UID]owner{}
	wait := false
	var failure error
	for _, r := range obj.GetOwnerReferences() {
		_, o, err := c.owner(ctx, obj.GetNamespace(), r)
		switch {
		case errors.Is(err, errNotServed):
			owners[r.UID] = unknown
			c.later(keyOf(k, obj), r)
		case err != nil:
			owners[r.UID], failure = unknown, err
		case o == nil:
			owners[r.UID] = absent
		case foreground(o):
			owners[r.UID], wait = waiting, true
		default:
			owners[r.UID] = present
		}
	}
	block, circle := false, false
	if wait && failure == nil {
		failure = c.eachDependent(ctx, obj.GetNamespace(), obj.GetUID(), func(_ *api.Kind, d api.Object) {
			block = block || blocks(d, obj.GetUID())
			circle = circle || foreground(d)
		})
	}
	if failure != nil {
		return failure
	}
	if circle { // a dependent waits for this object, which waits for its owner in turn: somebody has to begin
		fresh, err := c.unblock(ctx, k, obj)
		if err != nil || fresh == nil {
			return err
		}
		obj = fresh
	}
	v := judge(obj, owners, block)
	switch {
	case len(v.drop) > 0:
		return c.dropOwners(ctx, k, obj, v.drop)
	case v.delete:
		uid, rv := obj.GetUID(), obj.GetResourceVersion()
		err := c.conn.Delete(ctx, k, obj.GetNamespace(), obj.GetName(), metav1.DeleteOptions{
			PropagationPolicy: &v.policy, Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &rv},
		})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	return nil
}

// unblock lets the owners of an object go before it. It returns the object as it
// is then, nil if it is gone.
func (c *Collector) unblock(ctx context.Context, k *api.Kind, obj api.Object) (api.Object, error) {
	refs := slices.Clone(obj.GetOwnerReferences())
	changed := false
	for i := range refs {
		if refs[i].BlockOwnerDeletion != nil && *refs[i].BlockOwnerDeletion {
			no := false
			refs[i].BlockOwnerDeletion, changed = &no, true
		}
	}
	if changed {
		if err := c.patch(ctx, k, obj, "ownerReferences", refs); err != nil {
			return nil, err
		}
	}
	fresh, err := c.conn.Get(ctx, k, obj.GetNamespace(), obj.GetName())
	if apierrors.IsNotFound(err) || err == nil && fresh.GetUID() != obj.GetUID() {
		return nil, nil
	}
	return fresh, err
}

// waitForDependents deletes the dependents of an object that is to go last, and
// lets it go once none is left that blocks it.
func (c *Collector) waitForDependents(ctx context.Context, k *api.Kind, obj api.Object) error {
	blocked := false
	err := c.eachDependent(ctx, obj.GetNamespace(), obj.GetUID(), func(dk *api.Kind, d api.Object) {
		blocked = blocked || blocks(d, obj.GetUID())
		if d.GetDeletionTimestamp() == nil {
			c.queue.Add(keyOf(dk, d))
		}
	})
	if blocked || err != nil {
		return err
	}
	return c.dropFinalizer(ctx, k, obj, metav1.FinalizerDeleteDependents)
}

// orphan an object's dependents, then let it go.
func (c *Collector) orphan(ctx context.Context, k *api.Kind, obj api.Object) error {
	var first error
	err := c.eachDependent(ctx, obj.GetNamespace(), obj.GetUID(), func(dk *api.Kind, d api.Object) {
		if err := c.dropOwners(ctx, dk, d, []types.UID{obj.GetUID()}); err != nil && first == nil {
			first = err
		}
	})
	if err := cmp.Or(first, err); err != nil {
		return err
	}
	return c.dropFinalizer(ctx, k, obj, metav1.FinalizerOrphanDependents)
}

func (c *Collector) dropOwners(ctx context.Context, k *api.Kind, obj api.Object, gone []types.UID) error {
	left := slices.DeleteFunc(slices.Clone(obj.GetOwnerReferences()), func(r metav1.OwnerReference) bool { return slices.Contains(gone, r.UID) })
	if left == nil {
		left = []metav1.OwnerReference{}
	}
	return c.patch(ctx, k, obj, "ownerReferences", left)
}

func (c *Collector) dropFinalizer(ctx context.Context, k *api.Kind, obj api.Object, name string) error {
	left := slices.DeleteFunc(slices.Clone(obj.GetFinalizers()), func(f string) bool { return f == name })
	if left == nil {
		left = []string{}
	}
	return c.patch(ctx, k, obj, "finalizers", left)
}

// patch one list of the metadata, as it was read: a Conflict means look again.
func (c *Collector) patch(ctx context.Context, k *api.Kind, obj api.Object, name string, list any) error {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": obj.GetUID(), "resourceVersion": obj.GetResourceVersion(), name: list}})
	if err != nil {
		return err
	}
	_, err = c.conn.Patch(ctx, k, obj.GetNamespace(), obj.GetName(), client.Patch{Type: types.MergePatchType, Data: data}, client.WriteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
