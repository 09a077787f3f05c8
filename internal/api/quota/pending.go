package quota

import (
	"slices"
	"sync"

	"github.com/proa-dev/proa/internal/api"
)

// Pending are the writes that have been charged to quotas and are not done: nobody
// who counts can see their objects yet. nil has none, and takes none.
type Pending struct {
	mu     sync.Mutex
	writes map[string][]*write // by namespace
}

type write struct {
	kind   *api.Kind
	object api.Object
}

// Add the write of an object, until done is called.
func (p *Pending) Add(k *api.Kind, obj api.Object) (done func()) {
	if p == nil {
		return func() {}
	}
	ns, w := obj.GetNamespace(), &write{k, obj.DeepCopyObject().(api.Object)} // the write goes on with it
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.writes == nil {
		p.writes = map[string][]*write{}
	}
	p.writes[ns] = append(p.writes[ns], w)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		left := slices.DeleteFunc(p.writes[ns], func(x *write) bool { return x == w })
		if p.writes[ns] = left; len(left) == 0 {
			delete(p.writes, ns)
		}
	}
}

// Of a kind in a namespace. Whoever counts asks before it reads what is there: then
// each object is in one of the two, or in both, as a write of it is about to be done.
func (p *Pending) Of(k *api.Kind, namespace string) (all []api.Object) {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.writes[namespace] {
		if w.kind.GroupKind() == k.GroupKind() {
			all = append(all, w.object)
		}
	}
	return all
}

// With is what is there and what is pending, which takes the place of what has its name.
func With(there, pending []api.Object) []api.Object {
	if len(pending) == 0 {
		return there
	}
	all := slices.Clone(pending)
	for _, o := range there {
		if !slices.ContainsFunc(pending, func(p api.Object) bool { return p.GetName() == o.GetName() }) {
			all = append(all, o)
		}
	}
	return all
}
