// Package reset holds what the descriptors' Reset functions have in common:
// status is the status subresource's alone, and generation counts the changes
// of the spec.
package reset

import (
	"bytes"
	"slices"
	"sync"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
)

// SpecStatus is a Kind.Reset for the usual object: status is emptied on create
// and kept on update, a write of the status keeps the spec, generation is 1 on
// create and moves when the spec does.
func SpecStatus[T api.Object, S, U any](parts func(T) (*S, *U)) func(obj, old api.Object, sub string) {
	return func(obj, old api.Object, sub string) {
		spec, status := parts(obj.(T))
		if old == nil {
			var empty U
			*status = empty
			obj.SetGeneration(1)
			return
		}
		oldSpec, oldStatus := parts(old.(T))
		if sub == "status" {
			*spec = *oldSpec
			obj.SetGeneration(old.GetGeneration())
			return
		}
		*status = *oldStatus
		Generation(obj, old, Differ(spec, oldSpec))
	}
}

// Status is a Kind.Reset for an object without a generation: status is emptied on
// create and kept on update, and a write of the status changes nothing else.
func Status[T api.Object, S, U any](parts func(T) (*S, *U)) func(obj, old api.Object, sub string) {
	return func(obj, old api.Object, sub string) {
		spec, status := parts(obj.(T))
		if old == nil {
			var empty U
			*status = empty
			return
		}
		oldSpec, oldStatus := parts(old.(T))
		if sub == "status" {
			*spec = *oldSpec
			metav1.ResetObjectMetaForStatus(obj, old)
			return
		}
		*status = *oldStatus
	}
}

// Spec is a Kind.Reset for an object without status: generation is 1 on create
// and moves when the spec does.
func Spec[T api.Object, S any](spec func(T) *S) func(obj, old api.Object, sub string) {
	return func(obj, old api.Object, _ string) {
		if old == nil {
			obj.SetGeneration(1)
			return
		}
		Generation(obj, old, Differ(spec(obj.(T)), spec(old.(T))))
	}
}

// Generation gives obj the generation of old, or the next one if changed.
func Generation(obj, old metav1.Object, changed bool) {
	n := old.GetGeneration()
	if changed {
		n++
	}
	obj.SetGeneration(n)
}

// Differ compares semantically: nil equals empty, and quantities and times are
// compared by what they mean. Of two pointers to wire types it compares the
// protobuf first, which is a tenth of the work when they are the same, as they
// mostly are.
func Differ(a, b any) bool {
	return !SameProtobuf(a, b) && !apiequality.Semantic.DeepEqual(a, b)
}

// message is a pointer to a wire type.
type message interface {
	Size() int
	MarshalToSizedBuffer([]byte) (int, error)
}

// SameProtobuf says that two values have a protobuf, and the same.
func SameProtobuf(a, b any) bool {
	x, ok := a.(message)
	y, also := b.(message)
	return ok && also && identical(x, y)
}

func identical(x, y message) bool {
	n := x.Size()
	if n != y.Size() {
		return false
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	*buf = slices.Grow((*buf)[:0], 2*n)
	xb, yb := (*buf)[:n], (*buf)[n:2*n]
	xn, xerr := x.MarshalToSizedBuffer(xb)
	yn, yerr := y.MarshalToSizedBuffer(yb)
	return xerr == nil && yerr == nil && xn == n && yn == n && bytes.Equal(xb, yb)
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}
