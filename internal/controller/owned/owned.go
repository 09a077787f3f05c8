// Package owned is what controllers that make pods, or things that make pods,
// have in common: which objects are theirs, and what state their pods are in.
package owned

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/index"
	"github.com/proa-dev/proa/internal/client"
)

// Ref makes owner the controller of what carries the reference.
func Ref(owner api.Object, gvk schema.GroupVersionKind) metav1.OwnerReference {
	return *metav1.NewControllerRef(owner, gvk)
}

// Claim returns the objects of a type that are owner's: those that it controls
// and whose labels match. It adopts matching objects that nothing controls, and
// releases those that no longer match. What is being deleted is neither adopted
// nor released.
//
// The list is read through the Conn, which shows every write that was
// acknowledged: a controller that acts on it need not remember what it did a
// moment ago.
func Claim[T api.Object](ctx context.Context, c client.Client[T], owner api.Object, gvk schema.GroupVersionKind, sel labels.Selector) ([]T, error) {
	return ClaimIf(ctx, c, owner, gvk, sel, func(T) bool { return true })
}

// ClaimIf is Claim of those objects alone that fit; others are not adopted, and
// are released.
func ClaimIf[T api.Object](ctx context.Context, c client.Client[T], owner api.Object, gvk schema.GroupVersionKind, sel labels.Selector, fits func(T) bool) ([]T, error) {
	have, err := c.List(ctx, owner.GetNamespace(), client.ListOptions{Index: index.Owner, Value: string(owner.GetUID())})
	if err != nil {
		return nil, err
	}
	mine := make([]T, 0, len(have))
	for _, o := range have {
		if sel.Matches(labels.Set(o.GetLabels())) && fits(o) || owner.GetDeletionTimestamp() != nil {
			mine = append(mine, o)
		} else if err := release(ctx, c, o, owner); err != nil {
			return nil, err
		}
	}
	if owner.GetDeletionTimestamp() != nil {
		return mine, nil
	}
	orphans, err := c.List(ctx, owner.GetNamespace(), client.ListOptions{Labels: sel, Index: index.Owner, Value: index.Orphans(owner.GetNamespace())})
	if err != nil {
		return nil, err
	}
	for _, o := range orphans {
		if o.GetDeletionTimestamp() != nil || !fits(o) {
			continue
		}
		adopted, err := adopt(ctx, c, o, owner, gvk)
		switch {
		case apierrors.IsNotFound(err) || apierrors.IsInvalid(err): // gone, or replaced by another of its name
		case err != nil:
			return nil, err
		default:
			mine = append(mine, adopted)
		}
	}
	return mine, nil
}

func adopt[T api.Object](ctx context.Context, c client.Client[T], o T, owner api.Object, gvk schema.GroupVersionKind) (T, error) {
	var none T
	fresh, err := client.For[T](c.Conn()).Get(ctx, o.GetNamespace(), o.GetName())
	if err != nil {
		return none, err
	}
	if fresh.GetUID() != o.GetUID() {
		return none, apierrors.NewNotFound(c.Kind().GroupResource(), o.GetName())
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": o.GetUID(), "ownerReferences": append(o.GetOwnerReferences(), Ref(owner, gvk)),
	}})
	if err != nil {
		return none, err
	}
	return c.Patch(ctx, o.GetNamespace(), o.GetName(), client.Patch{Type: types.StrategicMergePatchType, Data: patch}, client.WriteOptions{})
}

func release[T api.Object](ctx context.Context, c client.Client[T], o T, owner api.Object) error {
	if o.GetDeletionTimestamp() != nil {
		return nil
	}
	patch := fmt.Appendf(nil, `{"metadata":{"uid":%q,"ownerReferences":[{"$patch":"delete","uid":%q}]}}`, o.GetUID(), owner.GetUID())
	_, err := c.Patch(ctx, o.GetNamespace(), o.GetName(), client.Patch{Type: types.StrategicMergePatchType, Data: patch}, client.WriteOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
		return nil
	}
	return err
}
