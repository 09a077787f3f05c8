package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-dev/proa/test/bench/figure"
)

// changes that all watchers are told of; each is an object of a kilobyte.
const changes = 300

// watches opens all watches of the namespace's ConfigMaps, makes ConfigMaps one
// after the other, and counts events until each watcher has seen the last.
func (l *API) watches(ctx context.Context, t *Target, add Add) error {
	const path = "/api/v1/namespaces/" + benchNamespace + "/configmaps"
	var ready, done sync.WaitGroup
	var events atomic.Int64
	failures := make([]error, l.Watchers)
	ready.Add(l.Watchers)
	for i := range l.Watchers {
		done.Go(func() {
			failures[i] = t.watch(ctx, path+"?watch=1&timeoutSeconds=120", ready.Done, func(line []byte) bool {
				events.Add(1)
				return !bytes.Contains(line, []byte(`"name":"last"`))
			})
		})
	}
	ready.Wait()
	began := time.Now()
	value := strings.Repeat("x", 1000)
	for i := range changes {
		name := fmt.Sprintf("c-%04d", i)
		if i == changes-1 {
			name = "last"
		}
		object := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q},"data":{"k":%q}}`, name, value)
		if _, err := t.do(ctx, request{"POST", path, jsonType, "", object}, 201); err != nil {
			return err
		}
	}
	done.Wait()
	if err := errors.Join(failures...); err != nil {
		return err
	}
	rate := float64(events.Load()) / time.Since(began).Seconds()
	name := fmt.Sprintf("watch events to %d watchers", l.Watchers)
	t.Log("%-28s %8.0f /s", name, rate)
	add(name, figure.PerSecond, rate)
	return nil
}
