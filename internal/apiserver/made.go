package apiserver

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/negotiate"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
	"github.com/proa-dev/proa/internal/cache"
)

// Maker makes the objects of a virtual kind that is read but never stored. What
// it returns is new, or shared and never changed.
type Maker interface {
	// Get one object. Errors are StatusErrors: NotFound above all.
	Get(ctx context.Context, namespace, name string) (api.Object, error)
	// List the objects in a namespace ("" = all) that may match; it need not
	// leave out those that do not, and their order is of no matter.
	List(ctx context.Context, namespace string, want verbs.Selector) ([]api.Object, error)
}

func (s *Server) getMade(w *response, r *http.Request, q *verbs.Request, m Maker, want negotiate.Want) {
	obj, err := m.Get(r.Context(), q.Namespace, q.Name)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.writeItem(w, r, http.StatusOK, &cache.Item{Object: obj}, q.Kind, want)
}

func (s *Server) listMade(w *response, r *http.Request, q *verbs.Request, m Maker, i *request.Info, want negotiate.Want) {
	o, err := s.listOptions(r, q.Kind, i)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	all, err := m.List(r.Context(), q.Namespace, o.Selector)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	list := &verbs.List{Items: make([]*cache.Item, 0, len(all))}
	for _, obj := range all {
		item := &cache.Item{Object: obj}
		matches, err := o.Matches(q.Kind, item)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		if matches {
			list.Items = append(list.Items, item)
		}
	}
	slices.SortFunc(list.Items, func(a, b *cache.Item) int {
		if by := strings.Compare(a.Object.GetNamespace(), b.Object.GetNamespace()); by != 0 {
			return by
		}
		return strings.Compare(a.Object.GetName(), b.Object.GetName())
	})
	s.writeList(w, r, list, q.Kind, want)
}
