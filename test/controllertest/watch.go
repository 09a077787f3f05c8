package controllertest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
)

// events of a watch that is late, says things twice, and breaks off: then what
// happens is missed until it is back, and the difference is told, in any order,
// as client.Events promises.
type events struct {
	shaky  *Shaky
	kind   *api.Kind
	scope  client.Scope
	name   string // of the stream of dice
	synced chan struct{}

	told map[string]api.Object // what whoever reads this knows, by key
	next []client.Event        // to be told before anything else

	mu      sync.Mutex
	inner   client.Events
	stopped bool
}

func newEvents(s *Shaky, k *api.Kind, scope client.Scope, inner client.Events) *events {
	return &events{
		shaky: s, kind: k, scope: scope, name: fmt.Sprintf("watch %s %v", k.Resource, scope), synced: make(chan struct{}),
		told: map[string]api.Object{}, inner: inner,
	}
}

func (e *events) Synced() <-chan struct{} { return e.synced }

func (e *events) Stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped = true
	e.inner.Stop()
}

func (e *events) Next(ctx context.Context) ([]client.Event, error) {
	if len(e.next) > 0 {
		return e.part(), nil
	}
	batch, err := e.inner.Next(ctx)
	if err != nil {
		return nil, err
	}
	if !e.ready() {
		out := e.tell(batch)
		select {
		case <-e.inner.Synced():
			close(e.synced)
		default:
		}
		return out, nil
	}
	what, hit := e.shaky.dice.now(e.name, 3, 4)
	switch {
	case !hit:
	case what == 0: // broken off: this batch is lost, and what comes until it is back
		if batch, err = e.again(ctx); err != nil {
			return nil, err
		}
	case what == 1: // told twice
		e.next = e.tell(batch)
		for _, x := range slices.Clone(e.next) {
			if x.New != nil && e.told[key(x.New)] == x.New {
				e.next = append(e.next, client.Event{Old: x.New, New: x.New})
			}
		}
		return e.part(), nil
	default:
		if err := e.pause(ctx); err != nil {
			return nil, err
		}
	}
	e.next = e.tell(batch)
	return e.part(), nil
}

func (e *events) ready() bool {
	select {
	case <-e.synced:
		return true
	default:
		return false
	}
}

// part of what is to be told: batches end anywhere.
func (e *events) part() []client.Event {
	n := len(e.next)
	if n > 1 {
		n = 1 + e.shaky.dice.roll(e.name, n)
	}
	out := e.next[:n:n]
	e.next = e.next[n:]
	return out
}

// pause for up to 20 ms.
func (e *events) pause(ctx context.Context) error {
	late := time.NewTimer(time.Duration(e.shaky.dice.roll(e.name, 20)) * time.Millisecond)
	defer late.Stop()
	select {
	case <-late.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// again watches anew after a while and returns what is different then.
func (e *events) again(ctx context.Context) ([]client.Event, error) {
	e.inner.Stop()
	if err := e.pause(ctx); err != nil {
		return nil, err
	}
	inner, err := e.shaky.Conn.Watch(ctx, e.kind, e.scope)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	e.inner = inner
	if e.stopped {
		inner.Stop()
	}
	e.mu.Unlock()
	there := map[string]api.Object{}
	for synced := false; !synced; {
		batch, err := inner.Next(ctx)
		if err != nil {
			return nil, err
		}
		for _, x := range batch {
			if x.New != nil {
				there[key(x.New)] = x.New
			} else {
				delete(there, key(x.Old))
			}
		}
		select {
		case <-inner.Synced():
			synced = true
		default:
		}
	}
	var diff []client.Event
	for k, o := range e.told {
		if there[k] == nil {
			diff = append(diff, client.Event{Old: o})
		}
	}
	for k, o := range there {
		if was := e.told[k]; was == nil || was.GetResourceVersion() != o.GetResourceVersion() {
			diff = append(diff, client.Event{New: o})
		}
	}
	slices.SortFunc(diff, func(a, b client.Event) int { return strings.Compare(key(about(a)), key(about(b))) })
	e.shaky.dice.shuffle(e.name, len(diff), func(i, j int) { diff[i], diff[j] = diff[j], diff[i] })
	return diff, nil
}

// tell gives events the states before them that were told. One object in the place
// of another of its name is told as the end of the one and the beginning of the other.
func (e *events) tell(batch []client.Event) []client.Event {
	out := make([]client.Event, 0, len(batch))
	for _, x := range batch {
		k := key(about(x))
		old := e.told[k]
		switch {
		case x.New == nil && old != nil:
			delete(e.told, k)
			out = append(out, client.Event{Old: x.Old})
		case x.New == nil: // nobody knew of it
		default:
			e.told[k] = x.New
			out = append(out, client.Between(old, x.New)...)
		}
	}
	return out
}

func about(x client.Event) api.Object {
	if x.New != nil {
		return x.New
	}
	return x.Old
}

func key(o api.Object) string { return client.Key(o.GetNamespace(), o.GetName()) }
