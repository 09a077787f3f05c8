package controllertest

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
)

// Shaky is a Conn that fails some writes, before or after they are done, and a few
// reads; whose watches are late, tell things twice and break off; and whose lists
// can be made to forget.
type Shaky struct {
	client.Conn
	Percent atomic.Int64 // of writes that fail; 0 = no faults of any kind
	Reads   atomic.Int64 // one of so many fails, where there are faults; at first 40
	Forget  atomic.Bool  // lists of pods are empty

	dice  *dice
	tried atomic.Int64 // writes
}

func newShaky(t testing.TB, conn client.Conn, fail int) *Shaky {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("PROA_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("PROA_SEED=%s: write the number that a failed test printed", text)
		}
		seed = n
	}
	if fail > 0 {
		t.Logf("to see the same faults again: PROA_SEED=%d", seed)
	}
	s := &Shaky{Conn: conn, dice: newDice(seed)}
	s.Percent.Store(int64(fail))
	s.Reads.Store(40)
	return s
}

// errBroken is what a request gets whose connection breaks.
var errBroken = errors.New("failed by chance: connection reset by peer")

// fault of a write.
type fault struct {
	err  error
	done bool // it was carried out all the same
}

// fault of the next write of a verb and kind, nil = none. What a server may answer
// before it does something, and what a client may see after it was done.
func (s *Shaky) fault(verb string, k *api.Kind) *fault {
	s.tried.Add(1)
	percent := int(s.Percent.Load())
	if percent == 0 {
		return nil
	}
	what, hit := s.dice.now(verb+" "+k.Resource, 100/percent, 6)
	if !hit {
		return nil
	}
	gr := schema.GroupResource{Group: k.Group, Resource: k.Resource}
	switch what {
	case 0:
		return &fault{err: apierrors.NewConflict(gr, "?", errors.New("failed by chance"))}
	case 1:
		return &fault{err: apierrors.NewInternalError(errors.New("failed by chance"))}
	case 2:
		return &fault{err: apierrors.NewServerTimeout(gr, verb, 0)}
	case 3:
		return &fault{err: errBroken}
	case 4:
		return &fault{err: apierrors.NewTimeoutError("failed by chance", 0), done: true}
	}
	return &fault{err: errBroken, done: true}
}

func (s *Shaky) write(verb string, k *api.Kind, f func() (api.Object, error)) (api.Object, error) {
	x := s.fault(verb, k)
	if x != nil && !x.done {
		return nil, x.err
	}
	out, err := f()
	if x != nil && err == nil {
		return nil, x.err
	}
	return out, err
}

// unread says whether a read fails.
func (s *Shaky) unread(verb string, k *api.Kind) error {
	if s.Percent.Load() == 0 {
		return nil
	}
	if _, hit := s.dice.now(verb+" "+k.Resource, int(s.Reads.Load()), 1); hit {
		return apierrors.NewTimeoutError("failed by chance", 0)
	}
	return nil
}

// Get implements client.Conn.
func (s *Shaky) Get(ctx context.Context, k *api.Kind, namespace, name string) (api.Object, error) {
	if err := s.unread("get", k); err != nil {
		return nil, err
	}
	return s.Conn.Get(ctx, k, namespace, name)
}

// List implements client.Conn.
func (s *Shaky) List(ctx context.Context, k *api.Kind, namespace string, opt client.ListOptions) ([]api.Object, string, error) {
	if err := s.unread("list", k); err != nil {
		return nil, "", err
	}
	out, rev, err := s.Conn.List(ctx, k, namespace, opt)
	if s.Forget.Load() && k.Resource == "pods" {
		out = nil
	}
	return out, rev, err
}

// Create implements client.Conn.
func (s *Shaky) Create(ctx context.Context, k *api.Kind, obj api.Object, opt client.WriteOptions) (api.Object, error) {
	return s.write("create", k, func() (api.Object, error) { return s.Conn.Create(ctx, k, obj, opt) })
}

// Update implements client.Conn.
func (s *Shaky) Update(ctx context.Context, k *api.Kind, obj api.Object, opt client.WriteOptions) (api.Object, error) {
	return s.write("update", k, func() (api.Object, error) { return s.Conn.Update(ctx, k, obj, opt) })
}

// Patch implements client.Conn.
func (s *Shaky) Patch(ctx context.Context, k *api.Kind, namespace, name string, p client.Patch, opt client.WriteOptions) (api.Object, error) {
	return s.write("patch", k, func() (api.Object, error) { return s.Conn.Patch(ctx, k, namespace, name, p, opt) })
}

// Delete implements client.Conn.
func (s *Shaky) Delete(ctx context.Context, k *api.Kind, namespace, name string, opt metav1.DeleteOptions) error {
	_, err := s.write("delete", k, func() (api.Object, error) { return nil, s.Conn.Delete(ctx, k, namespace, name, opt) })
	return err
}

// Post implements client.Conn.
func (s *Shaky) Post(ctx context.Context, k *api.Kind, namespace, name, sub string, body runtime.Object) (out runtime.Object, err error) {
	_, err = s.write("post", k, func() (api.Object, error) {
		out, err = s.Conn.Post(ctx, k, namespace, name, sub, body)
		return nil, err
	})
	return out, err
}

// Watch implements client.Conn. Where there are faults, the Events come without a
// View: what an informer shows is as old as what it was told.
func (s *Shaky) Watch(ctx context.Context, k *api.Kind, scope client.Scope) (client.Events, error) {
	inner, err := s.Conn.Watch(ctx, k, scope)
	if err != nil || s.Percent.Load() == 0 {
		return inner, err
	}
	return newEvents(s, k, scope, inner), nil
}
