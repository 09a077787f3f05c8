package verbs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	apireset "github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver/admission"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/store"
)

// modified is what a writer is told whose resourceVersion is old.
var modified = errors.New("the object has been modified; please apply your changes to the latest version and try again")

// Update replaces an object, or the part of it that a subresource is. It takes
// ownership of obj. created says that the name was not there (kinds that allow it).
func (v *Verbs) Update(ctx context.Context, r *Request, obj api.Object) (item *cache.Item, created bool, err error) {
	if err := r.inNamespace(obj); err != nil {
		return nil, false, err
	}
	switch obj.GetName() {
	case r.Name:
	case "":
		return nil, false, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s based on URL) was undeterminable: name must be provided", r.Name))
	default:
		return nil, false, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), r.Name))
	}
	dedupOwners(ctx, obj)
	return v.change(ctx, r, r.Kind.CreateOnUpdate && r.Subresource == "", func(old *cache.Item) (api.Object, error) {
		if old != nil { // a patch with another uid is invalid instead, as it always was
			if err := r.sameUID(obj, old.Object); err != nil {
				return nil, err
			}
		}
		return obj.DeepCopyObject().(api.Object), nil
	}, v.note)
}

// change is one read-change-write, again when somebody else was faster. wanted
// makes the new object, private, from what is there (nil = nothing, when
// createToo is set); note then writes who did it.
func (v *Verbs) change(ctx context.Context, r *Request, createToo bool,
	wanted func(old *cache.Item) (api.Object, error), note noting) (*cache.Item, bool, error) {
	set, err := v.set(r)
	if err != nil {
		return nil, false, err
	}
	if err := v.fresh(ctx); err != nil {
		return nil, false, err
	}
	for {
		kept := set.Get(r.Namespace, r.Name)
		if kept == nil {
			if !createToo {
				return nil, false, r.notFound()
			}
			return v.changeNothing(ctx, r, wanted, note)
		}
		old, err := inHub(r.Kind, kept)
		if err != nil {
			return nil, false, err
		}
		obj, err := wanted(old)
		if err != nil {
			return nil, false, err
		}
		item, err := v.replace(ctx, r, obj, old, outdated(r.Kind.Kind, kept), note)
		if _, again := errors.AsType[*store.Conflict](err); !again {
			return item, false, err
		}
		if ctx.Err() != nil {
			return nil, false, unavailable(ctx.Err())
		}
	}
}

// changeNothing creates what an update or an apply found missing.
func (v *Verbs) changeNothing(ctx context.Context, r *Request, wanted func(old *cache.Item) (api.Object, error), note noting) (*cache.Item, bool, error) {
	obj, err := wanted(nil)
	if err != nil {
		return nil, false, err
	}
	if obj.GetUID() != "" {
		return nil, false, apierrors.NewConflict(r.resource(), r.Name, fmt.Errorf("uid mismatch: the provided object specified uid %s, and no existing object was found", obj.GetUID()))
	}
	if err := r.inNamespace(obj); err != nil {
		return nil, false, err
	}
	create := *r
	create.Options = createOptions(r.Options)
	obj.SetResourceVersion("")
	wipe(obj)
	item, err := v.create(ctx, &create, obj, note)
	return item, err == nil, err
}

// replace is one attempt to put obj in the place of old. always = it is stored
// even if it says the same.
func (v *Verbs) replace(ctx context.Context, r *Request, obj api.Object, old *cache.Item, always bool, note noting) (*cache.Item, error) {
	k := r.Kind.Hub()
	if err := r.current(obj, old.Object); err != nil {
		return nil, err
	}
	keepSystem(obj, old.Object)
	reset(k, obj, old.Object, r.Subresource)
	note(r, obj, old.Object)

	w := &admission.Write{
		Operation: admission.Update, Kind: r.Kind, Namespace: r.Namespace, Name: r.Name, Subresource: r.Subresource,
		Object: obj, Old: old.Object, Options: orElse(r.Options, &metav1.UpdateOptions{}), DryRun: r.DryRun, User: r.User,
	}
	defer w.Done()
	if err := v.Admission.Admit(ctx, w); err != nil {
		return nil, err
	}
	dedupOwners(ctx, obj)

	reset(k, obj, old.Object, r.Subresource)
	keepSystem(obj, old.Object)
	done, err := v.claim(ctx, r, obj, old.Object)
	if err != nil {
		// That it may not change at all is said before that it cannot be had.
		if invalid := check(r, obj, old.Object); invalid != nil {
			return nil, invalid
		}
		return nil, err
	}
	stored := false
	defer func() { done(stored) }()
	if err := check(r, obj, old.Object); err != nil {
		return nil, err
	}
	warn(ctx, k, obj, old.Object)
	same := unchanged(obj, old) && !always
	if err := v.Admission.Validate(ctx, w); err != nil {
		return nil, err
	}

	switch {
	case finished(obj, old.Object):
		item, err := v.removeFinished(ctx, r, obj, old)
		stored = err == nil
		return item, err
	case same && k.TTL == nil && !v.stale(ctx, r, obj):
		return old, nil
	case r.DryRun:
		return &cache.Item{Object: obj, Revision: old.Revision}, nil
	}
	item, err := v.put(ctx, r, obj, old)
	stored = err == nil
	return item, err
}

