package client

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
)

// Client reads and writes objects of one Go type.
type Client[T api.Object] struct {
	conn Conn
	kind *api.Kind
}

// For returns the client of a Go type: For[*corev1.Pod](conn). It panics for a
// type that no kind is stored as, which is a mistake in the program.
func For[T api.Object](conn Conn) Client[T] {
	var zero T
	k, ok := conn.Catalog().Type(zero)
	if !ok {
		panic(fmt.Sprintf("client: no kind is stored as %T", zero))
	}
	return Client[T]{conn, k}
}

// Kind of the objects.
func (c Client[T]) Kind() *api.Kind { return c.kind }

// Conn below the client.
func (c Client[T]) Conn() Conn { return c.conn }

// Get one object, shared: do not change it.
func (c Client[T]) Get(ctx context.Context, namespace, name string) (T, error) {
	return as[T](c.conn.Get(ctx, c.kind, namespace, name))
}

// List objects in key order, shared: do not change them. namespace "" = all.
func (c Client[T]) List(ctx context.Context, namespace string, opt ListOptions) ([]T, error) {
	objs, _, err := c.conn.List(ctx, c.kind, namespace, opt)
	if err != nil {
		return nil, err
	}
	list := make([]T, len(objs))
	for i, o := range objs {
		list[i] = o.(T)
	}
	return list, nil
}

// Create takes ownership of obj.
func (c Client[T]) Create(ctx context.Context, obj T) (T, error) {
	return as[T](c.conn.Create(ctx, c.kind, obj, WriteOptions{}))
}

// Update takes ownership of obj, usually a DeepCopy of one that was read, whose
// resourceVersion makes it a Conflict when somebody else was faster.
func (c Client[T]) Update(ctx context.Context, obj T) (T, error) {
	return as[T](c.conn.Update(ctx, c.kind, obj, WriteOptions{}))
}

// UpdateStatus writes the status subresource; takes ownership of obj.
func (c Client[T]) UpdateStatus(ctx context.Context, obj T) (T, error) {
	return as[T](c.conn.Update(ctx, c.kind, obj, WriteOptions{Subresource: "status"}))
}

// Patch changes an object where it is.
func (c Client[T]) Patch(ctx context.Context, namespace, name string, p Patch, opt WriteOptions) (T, error) {
	return as[T](c.conn.Patch(ctx, c.kind, namespace, name, p, opt))
}

// Delete an object. opt carries preconditions, grace and propagation.
func (c Client[T]) Delete(ctx context.Context, namespace, name string, opt metav1.DeleteOptions) error {
	return c.conn.Delete(ctx, c.kind, namespace, name, opt)
}

func as[T api.Object](obj api.Object, err error) (T, error) {
	if err != nil {
		var zero T
		return zero, err
	}
	return obj.(T), nil
}
