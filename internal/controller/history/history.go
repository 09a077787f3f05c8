// Package history keeps the templates that a DaemonSet or StatefulSet had, in
// ControllerRevisions, so that one can be rolled back to and pods can be told
// apart by the template they were made from.
package history

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/owned"
)

// Keeper of one kind of owner's revisions.
type Keeper struct {
	Revisions client.Client[*appsv1.ControllerRevision]
	Owner     schema.GroupVersionKind
	HashLabel string // that a revision carries
}

// Revisions of one owner, oldest first, and which of them is the current
// template's. Collided is set, and Current nil, when another template's revision
// has the name that the current one's should get: raise the count of collisions.
type Revisions struct {
	Current  *appsv1.ControllerRevision
	All      []*appsv1.ControllerRevision
	Collided bool
}

// Sync reads an owner's revisions and makes the current template's the newest:
// by writing one, or by giving an old one of the same template the next number.
func (k Keeper) Sync(ctx context.Context, owner api.Object, sel labels.Selector, t *corev1.PodTemplateSpec, collisions *int32) (r Revisions, err error) {
	r.All, err = owned.Claim(ctx, k.Revisions, owner, k.Owner, sel)
	if err != nil {
		return r, err
	}
	Sort(r.All)
	data, err := Data(t)
	if err != nil {
		return r, err
	}
	same := slices.DeleteFunc(slices.Clone(r.All), func(h *appsv1.ControllerRevision) bool { return !bytes.Equal(h.Data.Raw, data) })
	newest := int64(0)
	if len(r.All) > 0 {
		newest = r.All[len(r.All)-1].Revision
	}
	switch {
	case len(same) == 0:
		return k.create(ctx, owner, t, data, newest+1, collisions, r)
	case same[len(same)-1] == r.All[len(r.All)-1]:
		r.Current = r.All[len(r.All)-1]
		return r, nil
	}
	at := slices.Index(r.All, same[len(same)-1])
	out := r.All[at].DeepCopy()
	out.Revision = newest + 1
	if r.Current, err = k.Revisions.Update(ctx, out); err != nil {
		return r, err
	}
	r.All = append(slices.Delete(r.All, at, at+1), r.Current)
	return r, nil
}

func (k Keeper) create(ctx context.Context, owner api.Object, t *corev1.PodTemplateSpec, data []byte, number int64, collisions *int32, r Revisions) (Revisions, error) {
	h := hashOf(data, collisions)
	want := &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Name: owned.NamePrefix(owner.GetName()) + h, Namespace: owner.GetNamespace(), Annotations: maps.Clone(owner.GetAnnotations()), Labels: maps.Clone(t.Labels),
			OwnerReferences: []metav1.OwnerReference{owned.Ref(owner, k.Owner)},
		},
		Data: runtime.RawExtension{Raw: data}, Revision: number,
	}
	if want.Labels == nil {
		want.Labels = map[string]string{}
	}
	want.Labels[k.HashLabel] = h
	name := want.Name
	made, err := k.Revisions.Create(ctx, want)
	if apierrors.IsAlreadyExists(err) {
		have, getErr := k.Revisions.Get(ctx, owner.GetNamespace(), name)
		if getErr != nil {
			return r, getErr
		}
		if metav1.IsControlledBy(have, owner) && bytes.Equal(have.Data.Raw, data) {
			return r, err // not seen a moment ago; look again
		}
		r.Collided = true
		return r, nil
	}
	if err != nil {
		return r, err
	}
	r.Current, r.All = made, append(r.All, made)
	return r, nil
}

// Truncate deletes the oldest revisions beyond limit that no live pod, nor the
// current template, needs.
func (k Keeper) Truncate(ctx context.Context, r Revisions, limit int32, live func(*appsv1.ControllerRevision) bool) error {
	var old []*appsv1.ControllerRevision
	for _, h := range r.All {
		if h != r.Current && !live(h) {
			old = append(old, h)
		}
	}
	for i := range max(0, len(old)-int(limit)) {
		err := k.Revisions.Delete(ctx, old[i].Namespace, old[i].Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// Sort revisions, oldest first.
func Sort(all []*appsv1.ControllerRevision) {
	slices.SortStableFunc(all, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
}

// Data of a revision: the strategic merge patch that puts the template into its
// owner, as kubectl rollout undo applies it.
func Data(t *corev1.PodTemplateSpec) ([]byte, error) {
	raw, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	fields["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": fields}})
}

// Template that a revision holds.
func Template(h *appsv1.ControllerRevision) (*corev1.PodTemplateSpec, error) {
	var in struct {
		Spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(h.Data.Raw, &in); err != nil {
		return nil, fmt.Errorf("ControllerRevision %s/%s holds no template: %w", h.Namespace, h.Name, err)
	}
	return &in.Spec.Template, nil
}

func hashOf(data []byte, collisions *int32) string {
	h := fnv.New32()
	_, _ = h.Write(data)
	if collisions != nil {
		fmt.Fprintf(h, "%d", *collisions)
	}
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}
