// Package storagemigration writes every object of a resource again, as it is, when
// a StorageVersionMigration asks for it (KEP-4192): what is stored is then in the
// version, and encrypted with the key, that the server writes with now. Once that
// is so for a custom resource its definition names no other stored version.
package storagemigration

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	migrationv1beta1 "k8s.io/api/storagemigration/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/owned"
)

// manager that the writes are made by: it owns no field, for it changes none.
const manager = "storage-version-migrator-controller"

// Controller of migrations. Its keys are resources, "RESOURCE.GROUP".
type Controller struct {
	queue       *loop.Queue
	in          *client.Informer[*migration]
	migrations  client.Client[*migration]
	definitions client.Client[*definition]
	now         func() time.Time
}

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		queue:       loop.NewQueue("storagemigration", log),
		in:          client.Shared[*migration](in, client.Scope{}),
		migrations:  client.For[*migration](in.Conn()),
		definitions: client.For[*definition](in.Conn()),
		now:         time.Now,
	}
	c.in.OnChange(func(old, now *migration) {
		c.queue.Add(cmp.Or(now, old).Spec.Resource.String())
	})
	return c
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.follow(ctx) })
	return c.queue.Run(ctx, 2, c.reconcile, c.in.Synced())
}

// follow what is served: a migration may wait for it.
func (c *Controller) follow(ctx context.Context) {
	for {
		changed := c.migrations.Conn().Catalog().Changed()
		for _, m := range c.in.List("", nil) {
			if !over(m) {
				c.queue.Add(m.Spec.Resource.String())
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	of := schema.ParseGroupResource(key)
	list, err := c.migrations.List(ctx, "", client.ListOptions{})
	if err != nil {
		return 0, err
	}
	var mine []*migration
	for _, m := range list {
		if m.Spec.Resource == metav1.GroupResource(of) && m.DeletionTimestamp == nil {
			mine = append(mine, m)
		}
	}
	p := decide(mine)
	for _, m := range p.ended {
		if err := c.end(ctx, m); err != nil {
			return 0, loop.IgnoreNotFound(err)
		}
	}
	if p.run == nil {
		return 0, nil
	}
	again, err := c.run(ctx, p.run)
	return again, loop.IgnoreNotFound(err)
}

// end says, of a migration that is over, that it runs no longer.
func (c *Controller) end(ctx context.Context, m *migration) error {
	d, err := c.definition(ctx, m)
	if err != nil {
		return err
	}
	if d != nil {
		if out := migrated(d, is(m, migrationv1beta1.MigrationSucceeded), metav1.NewTime(c.now())); out != nil {
			if _, err := c.definitions.UpdateStatus(ctx, out); err != nil {
				return err
			}
		}
	}
	_, err = c.migrations.UpdateStatus(ctx, stopped(m))
	return err
}

// definition of the resource that a migration is about, nil = it is built in.
func (c *Controller) definition(ctx context.Context, m *migration) (*definition, error) {
	d, err := c.definitions.Get(ctx, "", m.Spec.Resource.String())
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return d, err
}

// run a migration, from where it is.
func (c *Controller) run(ctx context.Context, m *migration) (again time.Duration, err error) {
	now := metav1.NewTime(c.now())
	d, err := c.definition(ctx, m)
	if err != nil {
		return 0, err
	}
	if d != nil {
		if out := migrating(d, m.Name, now); out != nil {
			if d, err = c.definitions.UpdateStatus(ctx, out); err != nil {
				return 0, err
			}
		}
	}
	if !is(m, migrationv1beta1.MigrationRunning) {
		if m, err = c.migrations.UpdateStatus(ctx, with(m, migrationv1beta1.MigrationRunning, "MigrationRunning", "The migration is running", now)); err != nil {
			return 0, err
		}
	}
	k := c.kind(m)
	switch why, wait := unfit(m, k, now.Time); {
	case why != "":
		return 0, c.fail(ctx, m, why)
	case wait > 0:
		return wait, nil
	case d != nil && storageVersion(d) != k.Version:
		return 0, nil // it would be written as it is; follow tells when it is served as its definition says
	}
	all, revision, err := c.migrations.Conn().List(ctx, k, "", client.ListOptions{})
	if err != nil {
		return 0, err
	}
	if m.Status.ResourceVersion == "" {
		out := m.DeepCopy()
		out.Status.ResourceVersion = revision
		if m, err = c.migrations.UpdateStatus(ctx, out); err != nil {
			return 0, err
		}
	}
	if err := c.rewrite(ctx, k, all, m.Status.ResourceVersion); err != nil {
		if passing(err) {
			return 0, err
		}
		return 0, c.fail(ctx, m, fmt.Sprintf("migration encountered unhandled error: %s", err))
	}
	_, err = c.migrations.UpdateStatus(ctx, with(m, migrationv1beta1.MigrationSucceeded, "StorageVersionMigrationSucceeded", "", metav1.NewTime(c.now())))
	return 0, err // its change brings it to its end
}

func (c *Controller) fail(ctx context.Context, m *migration, why string) error {
	_, err := c.migrations.UpdateStatus(ctx, with(m, migrationv1beta1.MigrationFailed, "StorageVersionMigrationFailed", why, metav1.NewTime(c.now())))
	return err
}

// kind of the resource, in the version in which it is stored now; nil = there is none.
func (c *Controller) kind(m *migration) *api.Kind {
	for _, k := range c.migrations.Conn().Catalog().All() {
		if k.GroupResource() == (schema.GroupResource{Group: m.Spec.Resource.Group, Resource: m.Spec.Resource.Resource}) {
			return k
		}
	}
	return nil
}

// rewrite those of all objects that were last written before a revision or at it.
// Whatever is changed or deleted meanwhile needs nothing more. What fails in passing
// is tried again, as long as others succeed.
func (c *Controller) rewrite(ctx context.Context, k *api.Kind, all []api.Object, until string) error {
	for {
		var mu sync.Mutex
		var left []api.Object
		var last error // that does not pass
		err := owned.Each(len(all), func(i int) error {
			err := c.write(ctx, k, all[i], until)
			if err == nil {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if passing(err) {
				left = append(left, all[i])
			} else {
				last = err
			}
			return err
		})
		switch {
		case last != nil:
			return last
		case len(left) == 0, len(left) == len(all):
			return err
		}
		all = left
	}
}

// write an object as it is.
func (c *Controller) write(ctx context.Context, k *api.Kind, o api.Object, until string) error {
	if later, err := resourceversion.CompareResourceVersion(o.GetResourceVersion(), until); err != nil || later > 0 {
		return err
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": o.GetUID(), "resourceVersion": o.GetResourceVersion()}})
	if err != nil {
		return err
	}
	_, err = c.migrations.Conn().Patch(ctx, k, o.GetNamespace(), o.GetName(), client.Patch{Type: types.MergePatchType, Data: patch}, client.WriteOptions{Manager: manager})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// passing: what may go well another time.
func passing(err error) bool {
	if apierrors.ReasonForError(err) == metav1.StatusReasonUnknown { // no answer of the server's: of the way there
		return true
	}
	return apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) || apierrors.IsTimeout(err) || apierrors.IsNotFound(err)
}
