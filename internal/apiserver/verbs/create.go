package verbs

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/admission"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/store"
)

// nameAttempts is how often a name is generated before giving up.
const nameAttempts = 8

// Create stores a new object. It takes ownership of obj. A dry run returns what
// would have been stored, without a resourceVersion.
func (v *Verbs) Create(ctx context.Context, r *Request, obj api.Object) (*cache.Item, error) {
	if err := r.inNamespace(obj); err != nil {
		return nil, err
	}
	if obj.GetResourceVersion() != "" {
		return nil, apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	wipe(obj)
	prefix := obj.GetGenerateName()
	if obj.GetName() != "" || prefix == "" {
		return v.create(ctx, r, obj, v.note)
	}
	var err error
	for range nameAttempts {
		try := obj.DeepCopyObject().(api.Object)
		try.SetName(generateName(prefix))
		var item *cache.Item
		if item, err = v.create(ctx, r, try, v.note); err == nil || !apierrors.IsAlreadyExists(err) {
			return item, err
		}
		obj.SetName(try.GetName())
	}
	return nil, apierrors.NewGenerateNameConflict(r.resource(), obj.GetName(), 1)
}

// noting writes into managedFields who did what.
type noting func(r *Request, obj, old api.Object)

// create is one attempt, with a name.
func (v *Verbs) create(ctx context.Context, r *Request, obj api.Object, note noting) (*cache.Item, error) {
	k := r.Kind.Hub()
	obj.SetUID(newUID())
	obj.SetCreationTimestamp(metav1.NewTime(v.Now().Truncate(1e9).UTC()))
	dedupOwners(ctx, obj)
	note(r, obj, nil)

	w := &admission.Write{
		Operation: admission.Create, Kind: r.Kind, Namespace: r.Namespace, Name: obj.GetName(), Subresource: r.Subresource,
		Object: obj, Options: orElse(r.Options, &metav1.CreateOptions{}), DryRun: r.DryRun, User: r.User,
	}
	defer w.Done()
	if err := v.Admission.Admit(ctx, w); err != nil {
		return nil, err
	}
	dedupOwners(ctx, obj)

	reset(k, obj, nil, r.Subresource)
	done, err := v.claim(ctx, r, obj, nil)
	if err != nil {
		return nil, err
	}
	stored := false
	defer func() { done(stored) }()
	if err := check(r, obj, nil); err != nil {
		return nil, err
	}
	warn(ctx, k, obj, nil)
	if err := v.Admission.Validate(ctx, w); err != nil {
		return nil, err
	}

	if r.DryRun {
		if there := v.Cache.Of(k).Get(obj.GetNamespace(), obj.GetName()); there != nil {
			return nil, r.exists(there.Object, obj.GetName())
		}
		return &cache.Item{Object: obj}, nil
	}
	item, err := v.put(ctx, r, obj, nil)
	stored = err == nil
	if _, conflict := errors.AsType[*store.Conflict](err); conflict {
		var there api.Object
		if i := v.Cache.Of(k).Get(obj.GetNamespace(), obj.GetName()); i != nil {
			there = i.Object
		}
		return nil, r.exists(there, obj.GetName())
	}
	return item, err
}

// exists says that a name is taken, and by what.
func (r *Request) exists(there api.Object, name string) error {
	err := apierrors.NewAlreadyExists(r.resource(), name)
	if there != nil && there.GetDeletionTimestamp() != nil {
		err.ErrStatus.Message = fmt.Sprintf("object is being deleted: %s", err.ErrStatus.Message)
	}
	return err
}

// note writes into obj's managedFields what this request changes.
func (v *Verbs) note(r *Request, obj, old api.Object) {
	if v.Fields == nil || r.Manager == "" {
		if old != nil {
			obj.SetManagedFields(old.GetManagedFields())
		}
		return
	}
	if err := v.Fields.Update(r.Kind, old, obj, r.Manager, r.Subresource, v.Now()); err != nil {
		v.Log.Error("managed fields", "err", err)
	}
}

// claim reserves what obj takes besides its name.
func (v *Verbs) claim(ctx context.Context, r *Request, obj, old api.Object) (func(stored bool), error) {
	c, ok := v.Claims[r.Kind.GroupResource()]
	if !ok {
		return func(bool) {}, nil
	}
	if err := v.fresh(ctx); err != nil { // what other servers gave away counts
		return nil, err
	}
	return c.Claim(ctx, obj, old, r.DryRun)
}

// put commits one object that a request worked on in the place of another, nil =
// none.
func (v *Verbs) put(ctx context.Context, r *Request, obj api.Object, old *cache.Item) (*cache.Item, error) {
	obj, err := toStore(r.Kind.Kind, obj)
	if err != nil {
		return nil, err
	}
	return v.putAsIs(ctx, r, obj, old)
}

// putAsIs commits an object in the version that it is in. One that is too large is
// stored without its managedFields if that helps.
func (v *Verbs) putAsIs(ctx context.Context, r *Request, obj api.Object, old *cache.Item) (*cache.Item, error) {
	change := Change{Kind: r.Kind.Kind, Object: obj, Old: old}
	if r.Kind.TTL != nil {
		change.TTL = r.Kind.TTL(obj)
	}
	items, err := v.commit(ctx, change)
	if errors.Is(err, store.ErrTooLarge) && len(obj.GetManagedFields()) > 0 {
		obj.SetManagedFields(nil)
		items, err = v.commit(ctx, change)
	}
	if err != nil {
		return nil, refused(err)
	}
	return items[0], nil
}

// refused turns an error of a commit into a Status, but leaves conflicts, which
// mean different things to different verbs.
func refused(err error) error {
	if _, conflict := errors.AsType[*store.Conflict](err); conflict {
		return err
	}
	if errors.Is(err, store.ErrTooLarge) {
		return apierrors.NewRequestEntityTooLargeError("the object is larger than the store can keep: " + err.Error())
	}
	return unavailable(err)
}
