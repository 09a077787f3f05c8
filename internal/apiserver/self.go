package apiserver

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

// ownUser is the key of a context's user: who a request from this process is of.
type ownUser struct{}

// Transport sends requests to this server in the name of a user, without a
// connection. Everything but authentication is as for anybody else, and what
// others serve is reached through it, too. Answers are kept in memory whole: it
// is not for watches.
func (s *Server) Transport(u *request.User) http.RoundTripper { return transport{s, u} }

type transport struct {
	s *Server
	u *request.User
}

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (answer *http.Response, err error) {
	in := r.Clone(context.WithValue(r.Context(), ownUser{}, t.u))
	in.RequestURI, in.RemoteAddr = r.URL.RequestURI(), "127.0.0.1:0"
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer in.Body.Close()
	w := &recording{header: http.Header{}}
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				panic(p)
			}
			answer, err = nil, fmt.Errorf("the answer to %s %s was cut short", r.Method, r.URL.Path)
		}
	}()
	t.s.serve(w, in)
	if w.code == 0 {
		w.code = http.StatusOK
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", w.code, http.StatusText(w.code)), StatusCode: w.code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()), Request: r,
	}, nil
}

// recording is an answer in memory.
type recording struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (w *recording) Header() http.Header { return w.header }

func (w *recording) WriteHeader(code int) {
	if w.code == 0 && code >= http.StatusOK {
		w.code = code
	}
}

func (w *recording) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}
