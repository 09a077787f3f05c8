// Package verbs is what the API server does with objects: get, list, watch,
// create, update, patch, delete, and the actions. Each verb is one function from
// which the order of defaulting, admission, validation and storing can be read.
//
// Verbs work on Go objects in storage shape and know nothing of HTTP or of
// bytes, but for patches. The HTTP edge and client.Local both stand on them.
package verbs

import (
	"context"
	"errors"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver/admission"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/store"
)

// Request is what every verb is told.
type Request struct {
	Kind        api.Served
	Namespace   string // "" = all, or a cluster-scoped kind
	Name        string
	Subresource string
	User        *request.User
	DryRun      bool
	// Manager is written into managedFields; "" = none are kept for this write.
	Manager string
	// Options as the client sent them, for admission; nil = the zero ones.
	Options runtime.Object
	// Strictness of decoding the outcome of a patch.
	Strictness wire.Strictness
}

// Fields keeps managedFields; *managedfields.Manager does.
type Fields interface {
	// Update notes in obj which fields a manager has changed since live (nil on
	// create) by any verb but apply. An error is for the log: obj has none then.
	Update(kind api.Served, live, obj api.Object, manager, sub string, now time.Time) error
	// Apply merges an applied configuration (JSON or YAML) into live (nil = there
	// is none), and returns a new object, defaulted. Conflicts are a StatusError.
	Apply(kind api.Served, live api.Object, config []byte, manager, sub string, force bool, now time.Time) (api.Object, error)
}

// Claimer reserves what an object takes besides its name: cluster IPs, node
// ports. Claim fills them into obj; done is called when it is known whether obj
// was stored. old is nil on create; obj is nil on delete.
type Claimer interface {
	Claim(ctx context.Context, obj, old api.Object, dryRun bool) (done func(stored bool), err error)
}

// Action answers a POST to a subresource, or to a virtual kind (then target is
// nil). It may change body.
type Action func(ctx context.Context, r *Request, target api.Object, body runtime.Object) (runtime.Object, error)

// Config of the verbs.
type Config struct {
	Catalog   *api.Catalog
	Cache     *cache.Cache
	Store     store.Store
	Shared    bool // other servers write to the store, too
	Admission admission.Chain
	Fields    Fields // nil = managedFields are not kept
	Claims    map[schema.GroupResource]Claimer
	// Actions by the kind they belong to and the subresource ("" for virtual
	// kinds), besides the ones the verbs bring themselves.
	Actions map[ActionKey]Action
	Log     *slog.Logger
	Now     func() time.Time // nil = time.Now
}

// ActionKey names an action.
type ActionKey struct {
	schema.GroupResource
	Subresource string
}

// Verbs of the API server.
type Verbs struct {
	Config
	actions   map[ActionKey]Action
	pins      pins
	revisions revisions
}

// New verbs.
func New(c Config) *Verbs {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	v := &Verbs{Config: c, actions: map[ActionKey]Action{}}
	v.builtin()
	for k, a := range c.Actions {
		v.actions[k] = a
	}
	return v
}

// set of the kind a request is about, or the error that there is none.
func (v *Verbs) set(r *Request) (*cache.Set, error) {
	s := v.Cache.Of(r.Kind.Kind)
	if s == nil {
		return nil, r.notFound()
	}
	if r.Name != "" {
		return s, unreadable(s.Broken(r.Namespace, r.Name))
	}
	return s, nil
}

// unreadable is the error of an entry that is there but cannot be decoded, because
// the key it was encrypted with is not known, say: it must not look missing.
func unreadable(b *cache.Broken) error {
	if b == nil {
		return nil
	}
	return apierrors.NewInternalError(b.Err)
}

// resource that errors name: as it was asked for.
func (r *Request) resource() schema.GroupResource {
	return schema.GroupResource{Group: r.Kind.GVK().Group, Resource: r.Kind.Plural()}
}

func (r *Request) notFound() error { return apierrors.NewNotFound(r.resource(), r.Name) }

// Get one object as it is after every write that was acknowledged.
func (v *Verbs) Get(ctx context.Context, r *Request) (*cache.Item, error) {
	set, err := v.set(r)
	if err != nil {
		return nil, err
	}
	if err := v.fresh(ctx); err != nil {
		return nil, err
	}
	if item := set.Get(r.Namespace, r.Name); item != nil {
		return item, nil
	}
	return nil, r.notFound()
}

// unavailable turns an error of the store into a Status.
func unavailable(err error) error {
	var status apierrors.APIStatus
	switch {
	case err == nil, errors.As(err, &status):
		return err
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, store.ErrFull):
		return apierrors.NewServiceUnavailable("nothing was written: " + err.Error())
	case errors.Is(err, store.ErrUnavailable):
		return apierrors.NewServiceUnavailable("whether it was written is not known: " + err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return apierrors.NewTimeoutError("the store did not answer in time: "+err.Error(), 1)
	}
	return apierrors.NewInternalError(err)
}
