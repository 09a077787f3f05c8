package ingress

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// repeats is how often a request that an endpoint may have seen is repeated.
const repeats = 2

// errNoEndpoints means there was nothing to send to.
var errNoEndpoints = errors.New("no endpoints")

// errTimeout means the Ingress' own limit has passed.
var errTimeout = errors.New("timeout of the Ingress")

// RoundTrip sends a request to an endpoint of its backend, and to another one if
// it may. The request carries its exchange.
func (s *Server) RoundTrip(req *http.Request) (*http.Response, error) {
	x := exchangeOf(req.Context())
	safe := idempotent(req)
	var tried []*endpoint
	var last error
	for sent, round := 0, 1; ; {
		e := x.backend.pick(tried)
		if e == nil && sent > 0 && round == 1 {
			round = 2 // those that failed an old connection may take a new one
			e = x.backend.pick(nil)
		}
		if e == nil {
			if last == nil {
				last = errNoEndpoints
			}
			return nil, last
		}
		x.endpoint, x.attempts = e.addr, x.attempts+1
		resp, written, err := s.try(e, req, x.body, safe, x.rule.Options.Timeout)
		if err == nil {
			e.answered()
			return resp, nil
		}
		last = err
		if ctxErr := req.Context().Err(); ctxErr != nil {
			return nil, ctxErr
		}
		again, broken := x.body.again()
		if broken != nil {
			return nil, errClient{broken}
		}
		if errors.Is(err, errTimeout) || !again {
			return nil, err
		}
		if written {
			if sent++; !safe || sent > repeats {
				return nil, err
			}
		} else if isDial(err) {
			e.refused(s.now())
		}
		tried = append(tried, e)
	}
}

// try sends the request to one endpoint. written tells whether any of it may
// have got there.
func (s *Server) try(e *endpoint, req *http.Request, body *body, safe bool, timeout time.Duration) (_ *http.Response, written bool, _ error) {
	sent := &sentBytes{}
	ctx, cancel := context.WithCancelCause(req.Context())
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: sent.on})
	out := req.WithContext(ctx)
	u := *req.URL
	u.Host = e.addr
	out.URL = &u
	body.lend(out)

	var limit *time.Timer
	if timeout > 0 {
		limit = time.AfterFunc(timeout, func() { cancel(errTimeout) })
	}
	e.open.Add(1)
	resp, err := e.transport(safe, s.now()).RoundTrip(out)
	if limit != nil {
		limit.Stop()
	}
	if err != nil {
		e.open.Add(-1)
		if errors.Is(context.Cause(ctx), errTimeout) {
			err = errTimeout
		}
		cancel(nil)
		return nil, !isDial(err) && sent.any(), err
	}
	closed := func() { e.open.Add(-1); cancel(nil) }
	if rw, ok := resp.Body.(io.ReadWriteCloser); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body = &upgraded{ReadWriteCloser: rw, closed: closed}
	} else {
		resp.Body = &answer{ReadCloser: resp.Body, closed: closed}
	}
	return resp, true, nil
}

// answer ends the exchange when the body is closed, as ReverseProxy always does.
type answer struct {
	io.ReadCloser
	closed func()
	ended  atomic.Bool
}

func (a *answer) Close() error {
	err := a.ReadCloser.Close()
	if a.ended.CompareAndSwap(false, true) {
		a.closed()
	}
	return err
}

type upgraded struct {
	io.ReadWriteCloser
	closed func()
	ended  atomic.Bool
}

func (u *upgraded) Close() error {
	err := u.ReadWriteCloser.Close()
	if u.ended.CompareAndSwap(false, true) {
		u.closed()
	}
	return err
}

// idempotent says whether sending the request twice does what once does.
func idempotent(req *http.Request) bool {
	if req.Header.Get("Upgrade") != "" {
		return true // nothing happens before the handshake is answered
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return req.Header.Get("Idempotency-Key") != ""
}

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// counted is a connection that knows how much of what was written to it the
// kernel took.
type counted struct {
	net.Conn
	n atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// sentBytes tells whether a request has written anything to its connection.
// A transport that tries again by itself, which it does only when it may,
// begins anew.
type sentBytes struct {
	mu    sync.Mutex
	conn  *counted // nil = unknown: a connection shared by requests
	from  int64
	known bool
}

func (s *sentBytes) on(info httptrace.GotConnInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn, s.known = info.Conn.(*counted); s.known {
		s.from = s.conn.n.Load()
	}
}

func (s *sentBytes) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.known || s.conn.n.Load() != s.from
}
