// Package index holds the indexes that several kinds keep (api.Kind.Indexes).
package index

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
)

// Owner is the name of the index of objects by the UID of their controller.
const Owner = "owner"

// ByOwner is the index Owner alone.
func ByOwner() map[string]func(api.Object) []string {
	return map[string]func(api.Object) []string{Owner: OwnerOf}
}

// OwnerOf is the UID of the object's controller or, if it has none, what Orphans
// says, so that a controller finds what it may adopt without looking at all.
func OwnerOf(obj api.Object) []string {
	if ref := metav1.GetControllerOfNoCopy(obj); ref != nil {
		return []string{string(ref.UID)}
	}
	return []string{Orphans(obj.GetNamespace())}
}

// Orphans is the value in the index Owner of a namespace's objects without a
// controller.
func Orphans(namespace string) string { return "orphans/" + namespace }

// Owners is the name of the index, which every stored kind has, of objects by the
// UIDs of all their owners.
const Owners = "owners"

// OwnersOf are the UIDs of all owners of an object.
func OwnersOf(obj api.Object) []string {
	refs := obj.GetOwnerReferences()
	if len(refs) == 0 {
		return nil
	}
	uids := make([]string, len(refs))
	for i := range refs {
		uids[i] = string(refs[i].UID)
	}
	return uids
}

// Add the indexes that every stored kind has.
func Add(kinds ...*api.Kind) {
	for _, k := range kinds {
		if k.Virtual {
			continue
		}
		if k.Indexes == nil {
			k.Indexes = map[string]func(api.Object) []string{}
		}
		k.Indexes[Owners] = OwnersOf
	}
}
