package apiserver

import (
	"bufio"
	"net"
	"net/http"
	"strings"

	"github.com/proa-dev/proa/internal/apiserver/admission"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
)

// connect passes a request on to a pod, a service or a node.
func (s *Server) connect(w *response, r *http.Request, q *verbs.Request, i *request.Info) {
	if q.Subresource != "proxy" && r.Method != http.MethodGet && (q.Subresource == "log" || r.Method != http.MethodPost) {
		s.fail(w, r, notAllowed())
		return
	}
	rest := ""
	if len(i.Parts) > 3 {
		rest = "/" + strings.Join(i.Parts[3:], "/")
	}
	if q.Subresource == "proxy" && strings.HasSuffix(r.URL.Path, "/") && !strings.HasSuffix(rest, "/") {
		rest += "/"
	}
	if q.Subresource != "log" {
		err := s.cfg.Admission.Validate(r.Context(), &admission.Write{
			Operation: admission.Connect, Kind: q.Kind, Namespace: q.Namespace, Name: q.Name, Subresource: q.Subresource, User: q.User,
			Body: connectOptions(q.Kind.Resource, q.Subresource, r.URL.Query(), rest),
		})
		if err != nil {
			s.fail(w, r, err)
			return
		}
	}
	s.stream.Serve(w, r, q, rest, s.fail)
}

// Hijack implements http.Hijacker: upgraded connections are passed on as they are.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.wrote, w.code = true, http.StatusSwitchingProtocols
		w.audit.Header(http.StatusSwitchingProtocols)
	}
	return conn, rw, err
}