// stale says whether an object that a write leaves as it is would be stored
// otherwise now: then it is written, as whoever brings what is stored up to date
// expects (KEP-4192).
func (v *Verbs) stale(ctx context.Context, r *Request, obj api.Object) bool {
	k := r.Kind.Kind
	if !v.Cache.MayBeStale(k) || k.Convert != nil && obj.GetObjectKind().GroupVersionKind() != k.GroupVersionKind {
		return false
	}
	value, err := wire.EncodeStorage(k, obj.DeepCopyObject().(api.Object))
	return err == nil && v.Cache.Stale(ctx, k, r.Namespace, r.Name, value)
}

// sameUID holds the uid that a client sent against what is there.
func (r *Request) sameUID(sent, old metav1.Object) error {
	if uid := sent.GetUID(); uid != "" && uid != old.GetUID() {
		return apierrors.NewConflict(r.resource(), r.Name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", uid, old.GetUID()))
	}
	return nil
}

// current holds the resourceVersion that a client sent against what is there,
// and completes it.
func (r *Request) current(obj, old api.Object) error {
	switch rv := obj.GetResourceVersion(); {
	case rv == old.GetResourceVersion():
	case (rv == "" || rv == "0") && r.Kind.StrictUpdate:
		return apierrors.NewInvalid(schema.GroupKind{Group: r.Kind.Group, Kind: r.Kind.Resource}, r.Name,
			field.ErrorList{field.Invalid(field.NewPath("metadata", "resourceVersion"), 0, "must be specified for an update")})
	case rv == "" || rv == "0":
		obj.SetResourceVersion(old.GetResourceVersion())
	default:
		return apierrors.NewConflict(r.resource(), r.Name, modified)
	}
	return nil
}

// unchanged says whether obj says the same as what is stored, other than when
// managers last wrote it; those times are then taken back.
func unchanged(obj api.Object, old *cache.Item) bool {
	fields := obj.GetManagedFields()
	was := old.Object.GetManagedFields()
	if !sameManagers(fields, was) {
		return false
	}
	obj.SetManagedFields(was)
	if sameBody(obj, old) {
		return true
	}
	obj.SetManagedFields(fields)
	return false
}

func sameManagers(a, b []metav1.ManagedFieldsEntry) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := &a[i], &b[i]
		if x.Manager != y.Manager || x.Operation != y.Operation || x.APIVersion != y.APIVersion || x.Subresource != y.Subresource ||
			(x.FieldsV1 == nil) != (y.FieldsV1 == nil) || x.FieldsV1 != nil && !bytes.Equal(x.FieldsV1.Raw, y.FieldsV1.Raw) {
			return false
		}
	}
	return true
}

func sameBody(obj api.Object, old *cache.Item) bool {
	if !maps.Equal(obj.GetLabels(), old.Object.GetLabels()) || !maps.Equal(obj.GetAnnotations(), old.Object.GetAnnotations()) {
		return false // without encoding anything
	}
	if _, custom := obj.(runtime.Unstructured); !custom {
		return apireset.SameProtobuf(obj, old.Object)
	}
	a, err := wire.Body(obj, wire.JSON)
	if err != nil {
		return false
	}
	b, err := wire.Body(old.Object, wire.JSON)
	return err == nil && bytes.Equal(a, b)
}

// finished says that an update took the last finalizer off an object that is
// being deleted, and nothing else holds it.
func finished(obj, old api.Object) bool {
	if old.GetDeletionTimestamp() == nil || held(obj) {
		return false
	}
	grace := old.GetDeletionGracePeriodSeconds()
	return held(old) && (grace == nil || *grace == 0)
}

// held says that finalizers keep an object.
func held(obj api.Object) bool {
	if ns, ok := obj.(*corev1.Namespace); ok && len(ns.Spec.Finalizers) > 0 {
		return true
	}
	return len(obj.GetFinalizers()) > 0
}

// removeFinished deletes an object whose last finalizer has gone; what the
// update said of it is its last state.
func (v *Verbs) removeFinished(ctx context.Context, r *Request, obj api.Object, old *cache.Item) (*cache.Item, error) {
	if r.DryRun {
		return &cache.Item{Object: obj, Revision: old.Revision}, nil
	}
	item, err := v.remove(ctx, r, old)
	if err != nil {
		return nil, err
	}
	obj.SetResourceVersion(item.Object.GetResourceVersion())
	return &cache.Item{Object: obj, Revision: item.Revision}, nil
}

// orElse is given unless that is nil.
func orElse(given, usual runtime.Object) runtime.Object {
	if given != nil {
		return given
	}
	return usual
}

// createOptions are the options of a create that an update or patch became.
func createOptions(o runtime.Object) runtime.Object {
	switch o := o.(type) {
	case *metav1.UpdateOptions:
		return &metav1.CreateOptions{DryRun: o.DryRun, FieldManager: o.FieldManager, FieldValidation: o.FieldValidation}
	case *metav1.PatchOptions:
		return &metav1.CreateOptions{DryRun: o.DryRun, FieldManager: o.FieldManager, FieldValidation: o.FieldValidation}
	}
	return nil
}
