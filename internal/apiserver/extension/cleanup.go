package extension

import (
	"context"
	"fmt"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/cache"
)

// cleanUp deletes the objects of a definition that is being deleted and lets it
// go when there are none. It is called again for as long as there are some: an
// error says that there are.
func (r *Resources) cleanUp(ctx context.Context, d *apiextensionsv1.CustomResourceDefinition) error {
	if !apihelpers.CRDHasFinalizer(d, apiextensionsv1.CustomResourceCleanupFinalizer) {
		return nil
	}
	r.mu.Lock()
	c := r.custom[d.Name]
	r.mu.Unlock()
	now := d.DeepCopy()
	cond := apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionFalse, Reason: "NeverEstablished", Message: "resource was never established",
	}
	if c != nil {
		cond.Reason, cond.Message = "InstanceDeletionCompleted", "removed all instances"
		if err := r.deleteAll(ctx, c); err != nil {
			cond.Status, cond.Reason, cond.Message = apiextensionsv1.ConditionTrue, "InstanceDeletionInProgress", "CustomResource deletion is in progress"
			if old := apihelpers.FindCRDCondition(d, apiextensionsv1.Terminating); old == nil || old.Reason != cond.Reason {
				apihelpers.SetCRDCondition(now, cond)
				if err := r.writeStatus(ctx, now); err != nil {
					return err
				}
			}
			return err
		}
	}
	apihelpers.SetCRDCondition(now, cond)
	apihelpers.CRDRemoveFinalizer(now, apiextensionsv1.CustomResourceCleanupFinalizer)
	return r.writeStatus(ctx, now)
}

// deleteAll objects of a kind; an error says that some are left.
func (r *Resources) deleteAll(ctx context.Context, c *custom) error {
	set := r.Cache.Of(c.kind)
	var failed error
	set.Snapshot().Ascend("", "", "", func(i *cache.Item) bool {
		if i.Object.GetDeletionTimestamp() != nil {
			return true
		}
		err := r.user.Delete(ctx, c.kind, i.Object.GetNamespace(), i.Object.GetName(), metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			failed = err
		}
		return ctx.Err() == nil
	})
	if failed != nil {
		return failed
	}
	if n := set.Snapshot().Len(); n > 0 {
		return fmt.Errorf("%d objects are still being deleted", n)
	}
	return nil
}
