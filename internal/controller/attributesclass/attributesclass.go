// Package attributesclass keeps a VolumeAttributesClass that is being deleted for
// as long as a volume or a claim names it (KEP-3751).
package attributesclass

import (
	"context"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// Finalizer that admission puts on every class.
const Finalizer = "kubernetes.io/vac-protection"

// Controller of the finalizer.
type Controller struct {
	queue   *loop.Queue
	classes *client.Informer[*storagev1.VolumeAttributesClass]
	claims  *client.Informer[*corev1.PersistentVolumeClaim]
	volumes *client.Informer[*corev1.PersistentVolume]
	write   client.Client[*storagev1.VolumeAttributesClass]
}

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		queue:   loop.NewQueue("attributesclass", log),
		classes: client.Shared[*storagev1.VolumeAttributesClass](in, client.Scope{}),
		claims:  client.Shared[*corev1.PersistentVolumeClaim](in, client.Scope{}),
		volumes: client.Shared[*corev1.PersistentVolume](in, client.Scope{}),
		write:   client.For[*storagev1.VolumeAttributesClass](in.Conn()),
	}
	c.classes.OnChange(func(_, now *storagev1.VolumeAttributesClass) {
		if now != nil && now.DeletionTimestamp != nil {
			c.queue.Add(now.Name)
		}
	})
	c.claims.OnChange(func(old, _ *corev1.PersistentVolumeClaim) {
		if old != nil { // what it names no longer may go
			c.wake(old.Spec.VolumeAttributesClassName, old.Status.CurrentVolumeAttributesClassName)
		}
	})
	c.volumes.OnChange(func(old, _ *corev1.PersistentVolume) {
		if old != nil {
			c.wake(old.Spec.VolumeAttributesClassName)
		}
	})
	return c
}

func (c *Controller) wake(names ...*string) {
	for _, name := range names {
		if name == nil {
			continue
		}
		if class, ok := c.classes.Get("", *name); ok && class.DeletionTimestamp != nil {
			c.queue.Add(*name)
		}
	}
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	return c.queue.Run(ctx, 1, c.reconcile, c.classes.Synced(), c.claims.Synced(), c.volumes.Synced())
}

func (c *Controller) reconcile(ctx context.Context, name string) (time.Duration, error) {
	class, err := c.write.Get(ctx, "", name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil || class.DeletionTimestamp == nil || !slices.Contains(class.Finalizers, Finalizer) {
		return 0, err
	}
	if used(name, c.claims.List("", nil), c.volumes.List("", nil)) {
		return 0, nil
	}
	out := class.DeepCopy()
	out.Finalizers = slices.DeleteFunc(out.Finalizers, func(f string) bool { return f == Finalizer })
	_, err = c.write.Update(ctx, out)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return 0, err
}

// used says whether a claim wants or has the class, or a volume has it.
func used(name string, claims []*corev1.PersistentVolumeClaim, volumes []*corev1.PersistentVolume) bool {
	is := func(ref *string) bool { return ref != nil && *ref == name }
	return slices.ContainsFunc(claims, func(p *corev1.PersistentVolumeClaim) bool {
		m := p.Status.ModifyVolumeStatus
		return is(p.Spec.VolumeAttributesClassName) || is(p.Status.CurrentVolumeAttributesClassName) || m != nil && m.TargetVolumeAttributesClassName == name
	}) || slices.ContainsFunc(volumes, func(v *corev1.PersistentVolume) bool { return is(v.Spec.VolumeAttributesClassName) })
}
