package api

import (
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Catalog is the set of kinds that are served. Reading it is lock-free; Put and
// Remove (custom resources come and go) replace the whole.
type Catalog struct {
	mu      sync.Mutex
	now     atomic.Pointer[kinds]
	changed chan struct{}
}

type kinds struct {
	all      []*Kind
	resource map[schema.GroupVersionResource]Served
	kind     map[schema.GroupVersionKind]Served
	goType   map[reflect.Type]*Kind
}

// Served is a kind in one of the versions it is served in. Shape is nil for the
// storage shape.
type Served struct {
	*Kind
	Shape *Shape
}

// GVK is the served group, version and kind.
func (s Served) GVK() schema.GroupVersionKind {
	if s.Shape != nil {
		return s.Shape.GroupVersionKind
	}
	return s.Kind.GroupVersionKind
}

// Plural is the served resource name.
func (s Served) Plural() string {
	if s.Shape != nil && s.Shape.Resource != "" {
		return s.Shape.Resource
	}
	return s.Kind.Resource
}

// Hub is the kind as requests in this version see it.
func (s Served) Hub() *Kind {
	if s.Shape != nil && s.Shape.Hub != nil {
		return s.Shape.Hub
	}
	return s.Kind
}

// Subresource by name that this version has, nil if there is none.
func (s Served) Subresource(name string) *Subresource { return s.Hub().Subresource(name) }

// NewCatalog holds the kinds given. Two that serve the same resource or kind
// are an error.
func NewCatalog(all ...*Kind) (*Catalog, error) {
	n, err := arrange(all)
	if err != nil {
		return nil, err
	}
	c := &Catalog{changed: make(chan struct{})}
	c.now.Store(n)
	return c, nil
}

// Changed is closed when the kinds have changed after the call.
func (c *Catalog) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// replace the kinds. mu is held.
func (c *Catalog) replace(n *kinds) {
	c.now.Store(n)
	close(c.changed)
	c.changed = make(chan struct{})
}

// All kinds, in the order they were given. The slice is shared.
func (c *Catalog) All() []*Kind { return c.now.Load().all }

// Resource finds what is served under a group, version and plural.
func (c *Catalog) Resource(r schema.GroupVersionResource) (Served, bool) {
	s, ok := c.now.Load().resource[r]
	return s, ok
}

// Kind finds what is served under a group, version and kind.
func (c *Catalog) Kind(k schema.GroupVersionKind) (Served, bool) {
	s, ok := c.now.Load().kind[k]
	return s, ok
}

// Type finds the kind whose storage shape has the Go type of obj. It does not
// know unstructured objects: look those up by their GVK.
func (c *Catalog) Type(obj Object) (*Kind, bool) {
	k, ok := c.now.Load().goType[reflect.TypeOf(obj)]
	return k, ok
}

// Put adds kinds, or replaces those of the same group and resource.
func (c *Catalog) Put(add ...*Kind) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := without(c.now.Load().all, add)
	n, err := arrange(append(all, add...))
	if err == nil {
		c.replace(n)
	}
	return err
}

// Remove takes kinds out again, by their group and resource.
func (c *Catalog) Remove(gone ...*Kind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := arrange(without(c.now.Load().all, gone))
	if err == nil { // a subset of a good set is good
		c.replace(n)
	}
}

func without(all, gone []*Kind) []*Kind {
	var left []*Kind
	for _, k := range all {
		keep := true
		for _, g := range gone {
			keep = keep && k.GroupResource() != g.GroupResource()
		}
		if keep {
			left = append(left, k)
		}
	}
	return left
}

func arrange(all []*Kind) (*kinds, error) {
	n := &kinds{
		all:      all,
		resource: map[schema.GroupVersionResource]Served{},
		kind:     map[schema.GroupVersionKind]Served{},
		goType:   map[reflect.Type]*Kind{},
	}
	add := func(s Served) error {
		r := s.GVK().GroupVersion().WithResource(s.Plural())
		if old, dup := n.resource[r]; dup {
			return fmt.Errorf("%v is served by two kinds, %v and %v", r, old.Kind.GroupVersionKind, s.Kind.GroupVersionKind)
		}
		if _, dup := n.kind[s.GVK()]; dup {
			return fmt.Errorf("%v is described twice", s.GVK())
		}
		n.resource[r], n.kind[s.GVK()] = s, s
		return nil
	}
	for _, k := range all {
		if err := add(Served{Kind: k}); err != nil {
			return nil, err
		}
		if k.Encoding == Protobuf {
			n.goType[reflect.TypeOf(k.New())] = k
		}
		for i := range k.Shapes {
			if err := add(Served{k, &k.Shapes[i]}); err != nil {
				return nil, err
			}
		}
	}
	return n, nil
}
