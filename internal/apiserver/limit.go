package apiserver

import (
	"context"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

// limit bounds how many requests are worked on at once.
type limit struct {
	max int64 // negative = only counted
	now atomic.Int64
}

func (l *limit) enter() bool {
	if now := l.now.Add(1); now > l.max && l.max >= 0 {
		l.now.Add(-1)
		return false
	}
	return true
}

func (l *limit) leave() { l.now.Add(-1) }

// enter waits until a request may be worked on, by priority and fairness or, where
// that is off, by the number of requests of its sort. leave must be called if it may.
func (s *Server) enter(ctx context.Context, w *response, u *request.User, i *request.Info) (leave func(), ok bool) {
	l := &s.writes
	switch i.Verb {
	case "get", "list", "head":
		l = &s.reads
	}
	if s.cfg.Fairness == nil {
		return l.leave, l.enter()
	}
	pass, reason := s.cfg.Fairness.Enter(ctx, u, i, s.width(i))
	h := w.Header()
	h["X-Kubernetes-Pf-Flowschema-Uid"], h["X-Kubernetes-Pf-Prioritylevel-Uid"] = pass.Flow()
	if reason != "" {
		return nil, false
	}
	l.enter()
	return func() {
		pass.Done()
		l.leave()
	}, true
}

// objectsPerSeat is how many objects of a list cost what one other request costs.
// What is listed was encoded already and is copied out.
const objectsPerSeat = 1000

// width of a request in seats: a list of much is as much work as several others.
func (s *Server) width(i *request.Info) int {
	if i.Verb != "list" && i.Verb != "deletecollection" || i.Name != "" {
		return 1
	}
	k, ok := s.cfg.Catalog.Resource(schema.GroupVersionResource{Group: i.Group, Version: i.Version, Resource: i.Resource})
	if !ok || k.Virtual {
		return 1
	}
	set := s.cfg.Cache.Of(k.Kind)
	if set == nil {
		return 1
	}
	return 1 + set.Snapshot().Count(i.Namespace)/objectsPerSeat
}
