package verbs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/admission"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/store"
)

// Delete an object, or mark it as being deleted while somebody (the kubelet, the
// garbage collector, a finalizer) has yet to finish it. It returns the object as
// it is, or last was, and whether it is gone.
func (v *Verbs) Delete(ctx context.Context, r *Request, opts metav1.DeleteOptions) (item *cache.Item, gone bool, err error) {
	set, err := v.set(r)
	if err != nil {
		return nil, false, err
	}
	if err := v.fresh(ctx); err != nil {
		return nil, false, err
	}
	admitted := false
	for {
		old := set.Get(r.Namespace, r.Name)
		if old == nil {
			return nil, false, r.notFound()
		}
		w := &admission.Write{
			Operation: admission.Delete, Kind: r.Kind, Namespace: r.Namespace, Name: r.Name, Subresource: r.Subresource,
			Old: old.Object, Options: &opts, DryRun: r.DryRun, User: r.User,
		}
		if !admitted {
			if err := v.Admission.Admit(ctx, w); err != nil {
				return nil, false, err
			}
			admitted = true
		}
		if err := v.Admission.Validate(ctx, w); err != nil {
			return nil, false, err
		}
		item, gone, err := v.delete(ctx, r, old, opts)
		if _, again := errors.AsType[*store.Conflict](err); !again {
			return item, gone, err
		}
		if ctx.Err() != nil {
			return nil, false, unavailable(ctx.Err())
		}
	}
}

// delete is one attempt.
func (v *Verbs) delete(ctx context.Context, r *Request, old *cache.Item, opts metav1.DeleteOptions) (*cache.Item, bool, error) {
	if err := preconditions(r, old.Object, opts.Preconditions); err != nil {
		return nil, false, err
	}
	obj := old.Object.DeepCopyObject().(api.Object)
	now := v.Now().Truncate(time.Second).UTC()
	if r.Kind.Deleting != nil && obj.GetDeletionTimestamp() == nil {
		r.Kind.Deleting(obj)
	}
	step, grace := gracefully(r.Kind.Kind, obj, &opts, now)
	if step == already {
		return old, false, nil
	}
	finalizers := propagate(r.Kind.Kind, obj, opts)
	changed := !slices.Equal(finalizers, obj.GetFinalizers())
	if changed {
		obj.SetFinalizers(finalizers)
	}
	switch {
	case held(obj):
		if step == atOnce {
			changed = mark(obj, now) || changed
		}
	case step == atOnce || grace == 0:
		if r.DryRun {
			return old, true, nil
		}
		item, err := v.remove(ctx, r, old)
		return item, err == nil, err
	}
	if !changed && step == atOnce { // finalizers hold it, and it is marked
		return old, false, nil
	}
	if r.DryRun {
		return &cache.Item{Object: obj, Revision: old.Revision}, false, nil
	}
	item, err := v.putAsIs(ctx, r, obj, old) // that it goes must not hang on who could convert it
	return item, false, err
}

// remove takes an object out of the store.
func (v *Verbs) remove(ctx context.Context, r *Request, old *cache.Item) (*cache.Item, error) {
	done, err := v.claim(ctx, r, nil, old.Object)
	if err != nil {
		return nil, err
	}
	items, err := v.commit(ctx, Change{Kind: r.Kind.Kind, Old: old})
	done(err == nil)
	if err != nil {
		return nil, refused(err)
	}
	return items[0], nil
}

// preconditions of a deletion.
func preconditions(r *Request, obj api.Object, p *metav1.Preconditions) error {
	if p == nil {
		return nil
	}
	if p.UID != nil && *p.UID != obj.GetUID() {
		return apierrors.NewConflict(r.resource(), r.Name, fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, obj.GetUID()))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != obj.GetResourceVersion() {
		return apierrors.NewConflict(r.resource(), r.Name, fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *p.ResourceVersion, obj.GetResourceVersion()))
	}
	return nil
}

// step is what a graceful deletion means for an object.
type step int

const (
	atOnce  step = iota // there is no grace
	marked              // deletionTimestamp was set or brought forward
	already             // it is being deleted, and not later than asked for
)

