package verbs

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
)

// builtin are the actions that the verbs bring themselves.
func (v *Verbs) builtin() {
	v.actions[ActionKey{pods, "binding"}] = v.bind
	v.actions[ActionKey{schema.GroupResource{Resource: "bindings"}, ""}] = v.bind
	v.actions[ActionKey{pods, "eviction"}] = v.evict
}

// Post does an action: of a subresource (binding, eviction, token), or of a kind
// that is never stored (a review). It returns the answer.
func (v *Verbs) Post(ctx context.Context, r *Request, body runtime.Object) (runtime.Object, error) {
	do, ok := v.actions[ActionKey{r.Kind.GroupResource(), r.Subresource}]
	if !ok {
		return nil, apierrors.NewMethodNotSupported(r.resource(), "create")
	}
	var target api.Object
	if r.Subresource != "" && r.Name != "" {
		item, err := v.Get(ctx, r)
		if err != nil {
			return nil, err
		}
		target = item.Object
	}
	return do(ctx, r, target, body)
}

// HasAction says whether a POST to a subresource is answered by an action.
func (v *Verbs) HasAction(k *api.Kind, sub string) bool {
	_, ok := v.actions[ActionKey{k.GroupResource(), sub}]
	return ok
}
