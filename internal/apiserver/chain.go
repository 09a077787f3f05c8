package apiserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// quiet logs what net/http says about clients that go away as debug.
type quiet struct{ slog.Handler }

// limit bounds how many requests are worked on at once.
type limit struct {
	max int64
	now atomic.Int64
}

func (l *limit) enter() bool {
	if l.now.Add(1) > l.max {
		l.now.Add(-1)
		return false
	}
	return true
}

func (l *limit) leave() { l.now.Add(-1) }

// Handler answers requests: the chain, outermost first.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

func (s *Server) serve(rw http.ResponseWriter, r *http.Request) {
	start := time.Now()
	w := &response{ResponseWriter: rw}
	info := request.Parse(r)
	var user *request.User
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.log.Error("a request made the server panic", "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			if !w.wrote {
				s.fail(w, r, apierrors.NewInternalError(errors.New("This request caused apiserver to panic. Look in the logs for details.")))
			}
		}
		took := time.Since(start)
		s.metrics.done(r, info, w.status(), took)
		if s.cfg.Audit != nil {
			s.cfg.Audit(r, user, info, w.status(), took)
		}
	}()

	user, err := s.authenticate(r)
	if err != nil {
		s.fail(w, r, apierrors.NewUnauthorized("Unauthorized"))
		return
	}
	if s.cfg.Authorizer != nil && impersonates(r.Header) {
		if user, err = auth.Impersonate(s.cfg.Authorizer, user, r); err != nil {
			s.fail(w, r, err)
			return
		}
	}

	if !longRunning(info) {
		l := &s.reads
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			l = &s.writes
		}
		if !l.enter() {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
			return
		}
		defer l.leave()
	}

	ctx := request.WithInfo(request.WithUser(r.Context(), user), info)
	ctx = request.WithWarnings(ctx, w.warn)
	r = r.WithContext(ctx)
	if err := s.authorize(ctx, user, info, r); err != nil {
		s.fail(w, r, err)
		return
	}
	s.route(w, r, user, info)
}

func (s *Server) authenticate(r *http.Request) (*request.User, error) {
	if s.cfg.Authenticator != nil {
		u, err := s.cfg.Authenticator.Authenticate(r)
		if u != nil || err != nil {
			return u, err
		}
	}
	return &request.User{Name: request.Anonymous, Groups: []string{request.Unauthenticated}}, nil
}

func impersonates(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, "Impersonate-") {
			return true
		}
	}
	return false
}

// authorize returns nil or a Forbidden Status.
func (s *Server) authorize(ctx context.Context, u *request.User, i *request.Info, r *http.Request) error {
	if s.cfg.Authorizer == nil {
		return nil
	}
	a := auth.AttributesOf(i, r)
	decision, why, err := s.cfg.Authorizer.Authorize(ctx, u, a)
	if decision == auth.Allow {
		return nil
	}
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	return forbidden(u, a, why)
}

func forbidden(u *request.User, a auth.Attributes, why string) error {
	if !a.IsResource {
		text := fmt.Sprintf("User %q cannot %s path %q", u.Name, a.Verb, a.Path)
		if why != "" {
			text += ": " + why
		}
		return apierrors.NewForbidden(schema.GroupResource{}, "", errors.New(text))
	}
	resource := a.Resource
	if a.Subresource != "" {
		resource += "/" + a.Subresource
	}
	text := fmt.Sprintf("User %q cannot %s resource %q in API group %q", u.Name, a.Verb, resource, a.Group)
	if a.Namespace != "" {
		text += fmt.Sprintf(" in the namespace %q", a.Namespace)
	} else {
		text += " at the cluster scope"
	}
	if why != "" {
		text += ": " + why
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: a.Group, Resource: a.Resource}, a.Name, errors.New(text))
}

// longRunning requests are not bounded in number: they wait.
func longRunning(i *request.Info) bool {
	if i.Verb == "watch" {
		return true
	}
	switch i.Subresource {
	case "proxy", "exec", "attach", "log", "portforward":
		return true
	}
	return strings.HasPrefix(i.Path, "/debug/pprof/")
}

// response remembers what was answered, and holds warnings until then.
type response struct {
	http.ResponseWriter
	wrote bool
	code  int
	sent  []string
}

func (w *response) status() int {
	if w.code == 0 {
		return http.StatusOK
	}
	return w.code
}

func (w *response) WriteHeader(code int) {
	if !w.wrote {
		w.wrote, w.code = true, code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *response) Write(b []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController flush and hijack.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements http.Flusher.
func (w *response) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// warn adds a Warning header, once per text.
func (w *response) warn(text string) {
	if w.wrote {
		return
	}
	for _, s := range w.sent {
		if s == text {
			return
		}
	}
	w.sent = append(w.sent, text)
	w.Header().Add("Warning", "299 - "+quoteWarning(text))
}

// quoteWarning as RFC 7234 wants it: no control characters, quotes escaped.
func quoteWarning(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	text = strings.ReplaceAll(text, `\`, `\\`)
	return `"` + strings.ReplaceAll(text, `"`, `\"`) + `"`
}

// retryAfter sets the header that goes with a Status.
func retryAfter(h http.Header, seconds int32) {
	if seconds > 0 {
		h.Set("Retry-After", strconv.Itoa(int(seconds)))
	}
}
