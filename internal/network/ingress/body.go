package ingress

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// Bodies up to this size are read before the request is sent, so that it can
// be sent again.
const bufferedBody = 64 << 10

// linger is how long a client that has its answer may go on sending before its
// connection is closed; closing at once could cost it the answer.
const linger = 500 * time.Millisecond

// body is a request's body across attempts: either buffered, or a stream that one
// attempt at a time may read.
//
// The stream belongs to the server, and no Read of it may go on when the handler
// has returned; but an endpoint may answer before it has all of it, or while it
// still comes. So the server is told not to touch the stream (EnableFullDuplex),
// all reading goes through here, and end makes it stop.
type body struct {
	buffered []byte
	stream   io.Reader
	left     int64                 // of the stream, if it said how much it is; else < 0
	deadline func(time.Time) error // of reading from an HTTP/1 client, nil = not needed

	reading sync.Mutex // held while the stream is read
	mu      sync.Mutex
	holder  *lent // the attempt that may read
	touched bool  // something was read
	over    error // why there is no more
}

var errBodyTaken = errors.New("the request's body is read by another attempt")

// newBody takes over the body of a client's request. Call end when it was answered.
func newBody(w http.ResponseWriter, req *http.Request) (*body, error) {
	b := &body{left: req.ContentLength}
	switch {
	case req.Body == nil || req.Body == http.NoBody || req.ContentLength == 0:
	case req.ContentLength > 0 && req.ContentLength <= bufferedBody:
		b.buffered = make([]byte, req.ContentLength)
		if _, err := io.ReadFull(req.Body, b.buffered); err != nil {
			return nil, errClient{err}
		}
	default:
		b.stream = req.Body
		if req.ProtoMajor == 1 {
			control := http.NewResponseController(w)
			if err := control.EnableFullDuplex(); err != nil {
				return nil, err
			}
			b.deadline = control.SetReadDeadline
		}
	}
	return b, nil
}

// errClient is a fault of the client's connection.
type errClient struct{ error }

// lend gives an attempt the body to send, and takes it from the one before.
func (b *body) lend(out *http.Request) {
	switch {
	case b.stream != nil:
		l := &lent{b}
		b.mu.Lock()
		b.holder = l
		b.mu.Unlock()
		out.Body = l
	case b.buffered != nil:
		out.Body = io.NopCloser(bytes.NewReader(b.buffered))
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.buffered)), nil }
	default:
		out.Body = http.NoBody
	}
}

// again takes the body back after a failed attempt, and says whether another
// one can have the whole of it, or what went wrong on the client's side.
func (b *body) again() (whole bool, broken error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holder = nil
	if b.over != nil && !errors.Is(b.over, io.EOF) {
		broken = b.over
	}
	return !b.touched, broken
}

// complete says whether the client has nothing more to send.
func (b *body) complete() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stream == nil || errors.Is(b.over, io.EOF)
}

// end stops reading, also a Read that waits for the client.
func (b *body) end() {
	b.mu.Lock()
	done := b.stream == nil || b.over != nil
	b.holder = nil
	b.mu.Unlock()
	if done || b.deadline == nil {
		return // an HTTP/2 stream ends with its handler
	}
	_ = b.deadline(time.Unix(1, 0))
	b.reading.Lock()
	defer b.reading.Unlock()
	_ = b.deadline(time.Now().Add(linger)) // for what the server drains
}

// lent is the stream as an attempt gets it.
type lent struct{ *body }

func (l *lent) Read(p []byte) (int, error) {
	l.reading.Lock()
	defer l.reading.Unlock()
	l.mu.Lock()
	switch {
	case l.over != nil:
		defer l.mu.Unlock()
		return 0, l.over
	case l.holder != l:
		defer l.mu.Unlock()
		return 0, errBodyTaken
	}
	l.touched = true
	l.mu.Unlock()
	n, err := l.stream.Read(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left > 0 {
		if l.left -= int64(n); l.left == 0 && err == nil {
			err = io.EOF
		}
	}
	l.over = err
	return n, err
}

// Close does nothing: a failed attempt must not close the client's stream.
func (l *lent) Close() error { return nil }
