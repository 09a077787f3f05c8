package gc

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
)

// owner is what an owner reference leads to.
type owner int

const (
	absent  owner = iota // it is not there, or another object has its name
	present              // it is there and stays
	waiting              // it is being deleted, but only once its dependents are gone
	unknown              // it cannot be told: its kind is not served just now
)

// verdict about one object.
type verdict struct {
	delete bool
	policy metav1.DeletionPropagation
	drop   []types.UID // owner references to take off, because other owners remain
}

// judge an object by its owners: with one that stays it stays, and the references
// to others come off; with one unknown nothing is done; with none left it goes,
// in the way that its own finalizers ask for. block says that dependents of the
// object hold up its owner's deletion, so that it has to wait for them in turn.
func judge(obj api.Object, owners map[types.UID]owner, block bool) verdict {
	refs := obj.GetOwnerReferences()
	if len(refs) == 0 || obj.GetDeletionTimestamp() != nil && !slices.Contains(obj.GetFinalizers(), metav1.FinalizerDeleteDependents) {
		return verdict{}
	}
	var solid, lost, wait []types.UID
	for _, r := range refs {
		switch owners[r.UID] {
		case present:
			solid = append(solid, r.UID)
		case waiting:
			wait = append(wait, r.UID)
		case absent:
			lost = append(lost, r.UID)
		case unknown:
			return verdict{}
		}
	}
	switch {
	case len(solid) > 0:
		return verdict{drop: append(lost, wait...)}
	case obj.GetDeletionTimestamp() != nil:
		return verdict{}
	case len(wait) > 0 && block:
		return verdict{delete: true, policy: metav1.DeletePropagationForeground}
	case slices.Contains(obj.GetFinalizers(), metav1.FinalizerOrphanDependents):
		return verdict{delete: true, policy: metav1.DeletePropagationOrphan}
	case slices.Contains(obj.GetFinalizers(), metav1.FinalizerDeleteDependents):
		return verdict{delete: true, policy: metav1.DeletePropagationForeground}
	}
	return verdict{delete: true, policy: metav1.DeletePropagationBackground}
}

// blocks says whether a dependent holds up the deletion of an owner that waits
// for its dependents.
func blocks(dependent api.Object, owner types.UID) bool {
	for _, r := range dependent.GetOwnerReferences() {
		if r.UID == owner && r.BlockOwnerDeletion != nil && *r.BlockOwnerDeletion {
			return true
		}
	}
	return false
}

// foreground and orphaning say how an object that is being deleted wants to go.
func foreground(obj api.Object) bool {
	return obj.GetDeletionTimestamp() != nil && slices.Contains(obj.GetFinalizers(), metav1.FinalizerDeleteDependents)
}

func orphaning(obj api.Object) bool {
	return obj.GetDeletionTimestamp() != nil && slices.Contains(obj.GetFinalizers(), metav1.FinalizerOrphanDependents)
}
