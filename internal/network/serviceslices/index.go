// Package serviceslices finds the EndpointSlices of a Service without looking
// at those of others.
package serviceslices

import (
	"maps"
	"slices"
	"sync"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/proa-dev/proa/internal/client"
)

// Index holds EndpointSlices by the Service they name in their label. It is
// safe for concurrent use.
type Index struct {
	changed func(namespace, service string)

	mu sync.RWMutex
	of map[string]map[string]*discoveryv1.EndpointSlice // NS/SERVICE → SLICE
}

// New follows an informer that does not run yet. changed is called after a
// slice of a Service has come, changed or gone; it must not block.
func New(inf *client.Informer[*discoveryv1.EndpointSlice], changed func(namespace, service string)) *Index {
	x := &Index{changed: changed, of: map[string]map[string]*discoveryv1.EndpointSlice{}}
	inf.OnChange(x.Change)
	return x
}

// Of returns the slices of a Service, in no order.
func (x *Index) Of(namespace, service string) []*discoveryv1.EndpointSlice {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.Collect(maps.Values(x.of[client.Key(namespace, service)]))
}

// Change takes over one change, as an informer tells it.
func (x *Index) Change(old, new *discoveryv1.EndpointSlice) {
	was, is := serviceOf(old), serviceOf(new)
	x.mu.Lock()
	if was != "" {
		key := client.Key(old.Namespace, was)
		if delete(x.of[key], old.Name); len(x.of[key]) == 0 {
			delete(x.of, key)
		}
	}
	if is != "" {
		key := client.Key(new.Namespace, is)
		if x.of[key] == nil {
			x.of[key] = map[string]*discoveryv1.EndpointSlice{}
		}
		x.of[key][new.Name] = new
	}
	x.mu.Unlock()
	if was != "" && was != is {
		x.changed(old.Namespace, was)
	}
	if is != "" {
		x.changed(new.Namespace, is)
	}
}

func serviceOf(s *discoveryv1.EndpointSlice) string {
	if s == nil {
		return ""
	}
	return s.Labels[discoveryv1.LabelServiceName]
}
