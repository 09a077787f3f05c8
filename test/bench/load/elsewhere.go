package load

import (
	"context"
	"fmt"
	"sync"
)

// Elsewhere is what watches look at in which nothing happens.
type Elsewhere struct {
	Name string
	path string
	pods bool // what changes meanwhile are pods
}

// Elsewheres are the scopes that are tried.
func Elsewheres() []Elsewhere {
	return []Elsewhere{
		{"another namespace", "/api/v1/namespaces/" + elsewhere + "/configmaps?", false},
		{"another node", "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-x&", true},
		{"another label", scalePods + "?labelSelector=app%3Dx&", true},
	}
}

// Pods says that pods are changed while others watch elsewhere.
func (e Elsewhere) Pods() bool { return e.pods }

// Watch with many watches until stop is called. They all run when it returns.
func (e Elsewhere) Watch(ctx context.Context, t *Target, n int) (stop func() error, err error) {
	var list struct {
		Metadata struct{ ResourceVersion string }
	}
	if err := t.read(ctx, e.path+"limit=1", &list); err != nil {
		return nil, err
	}
	path := e.path + "watch=1&timeoutSeconds=1200&resourceVersion=" + list.Metadata.ResourceVersion
	ctx, cancel := context.WithCancel(ctx)
	var ready, done sync.WaitGroup
	var mu sync.Mutex
	ready.Add(n)
	for range n {
		done.Go(func() {
			told := false
			failed := t.watch(ctx, path, ready.Done, func([]byte) bool { told = true; return false })
			mu.Lock()
			defer mu.Unlock()
			switch {
			case told:
				err = fmt.Errorf("a watch of %s was told of something", e.Name)
			case failed != nil && ctx.Err() == nil:
				err = failed
			}
		})
	}
	ready.Wait()
	return func() error {
		cancel()
		done.Wait()
		t.client.CloseIdleConnections()
		return err
	}, nil
}
