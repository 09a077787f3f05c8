package apiserver

import (
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
)

// route sends a request that may be made to what answers it.
func (s *Server) route(w *response, r *http.Request, u *request.User, i *request.Info) {
	if !i.IsResource {
		s.path(w, r)
		return
	}
	k, ok := s.cfg.Catalog.Resource(schema.GroupVersionResource{Group: i.Group, Version: i.Version, Resource: i.Resource})
	if !ok {
		s.elsewhere(w, r)
		return
	}
	if k.Cluster && i.Namespace != "" && !(i.Group == "" && i.Resource == "namespaces") || !k.Cluster && i.Namespace == "" && i.Name != "" && len(i.Parts) > 1 {
		s.elsewhere(w, r)
		return
	}
	if k.Shape != nil && k.Shape.Deprecated != "" {
		w.deprecated(k.Shape.Deprecated)
	} else if k.Shape == nil && k.Kind.Deprecated != "" {
		w.deprecated(k.Kind.Deprecated)
	}
	if i.Subresource != "" {
		s.subresource(w, r, u, i, k)
		return
	}
	if !s.does(k, i) {
		s.fail(w, r, notAllowed())
		return
	}
	q := &verbs.Request{Kind: k, Namespace: namespaceOf(k, i), Name: i.Name, User: u}
	switch i.Verb {
	case "get":
		s.get(w, r, q)
	case "list":
		s.list(w, r, q, i)
	case "watch":
		s.watch(w, r, q, i)
	case "create":
		s.create(w, r, q)
	case "update":
		s.update(w, r, q)
	case "patch":
		s.patch(w, r, q)
	case "delete":
		s.delete(w, r, q)
	case "deletecollection":
		s.deleteCollection(w, r, q, i)
	default:
		s.fail(w, r, notAllowed())
	}
}

// does says whether a kind answers to what is asked of it at this path.
func (s *Server) does(k api.Served, i *request.Info) bool {
	named := len(i.Parts) > 1
	switch i.Verb {
	case "create":
		if named {
			return false
		}
	case "update", "patch":
		if !named {
			return false
		}
	}
	if i.Verb == "create" && !k.Cluster && i.Namespace == "" {
		return false
	}
	return k.Does(i.Verb)
}

// notAllowed is the answer to a method that a path does not know.
func notAllowed() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusMethodNotAllowed, Reason: metav1.StatusReasonMethodNotAllowed,
		Message: "the server does not allow this method on the requested resource", Details: &metav1.StatusDetails{},
	}}
}

// namespaceOf a request: that of the path, but none for cluster-scoped kinds
// (the path of a namespace names it twice).
func namespaceOf(k api.Served, i *request.Info) string {
	if k.Cluster {
		return ""
	}
	return i.Namespace
}

// subresource sends a request to what is below an object.
func (s *Server) subresource(w *response, r *http.Request, u *request.User, i *request.Info, k api.Served) {
	sub := k.Subresource(i.Subresource)
	if sub == nil || i.Name == "" || len(i.Parts) > 3 && !longRunning(i) {
		s.elsewhere(w, r)
		return
	}
	q := &verbs.Request{Kind: k, Namespace: namespaceOf(k, i), Name: i.Name, Subresource: sub.Name, User: u}
	if s.stream.Handles(k.Kind, sub.Name) {
		s.connect(w, r, q, i)
		return
	}
	allowed := sub.Verbs
	if allowed == nil {
		allowed = []string{"get", "patch", "update"}
	}
	if !slices.Contains(allowed, i.Verb) {
		s.fail(w, r, notAllowed())
		return
	}
	projected := sub.Get != nil
	switch {
	case i.Verb == "create":
		s.post(w, r, q, sub)
	case i.Verb == "get" && projected:
		s.getPart(w, r, q, sub)
	case i.Verb == "get":
		s.get(w, r, q)
	case i.Verb == "update" && projected:
		s.updatePart(w, r, q, sub)
	case i.Verb == "update":
		s.update(w, r, q)
	case i.Verb == "patch" && projected:
		s.patchPart(w, r, q, sub)
	case i.Verb == "patch":
		s.patch(w, r, q)
	default:
		s.elsewhere(w, r)
	}
}

// elsewhere is for resources that are not in the catalog: aggregated ones, or none.
func (s *Server) elsewhere(w *response, r *http.Request) {
	for prefix, h := range s.cfg.Extra {
		if strings.HasPrefix(r.URL.Path, prefix) {
			h.ServeHTTP(w, r)
			return
		}
	}
	if s.cfg.Aggregated != nil && s.cfg.Aggregated(w, r) {
		return
	}
	if s.cfg.Fallback != nil {
		s.cfg.Fallback.ServeHTTP(w, r)
		return
	}
	if i := request.InfoFrom(r.Context()); i != nil && i.IsResource && s.serves(i.Group, i.Version) {
		s.fail(w, r, noSuchResource())
		return
	}
	http.NotFound(w, r)
}

// serves says whether there is anything under a group and version.
func (s *Server) serves(group, version string) bool {
	for _, k := range s.cfg.Catalog.All() {
		for _, v := range versionsOf(k) {
			if v.Group == group && v.Version == version {
				return true
			}
		}
	}
	return false
}

// noSuchResource is the answer to a path below a version that leads nowhere.
func noSuchResource() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		Message: "the server could not find the requested resource", Details: &metav1.StatusDetails{},
	}}
}
