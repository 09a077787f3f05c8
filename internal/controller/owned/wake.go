package owned

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// Selector of an owner. ok is false for one that selects everything or cannot be
// read; validation keeps such out.
func Selector(s *metav1.LabelSelector) (sel labels.Selector, ok bool) {
	sel, err := metav1.LabelSelectorAsSelector(s)
	return sel, err == nil && !sel.Empty()
}

// Changed returns a handler of changes to what owners of a kind own. It wakes who
// owned the object before and who owns it now; for an orphan those whose selector
// matches, because they might adopt it.
func Changed[O, T api.Object](q *loop.Queue, kind string, owners *client.Informer[O], selector func(O) *metav1.LabelSelector) func(old, now T) {
	var none T
	return func(old, now T) {
		for _, o := range [...]T{old, now} {
			if api.Object(o) == api.Object(none) {
				continue
			}
			if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
				if ref.Kind == kind {
					q.Add(client.Key(o.GetNamespace(), ref.Name))
				}
				continue
			}
			if api.Object(o) != api.Object(now) || o.GetDeletionTimestamp() != nil {
				continue
			}
			for _, owner := range owners.List(o.GetNamespace(), nil) {
				if sel, ok := Selector(selector(owner)); ok && sel.Matches(labels.Set(o.GetLabels())) {
					q.AddObject(owner)
				}
			}
		}
	}
}

// Gone returns a handler that wakes the owner, of a kind, of what was deleted.
func Gone[T api.Object](q *loop.Queue, kind string) func(old, now T) {
	var none T
	return func(old, now T) {
		if api.Object(now) != api.Object(none) {
			return
		}
		if ref := metav1.GetControllerOfNoCopy(old); ref != nil && ref.Kind == kind {
			q.Add(client.Key(old.GetNamespace(), ref.Name))
		}
	}
}
