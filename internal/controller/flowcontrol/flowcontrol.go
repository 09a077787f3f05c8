// Package flowcontrol keeps the flow schemas and priority levels that every
// cluster has, and says of each schema whether its level is there.
package flowcontrol

import (
	"context"
	"log/slog"
	"strings"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/proa-dev/proa/internal/api/flowcontrol"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// Keys on the queue are the kind and the name.
const (
	levelKey  = "level/"
	schemaKey = "schema/"
)

// Controller of both kinds.
type Controller struct {
	queue   *loop.Queue
	schemas *client.Informer[*flowcontrolv1.FlowSchema]
	levels  *client.Informer[*flowcontrolv1.PriorityLevelConfiguration]

	writeSchema client.Client[*flowcontrolv1.FlowSchema]
	writeLevel  client.Client[*flowcontrolv1.PriorityLevelConfiguration]
	wantSchema  map[string]*flowcontrolv1.FlowSchema
	wantLevel   map[string]*flowcontrolv1.PriorityLevelConfiguration
}

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		queue:       loop.NewQueue("flowcontrol", log),
		schemas:     client.Shared[*flowcontrolv1.FlowSchema](in, client.Scope{}),
		levels:      client.Shared[*flowcontrolv1.PriorityLevelConfiguration](in, client.Scope{}),
		writeSchema: client.For[*flowcontrolv1.FlowSchema](in.Conn()),
		writeLevel:  client.For[*flowcontrolv1.PriorityLevelConfiguration](in.Conn()),
		wantSchema:  map[string]*flowcontrolv1.FlowSchema{},
		wantLevel:   map[string]*flowcontrolv1.PriorityLevelConfiguration{},
	}
	for _, l := range flowcontrol.Levels() {
		c.wantLevel[l.Name] = l
		c.queue.Add(levelKey + l.Name)
	}
	for _, f := range flowcontrol.Schemas() {
		c.wantSchema[f.Name] = f
		c.queue.Add(schemaKey + f.Name)
	}
	c.schemas.OnChange(func(old, now *flowcontrolv1.FlowSchema) { c.queue.Add(schemaKey + either(old, now).Name) })
	c.levels.OnChange(func(old, now *flowcontrolv1.PriorityLevelConfiguration) {
		name := either(old, now).Name
		c.queue.Add(levelKey + name)
		if old != nil && now != nil {
			return // it is there as it was
		}
		for _, f := range c.schemas.List("", nil) {
			if f.Spec.PriorityLevelConfiguration.Name == name {
				c.queue.Add(schemaKey + f.Name)
			}
		}
	})
	return c
}

func either[T any](old, now *T) *T {
	if now != nil {
		return now
	}
	return old
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	return c.queue.Run(ctx, 1, c.reconcile, c.schemas.Synced(), c.levels.Synced())
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	var err error
	if name, ok := strings.CutPrefix(key, levelKey); ok {
		err = c.level(ctx, name)
	} else {
		err = c.schema(ctx, strings.TrimPrefix(key, schemaKey))
	}
	if apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err) {
		return 0, nil // the change wakes us
	}
	return 0, err
}

func (c *Controller) level(ctx context.Context, name string) error {
	want := c.wantLevel[name]
	if want == nil {
		return nil
	}
	have, ok := c.levels.Get("", name)
	if !ok {
		_, err := c.writeLevel.Create(ctx, want.DeepCopy())
		return err
	}
	notes, spec := correct(&have.ObjectMeta, &have.Spec, &want.Spec)
	if notes == nil && !spec {
		return nil
	}
	out := have.DeepCopy()
	if notes != nil {
		out.Annotations = notes
	}
	if spec {
		out.Spec = *want.Spec.DeepCopy()
	}
	_, err := c.writeLevel.Update(ctx, out)
	return err
}

func (c *Controller) schema(ctx context.Context, name string) error {
	have, ok := c.schemas.Get("", name)
	if want := c.wantSchema[name]; want != nil {
		if !ok {
			_, err := c.writeSchema.Create(ctx, want.DeepCopy())
			return err
		}
		if notes, spec := correct(&have.ObjectMeta, &have.Spec, &want.Spec); notes != nil || spec {
			out := have.DeepCopy()
			if notes != nil {
				out.Annotations = notes
			}
			if spec {
				out.Spec = *want.Spec.DeepCopy()
			}
			_, err := c.writeSchema.Update(ctx, out)
			return err
		}
	}
	if !ok || have.DeletionTimestamp != nil {
		return nil
	}
	_, there := c.levels.Get("", have.Spec.PriorityLevelConfiguration.Name)
	if out := dangling(have, there, time.Now()); out != nil {
		_, err := c.writeSchema.UpdateStatus(ctx, out)
		return err
	}
	return nil
}
