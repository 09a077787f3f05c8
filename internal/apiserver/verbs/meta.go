package verbs

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/validate"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// newUID is a random (version 4) UUID.
func newUID() types.UID {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	var s [36]byte
	hex.Encode(s[0:8], b[0:4])
	hex.Encode(s[9:13], b[4:6])
	hex.Encode(s[14:18], b[6:8])
	hex.Encode(s[19:23], b[8:10])
	hex.Encode(s[24:], b[10:])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return types.UID(s[:])
}

// The length of a name that is generated: a prefix and five letters.
const (
	maxNameLength = 63
	suffixLength  = 5
)

// generateName appends five letters of an alphabet that makes no words.
func generateName(prefix string) string {
	if len(prefix) > maxNameLength-suffixLength {
		prefix = prefix[:maxNameLength-suffixLength]
	}
	return prefix + utilrand.String(suffixLength)
}

// inNamespace puts obj into the request's namespace, or says that it names another.
func (r *Request) inNamespace(obj api.Object) error {
	want := r.Namespace
	if r.Kind.Cluster {
		want = ""
	}
	switch {
	case obj.GetNamespace() == want:
	case obj.GetNamespace() == "":
		obj.SetNamespace(want)
	case want == "":
		// Cluster-scoped: whatever it says means nothing, but is refused by validation.
		if r.Kind.Cluster {
			return apierrors.NewBadRequest("namespace may not be set on this type, which is not in any namespace")
		}
		fallthrough
	default:
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

// wipe takes out of a new object what only the server may set.
func wipe(obj api.Object) {
	obj.SetCreationTimestamp(metav1.Time{})
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetUID("")
	obj.SetSelfLink("")
}

// dedupOwners removes owner references that are there twice, and says so.
func dedupOwners(ctx context.Context, obj api.Object) {
	refs := obj.GetOwnerReferences()
	if len(refs) < 2 {
		return
	}
	seen := map[types.UID]metav1.OwnerReference{}
	kept, twice := refs[:0:0], []string{}
	for _, ref := range refs {
		if had, ok := seen[ref.UID]; ok && sameOwner(had, ref) {
			twice = append(twice, string(ref.UID))
			continue
		}
		seen[ref.UID] = ref
		kept = append(kept, ref)
	}
	if len(twice) > 0 {
		obj.SetOwnerReferences(kept)
		request.Warn(ctx, fmt.Sprintf(".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: %v", strings.Join(twice, ", ")))
	}
}

func sameOwner(a, b metav1.OwnerReference) bool {
	set := func(p *bool) bool { return p != nil && *p }
	return a.APIVersion == b.APIVersion && a.Kind == b.Kind && a.Name == b.Name &&
		set(a.Controller) == set(b.Controller) && set(a.BlockOwnerDeletion) == set(b.BlockOwnerDeletion)
}

// reset gives obj what the kind says a request may not touch.
func reset(k *api.Kind, obj, old api.Object, sub string) {
	if old != nil {
		obj.SetGeneration(old.GetGeneration())
	}
	if k.Reset != nil {
		k.Reset(obj, old, sub)
	}
}

// keepSystem gives an object that replaces old the metadata that no update changes.
func keepSystem(obj, old api.Object) {
	if obj.GetUID() == "" {
		obj.SetUID(old.GetUID())
	}
	if t := old.GetCreationTimestamp(); !t.IsZero() {
		obj.SetCreationTimestamp(t)
	}
	if t := old.GetDeletionTimestamp(); !t.IsZero() {
		obj.SetDeletionTimestamp(t)
	}
	if s := old.GetDeletionGracePeriodSeconds(); s != nil && obj.GetDeletionGracePeriodSeconds() == nil {
		obj.SetDeletionGracePeriodSeconds(s)
	}
	obj.SetSelfLink("")
}

// check is the validation of an object by the usual metadata rules and the kind's own.
func check(r *Request, obj, old api.Object) error {
	var e validate.Errs
	p := validate.Root("metadata")
	k := r.Kind.Hub()
	validate.ObjectMeta(&e, obj, !k.Cluster, nameRule(k, old), p)
	if old != nil {
		validate.ObjectMetaUpdate(&e, obj, old, p)
	}
	var all field.ErrorList
	if e.Len() > 0 {
		all = e.List()
	}
	if k.Validate != nil {
		all = append(all, k.Validate(obj, old, r.Subresource)...)
	}
	if s := r.Kind.Shape; s != nil && s.Validate != nil {
		all = append(all, s.Validate(obj, old, r.Subresource)...)
	}
	if len(all) == 0 {
		return nil
	}
	return apierrors.NewInvalid(k.GroupVersionKind.GroupKind(), obj.GetName(), unique(all))
}

// nameRule of a kind; the name of what is there already is good.
func nameRule(k *api.Kind, old api.Object) func(string, bool) []string {
	if old != nil {
		return func(string, bool) []string { return nil }
	}
	return k.ValidName
}

// unique drops what is said twice: a kind may look at metadata, too.
func unique(all field.ErrorList) field.ErrorList {
	seen := map[string]bool{}
	kept := all[:0]
	for _, e := range all {
		if text := e.Error(); !seen[text] {
			seen[text] = true
			kept = append(kept, e)
		}
	}
	return kept
}

// warn sends what the kind has to say about a good object.
func warn(ctx context.Context, k *api.Kind, obj, old api.Object) {
	if k.Warn == nil {
		return
	}
	for _, text := range k.Warn(obj, old) {
		request.Warn(ctx, text)
	}
}
