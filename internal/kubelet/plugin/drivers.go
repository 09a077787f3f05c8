package plugin

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// Drivers of one type that have registered. Several may have one name, while the next
// takes over from the one before.
type Drivers[D interface{ Socket() string }] struct {
	mu   sync.Mutex
	all  map[string][]D // by name, the latest last; lists are never changed
	came chan struct{}  // closed when one comes, nil = nobody waits
}

// Add a driver, the latest of its name.
func (s *Drivers[D]) Add(name string, d D) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[string][]D{}
	}
	s.all[name] = append(slices.Clip(s.all[name]), d)
	if s.came != nil {
		close(s.came)
		s.came = nil
	}
}

// Remove the driver with a name and a socket. It is returned, if it was there.
func (s *Drivers[D]) Remove(name, socket string) (d D, was bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.all[name]
	at := slices.IndexFunc(list, func(d D) bool { return d.Socket() == socket })
	if at < 0 {
		return d, false
	}
	d = list[at]
	if s.all[name] = slices.Delete(slices.Clone(list), at, at+1); len(list) == 1 {
		delete(s.all, name)
	}
	return d, true
}

// Of a name, the latest last. The list must not be changed.
func (s *Drivers[D]) Of(name string) []D {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[name]
}

// Names of the drivers that are there.
func (s *Drivers[D]) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.all))
}

// Await a driver of a name, for as long as ctx lasts.
func (s *Drivers[D]) Await(ctx context.Context, name string) {
	for {
		s.mu.Lock()
		if s.came == nil {
			s.came = make(chan struct{})
		}
		is, came := len(s.all[name]) > 0, s.came
		s.mu.Unlock()
		if is {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-came:
		}
	}
}
