package client

import (
	"context"
	"reflect"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/proa-dev/proa/internal/api"
)

// Informers shares informers: whoever asks for the same type and scope of one
// Conn gets the same one, so that there is one map of pointers however many
// controllers read it.
type Informers struct {
	*informers
	conn Conn // of who has these
}

// informers are there once, for all who share them.
type informers struct {
	watches Conn
	account func(name string) Conn // nil = all act through watches
	mu      sync.Mutex
	all     map[informerKey]runner
	run     func(runner) // starts one; nil = Run was not called yet
}

type informerKey struct {
	of    reflect.Type
	scope Scope
}

type runner interface {
	Run(ctx context.Context) error
	Synced() <-chan struct{}
}

// NewInformers of one Conn.
func NewInformers(conn Conn) *Informers {
	return &Informers{&informers{watches: conn, all: map[informerKey]runner{}}, conn}
}

// WithAccounts says through which Conn acts who has an account of a name.
func (s *Informers) WithAccounts(of func(name string) Conn) *Informers {
	s.account = of
	return s
}

// As are the same informers for who acts under an account of its own, such as
// deployment-controller; under the same as everybody, if there are no accounts.
func (s *Informers) As(account string) *Informers {
	if s.account == nil {
		return s
	}
	return &Informers{s.informers, s.account(account)}
}

// Conn of who has the informers. They watch through that which they were made for.
func (s *Informers) Conn() Conn { return s.conn }

// Shared returns the informer of a type and scope. Once Run was called, a new one
// runs at once.
func Shared[T api.Object](s *Informers, scope Scope) *Informer[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := informerKey{reflect.TypeFor[T](), scope}
	if i, ok := s.all[key]; ok {
		return i.(*Informer[T])
	}
	i := NewInformer[T](s.watches, scope)
	s.all[key] = i
	if s.run != nil {
		s.run(i)
	}
	return i
}

// Run all informers that were and will be asked for, until ctx ends or one fails.
func (s *Informers) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { // Run lasts although there may be no informer yet
		<-ctx.Done()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.run = nil // nothing may be added any more once this returns
		return ctx.Err()
	})
	s.mu.Lock()
	s.run = func(i runner) { g.Go(func() error { return i.Run(ctx) }) }
	for _, i := range s.all {
		s.run(i)
	}
	s.mu.Unlock()
	return g.Wait()
}

// WaitSynced waits until every informer has told what was there at the start.
func (s *Informers) WaitSynced(ctx context.Context) error {
	for _, i := range s.runners() {
		select {
		case <-i.Synced():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *Informers) runners() []runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]runner, 0, len(s.all))
	for _, i := range s.all {
		all = append(all, i)
	}
	return all
}
