package apiserver

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/proa-dev/proa/internal/apiserver/audit"
	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/record"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// quiet logs what net/http says about clients that go away as debug.
type quiet struct{ slog.Handler }

// Handler answers requests: the chain, outermost first.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

func (s *Server) serve(rw http.ResponseWriter, r *http.Request) {
	start := time.Now()
	w := &response{ResponseWriter: rw, audit: s.cfg.Audit.Begin(r)}
	info := request.Parse(r)
	var user *request.User
	defer func() {
		p := recover()
		if p != nil {
			w.audit.Panic(p)
		}
		if p == http.ErrAbortHandler {
			panic(p)
		}
		if p != nil {
			s.log.Error("a request made the server panic", "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			if !w.wrote {
				s.fail(w, r, apierrors.NewInternalError(errors.New("This request caused apiserver to panic. Look in the logs for details.")))
			}
		} else {
			w.audit.End()
		}
		s.metrics.done(r, info, w.status(), time.Since(start))
	}()

	ctx := request.WithWarnings(r.Context(), w.warn)
	if id := r.Header[audit.Header]; id != nil {
		w.Header()[audit.Header] = id // the client finds the record by it
	}
	if w.audit != nil {
		ctx = audit.With(ctx, w.audit)
	}
	user, err := s.authenticate(ctx, r, start)
	if err != nil {
		s.log.Debug("a request was not authenticated", "path", r.URL.Path, "err", err)
		w.audit.Unauthenticated(r, info)
		s.fail(w, r, apierrors.NewUnauthorized("Unauthorized"))
		return
	}
	if err := w.audit.Decide(r, user, info, longRunning(info)); err != nil {
		s.fail(w, r, record.ErrNotStored())
		return
	}
	if s.cfg.Authorizer != nil && impersonates(r.Header) {
		by, constraint := user, ""
		if user, constraint, err = auth.Impersonate(ctx, s.cfg.Authorizer, by, auth.AttributesOf(info, r), r.Header, &s.cfg.Metrics.Impersonation); err != nil {
			s.fail(w, r, err)
			return
		}
		if user != by {
			w.audit.Impersonated(user, constraint)
		}
	}

	if !longRunning(info) {
		leave, ok := s.enter(ctx, w, user, info)
		if !ok {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
			return
		}
		defer leave()
	}

	ctx = request.WithInfo(request.WithUser(ctx, user), info)
	r = r.WithContext(ctx)
	if err := s.authorize(ctx, w, user, info, r); err != nil {
		s.fail(w, r, err)
		return
	}
	s.route(w, r, user, info)
}

var errNoCredentials = errors.New("the request shows no credentials, and none may come without")

// authenticate says who sent a request that came at start; nobody known is an error.
func (s *Server) authenticate(ctx context.Context, r *http.Request, start time.Time) (*request.User, error) {
	u, err := s.who(ctx, r)
	m, took := &s.cfg.Metrics.Authentication, time.Since(start)
	switch {
	case err != nil:
		m.Error.Done(took)
	case u == nil:
		m.Failure.Done(took)
		err = errNoCredentials
	default:
		m.Known(u.Name, took)
	}
	return u, err
}

func (s *Server) who(ctx context.Context, r *http.Request) (*request.User, error) {
	if u, ok := ctx.Value(ownUser{}).(*request.User); ok {
		return u, nil
	}
	if s.cfg.Authenticator == nil {
		return &request.User{Name: request.Anonymous, Groups: []string{request.Unauthenticated}}, nil
	}
	return s.cfg.Authenticator.Authenticate(ctx, r)
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
func (s *Server) authorize(ctx context.Context, w *response, u *request.User, i *request.Info, r *http.Request) error {
	if s.cfg.Authorizer == nil {
		return nil
	}
	a := auth.AttributesOf(i, r)
	start := time.Now()
	decision, why, err := s.cfg.Authorizer.Authorize(ctx, u, a)
	m, took := &s.cfg.Metrics.Authorization, time.Since(start)
	switch {
	case decision == auth.Allow:
		m.Allowed.Done(took)
		w.audit.Annotate(record.Decision, "allow")
		w.audit.Annotate(record.Reason, why)
		return nil
	case err != nil:
		m.Error.Done(took)
		w.audit.Annotate(record.Reason, "internal error")
		return apierrors.NewInternalError(err)
	case decision == auth.Deny:
		m.Denied.Done(took)
	default:
		m.NoOpinion.Done(took)
	}
	w.audit.Annotate(record.Decision, "forbid")
	w.audit.Annotate(record.Reason, why)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	return auth.Forbidden(u, a, why)
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
	audit *audit.Record // nil = nobody writes this request down
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
		w.audit.Header(code)
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *response) Write(b []byte) (int, error) {
	if !w.wrote {
		w.wrote = true
		w.audit.Header(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController flush and hijack.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements http.Flusher.
func (w *response) Flush() {
	if !w.wrote {
		w.wrote = true
		w.audit.Header(http.StatusOK)
	}
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