// gracefully marks obj for a graceful deletion if its kind has one, or brings
// one forward that is going on.
func gracefully(k *api.Kind, obj api.Object, opts *metav1.DeleteOptions, now time.Time) (step, int64) {
	if k.Grace == nil {
		return atOnce, 0
	}
	if stamp := obj.GetDeletionTimestamp(); stamp != nil {
		had := obj.GetDeletionGracePeriodSeconds()
		if had == nil {
			return atOnce, 0
		}
		if opts.GracePeriodSeconds == nil || *opts.GracePeriodSeconds >= *had {
			if *had == 0 && !held(obj) { // an interrupted deletion without grace
				return atOnce, 0
			}
			return already, 0
		}
		grace := max(*opts.GracePeriodSeconds, 0)
		if *opts.GracePeriodSeconds < 0 {
			grace = 1
		}
		when := metav1.NewTime(stamp.Add(-time.Duration(*had) * time.Second).Add(time.Duration(grace) * time.Second))
		obj.SetDeletionTimestamp(&when)
		obj.SetDeletionGracePeriodSeconds(&grace)
		return marked, grace
	}
	grace := k.Grace(obj, opts)
	when := metav1.NewTime(now.Add(time.Duration(grace) * time.Second))
	obj.SetDeletionTimestamp(&when)
	obj.SetDeletionGracePeriodSeconds(&grace)
	if obj.GetGeneration() > 0 {
		obj.SetGeneration(obj.GetGeneration() + 1)
	}
	return marked, grace
}

// mark notes that an object without grace is being deleted, held by finalizers.
func mark(obj api.Object, now time.Time) bool {
	changed := false
	if obj.GetDeletionTimestamp() == nil {
		if obj.GetGeneration() > 0 {
			obj.SetGeneration(obj.GetGeneration() + 1)
		}
		when := metav1.NewTime(now)
		obj.SetDeletionTimestamp(&when)
		changed = true
	}
	if ns, ok := obj.(*corev1.Namespace); ok { // namespaces keep no grace period
		if ns.Status.Phase != corev1.NamespaceTerminating {
			ns.Status.Phase = corev1.NamespaceTerminating
			changed = true
		}
		return changed
	}
	if g := obj.GetDeletionGracePeriodSeconds(); g == nil || *g != 0 {
		zero := int64(0)
		obj.SetDeletionGracePeriodSeconds(&zero)
		changed = true
	}
	return changed
}

// propagate says which finalizers obj has once the garbage collector is told
// what is to become of its dependents.
func propagate(k *api.Kind, obj api.Object, opts metav1.DeleteOptions) []string {
	had := obj.GetFinalizers()
	wants := ""
	switch {
	case opts.OrphanDependents != nil:
		if *opts.OrphanDependents {
			wants = metav1.FinalizerOrphanDependents
		}
	case opts.PropagationPolicy != nil:
		switch *opts.PropagationPolicy {
		case metav1.DeletePropagationOrphan:
			wants = metav1.FinalizerOrphanDependents
		case metav1.DeletePropagationForeground:
			wants = metav1.FinalizerDeleteDependents
		}
	case slices.Contains(had, metav1.FinalizerOrphanDependents):
		wants = metav1.FinalizerOrphanDependents
	case slices.Contains(had, metav1.FinalizerDeleteDependents):
		wants = metav1.FinalizerDeleteDependents
	case k.Orphan:
		wants = metav1.FinalizerOrphanDependents
	}
	if wants != "" && slices.Contains(had, wants) && !slices.Contains(had, other(wants)) {
		return had
	}
	var now []string
	for _, f := range had {
		if f != metav1.FinalizerOrphanDependents && f != metav1.FinalizerDeleteDependents {
			now = append(now, f)
		}
	}
	if wants != "" {
		now = append(now, wants)
	}
	return now
}

func other(finalizer string) string {
	if finalizer == metav1.FinalizerOrphanDependents {
		return metav1.FinalizerDeleteDependents
	}
	return metav1.FinalizerOrphanDependents
}

// DeleteCollection deletes what a list would return, one by one, and returns it.
func (v *Verbs) DeleteCollection(ctx context.Context, r *Request, list ListOptions, opts metav1.DeleteOptions) (*List, error) {
	found, err := v.List(ctx, r, list)
	if err != nil {
		return nil, err
	}
	for i, item := range found.Items {
		one := *r
		one.Namespace, one.Name = item.Object.GetNamespace(), item.Object.GetName()
		last, _, err := v.Delete(ctx, &one, opts)
		switch {
		case apierrors.IsNotFound(err): // somebody else was faster
		case err != nil:
			return nil, err
		default:
			found.Items[i] = last
		}
	}
	return found, nil
}
