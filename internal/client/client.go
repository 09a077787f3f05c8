// Package client is how everything that is not the API server reads and writes
// objects: controllers, scheduler, kubelet, proxy, DNS, ingress.
//
// Conn is the seam. There are two: Local calls the API server's verbs and reads
// its cache without bytes in between; Remote speaks HTTPS through client-go.
// Code above the seam cannot tell them apart; clienttest holds both to that.
// Client[T] and Informer[T] put Go types on a Conn.
package client

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
)

// Conn reads and writes objects of any kind as one user. Objects it returns are
// shared and must not be changed. Errors are apimachinery StatusErrors
// (apierrors.IsNotFound, IsConflict, …), or the context's.
type Conn interface {
	// Catalog of the kinds that the API server serves.
	Catalog() *api.Catalog

	Get(ctx context.Context, k *api.Kind, namespace, name string) (api.Object, error)
	// List returns the objects in key order and the revision they are of.
	List(ctx context.Context, k *api.Kind, namespace string, opt ListOptions) ([]api.Object, string, error)
	// Create takes ownership of obj. sub "" creates the object, a name posts to
	// that subresource of obj's name ("binding", "eviction", "token").
	Create(ctx context.Context, k *api.Kind, obj api.Object, opt WriteOptions) (api.Object, error)
	// Update takes ownership of obj, whose resourceVersion must match unless empty.
	Update(ctx context.Context, k *api.Kind, obj api.Object, opt WriteOptions) (api.Object, error)
	Patch(ctx context.Context, k *api.Kind, namespace, name string, p Patch, opt WriteOptions) (api.Object, error)
	Delete(ctx context.Context, k *api.Kind, namespace, name string, opt metav1.DeleteOptions) error
	// Post sends body to a subresource that is an action and returns its answer:
	// binding, eviction, token.
	Post(ctx context.Context, k *api.Kind, namespace, name, sub string, body runtime.Object) (runtime.Object, error)

	// Watch tells of every change in a scope, beginning with what is there. It
	// reconnects by itself. See Events.
	Watch(ctx context.Context, k *api.Kind, scope Scope) (Events, error)
}

// Scope narrows a list, watch or informer. Index is one of Kind.Indexes
// (remote: sent as the field selector Index=Value).
type Scope struct {
	Namespace string
	Name      string
	Index     string
	Value     string
}

// ListOptions narrow a list.
type ListOptions struct {
	Labels labels.Selector // nil = all
	Index  string          // one of Kind.Indexes …
	Value  string          // … and the value wanted
}

// WriteOptions of one write.
type WriteOptions struct {
	Subresource string // "status", "finalize", …
	Manager     string // field manager; "" = the Conn's
	DryRun      bool
	Force       bool // apply only
}

// Patch is a change in one of the four patch formats.
type Patch struct {
	Type types.PatchType
	Data []byte
}

// Event is one change. Old is nil when Type is Added; New is nil when it is
// Deleted (Old then holds the last known state).
type Event struct {
	Old, New api.Object
}

// Between are the events that tell of an object (nil = none) in the place of another
// of its name (nil = none): one of another UID comes after the end of the one before.
func Between(old, now api.Object) []Event {
	if old != nil && now != nil && old.GetUID() != now.GetUID() {
		return []Event{{Old: old}, {New: now}}
	}
	return []Event{{Old: old, New: now}}
}

// Events is a running watch. The first batches hold what was there as additions;
// Synced is closed before the last of these is returned by Next. When nothing
// was there, the first Next returns an empty batch.
type Events interface {
	// Next blocks until there is something and returns it in order, or ctx's
	// error. After a gap that a reconnect could not fill, the difference between
	// what was told and what is there now comes as ordinary events; an object in the
	// place of another of its name (another UID) as the end of the one and the
	// beginning of the other.
	Next(ctx context.Context) ([]Event, error)
	Synced() <-chan struct{}
	Stop()
}

// Binding puts a pod on a node.
type Binding struct {
	Namespace, Name string
	UID             types.UID // of the pod; "" = whichever has the name
	Node            string
}

// Binder binds many pods in few transactions. A Conn may have it besides. One
// error, or nil, for each binding, in order.
type Binder interface {
	BindAll(ctx context.Context, all []Binding) []error
}

// Collector deletes all objects of a kind that a field selector ("a=1,b=2") matches,
// in one call. A Conn may have it besides.
type Collector interface {
	DeleteAll(ctx context.Context, k *api.Kind, namespace, fields string) error
}
