package owned

import (
	"context"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
)

// Guard keeps a controller that makes objects with generated names from running
// away. Lists show every acknowledged write; should one ever not, a controller
// that believes it would create without end. What was made by one pass has to be
// shown to the next.
type Guard[T api.Object] struct {
	mu   sync.Mutex
	made map[string]map[types.UID]string // by the owner's key: UID → name
}

// Made notes an object that was created for an owner (client.Key).
func (g *Guard[T]) Made(owner string, obj T) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.made == nil {
		g.made = map[string]map[types.UID]string{}
	}
	if g.made[owner] == nil {
		g.made[owner] = map[types.UID]string{}
	}
	g.made[owner][obj.GetUID()] = obj.GetName()
}

// Forget an owner that is gone.
func (g *Guard[T]) Forget(owner string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.made, owner)
}

// Check that what was made for an owner is among the objects that it claimed
// now, or is really gone or nobody's any more. After an error nothing may be
// created; the next pass checks again.
func (g *Guard[T]) Check(ctx context.Context, c client.Client[T], owner api.Object, sel labels.Selector, claimed []T) error {
	key := client.Key(owner.GetNamespace(), owner.GetName())
	g.mu.Lock()
	made := g.made[key]
	delete(g.made, key)
	g.mu.Unlock()
	if len(made) == 0 {
		return nil
	}
	for _, o := range claimed {
		delete(made, o.GetUID())
	}
	for uid, name := range made {
		o, err := c.Get(ctx, owner.GetNamespace(), name)
		switch {
		case apierrors.IsNotFound(err) || err == nil && o.GetUID() != uid:
			continue
		case err == nil && !(metav1.IsControlledBy(o, owner) && sel.Matches(labels.Set(o.GetLabels()))):
			continue // released
		case err == nil:
			err = fmt.Errorf("%s %q was created for %s, but the list of what it owns does not show it: nothing more is created until it does", c.Kind().Resource, name, key)
		}
		g.mu.Lock()
		if g.made[key] == nil {
			g.made[key] = map[types.UID]string{}
		}
		for uid, name := range made {
			g.made[key][uid] = name
		}
		g.mu.Unlock()
		return err
	}
	return nil
}
