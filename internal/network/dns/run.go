package dns

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/network/serviceslices"
)

// Runner keeps an Index at what Services, slices and Namespaces say.
type Runner struct {
	index      *Index
	services   *client.Informer[*corev1.Service]
	slices     *client.Informer[*discoveryv1.EndpointSlice]
	namespaces *client.Informer[*corev1.Namespace]
	of         *serviceslices.Index
	wake       chan struct{}

	mu    sync.Mutex
	dirty map[[2]string]bool
}

// NewRunner asks for its informers: make it before they run.
func NewRunner(index *Index, inf *client.Informers) *Runner {
	r := &Runner{
		index:      index,
		services:   client.Shared[*corev1.Service](inf, client.Scope{}),
		slices:     client.Shared[*discoveryv1.EndpointSlice](inf, client.Scope{}),
		namespaces: client.Shared[*corev1.Namespace](inf, client.Scope{}),
		wake:       make(chan struct{}, 1),
		dirty:      map[[2]string]bool{},
	}
	r.services.OnChange(func(old, new *corev1.Service) {
		if new == nil {
			new = old
		}
		r.mark(new.Namespace, new.Name)
	})
	r.of = serviceslices.New(r.slices, r.mark)
	r.namespaces.OnChange(func(old, new *corev1.Namespace) {
		if new == nil {
			index.SetNamespace(old.Name, false)
		} else {
			index.SetNamespace(new.Name, true)
		}
	})
	return r
}

func (r *Runner) mark(namespace, name string) {
	r.mu.Lock()
	r.dirty[[2]string{namespace, name}] = true
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends.
func (r *Runner) Run(ctx context.Context) error {
	for _, synced := range []<-chan struct{}{r.services.Synced(), r.slices.Synced(), r.namespaces.Synced()} {
		select {
		case <-synced:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		r.mu.Lock()
		dirty := r.dirty
		r.dirty = map[[2]string]bool{}
		r.mu.Unlock()
		for at := range dirty {
			var records Records
			if svc, ok := r.services.Get(at[0], at[1]); ok {
				records = Of(r.index.zone, svc, r.of.Of(at[0], at[1]))
			}
			r.index.Set(client.Key(at[0], at[1]), records)
		}
		r.index.Complete()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.wake:
		}
	}
}
