// Package admission holds what may change or refuse a write between
// authorisation and the store. The order is fixed: mutating plugins, then
// validation by the kind, then validating plugins.
package admission

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// Operation is the sort of a write.
type Operation string

const (
	Create  Operation = "CREATE"
	Update  Operation = "UPDATE"
	Delete  Operation = "DELETE"
	Connect Operation = "CONNECT"
)

// Write is a write on its way to the store.
type Write struct {
	Operation   Operation
	Kind        api.Served
	Namespace   string
	Name        string
	Subresource string
	// Object is what is to be stored, in storage shape: mutating plugins change
	// it in place. nil on delete. Old is what is stored now: nil on create;
	// never to be changed.
	Object, Old api.Object
	// Body is what a subresource was sent, where that is not the object itself
	// (Scale, Binding, Eviction, TokenRequest, PodExecOptions …).
	Body    runtime.Object
	Options runtime.Object // CreateOptions, UpdateOptions, PatchOptions or DeleteOptions
	DryRun  bool
	User    *request.User

	done []func()
}

// OnDone has f called when the write is done: stored, or given up.
func (w *Write) OnDone(f func()) { w.done = append(w.done, f) }

// Done is called by who made the write.
func (w *Write) Done() {
	for _, f := range w.done {
		f()
	}
	w.done = nil
}

// Mutator may change w.Object. An error (a StatusError) refuses the write.
type Mutator interface {
	Admit(ctx context.Context, w *Write) error
}

// Validator may refuse the write; it changes nothing.
type Validator interface {
	Validate(ctx context.Context, w *Write) error
}

// Plugin has a name, handles some writes, and is a Mutator, a Validator or both.
type Plugin interface {
	Name() string
}

// Chain runs plugins in the order given. The zero Chain admits everything.
type Chain struct{ plugins []Plugin }

// NewChain of plugins in this order.
func NewChain(plugins ...Plugin) Chain { return Chain{plugins} }

// Admit runs the mutating plugins.
func (c Chain) Admit(ctx context.Context, w *Write) error {
	for _, p := range c.plugins {
		if m, ok := p.(Mutator); ok {
			if err := m.Admit(ctx, w); err != nil {
				return err
			}
		}
	}
	return nil
}

// Validate runs the validating plugins.
func (c Chain) Validate(ctx context.Context, w *Write) error {
	for _, p := range c.plugins {
		if v, ok := p.(Validator); ok {
			if err := v.Validate(ctx, w); err != nil {
				return err
			}
		}
	}
	return nil
}

// Used says that there are any plugins.
func (c Chain) Used() bool { return len(c.plugins) > 0 }
