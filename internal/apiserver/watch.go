package apiserver

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver/negotiate"
	"github.com/proa-dev/proa/internal/apiserver/record"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/apiserver/table"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
	"github.com/proa-dev/proa/internal/cache"
)

// A watch without a timeout of its own lasts between once and twice minWatch, so
// that many do not end together.
const minWatch = 30 * time.Minute

// bookmarkEvery is how often a watch that wants them is told how far it is.
const bookmarkEvery = time.Minute

// chunk of events is written at once, at most.
const chunk = 64 << 10

// When more than a crowd of watches run, each is written to at most once per
// pace: what comes in bursts goes out in batches. An event after a quiet time goes
// out at once. A write takes about 20 µs of a processor here and as much at the
// client, ten times what an event takes: with 100 µs a watch, all of them together
// never take more than a fifth of a core for writing, however fast events come.
const (
	crowd    = 100
	paceEach = 100 * time.Microsecond
	paceMost = 100 * time.Millisecond
)

// pace is how long a watch rests after a write while so many run.
func pace(watches int64) time.Duration {
	if watches <= crowd {
		return 0
	}
	return min(time.Duration(watches)*paceEach, paceMost)
}

func (s *Server) watch(w *response, r *http.Request, q *verbs.Request, i *request.Info) {
	want, err := negotiate.Accept(r, custom(q.Kind), true)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	o, err := s.listOptions(r, q.Kind, i)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	out := &watchWriter{w: w, kind: q.Kind, want: want}
	if want.Form == negotiate.Table {
		if out.table, err = s.tableOptions(r, q.Kind, want); err != nil {
			s.fail(w, r, err)
			return
		}
	}
	timeout := time.Duration(float64(minWatch) * (1 + rand.Float64()))
	if o.timeout != nil && *o.timeout > 0 {
		timeout = time.Duration(*o.timeout) * time.Second
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	q.Name = ""
	running, err := s.verbs.Watch(ctx, q, verbs.WatchOptions{Selector: o.Selector, ResourceVersion: o.ResourceVersion, SendInitialEvents: o.sendInitial})
	if err != nil && !apierrors.IsResourceExpired(err) {
		s.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", want.Media.StreamType())
	h.Set("Cache-Control", "no-cache, private")
	w.WriteHeader(http.StatusOK)
	if err != nil { // too old: the stream says so
		out.fail(err)
		return
	}
	defer running.Stop()
	s.metrics.watching(1)
	defer s.metrics.watching(-1)
	s.tell(ctx, out, running, o)
}

// tell a client what happens until ctx ends, the client goes, or the server stops.
func (s *Server) tell(ctx context.Context, out *watchWriter, running *verbs.Watch, o listOptions) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer s.onClosing(cancel)()
	initialEnd := o.sendInitial != nil && *o.sendInitial && o.bookmarks
	wait, done := ctx, func() {}
	again := func() { // until the next bookmark
		done()
		wait, done = context.WithTimeout(ctx, bookmarkEvery)
	}
	if o.bookmarks {
		again()
	}
	defer func() { done() }()
	var rest *time.Timer
	var events []verbs.Event
	for first := true; ; first = false {
		var err error
		var at int64
		events, at, err = running.Next(wait, events)
		switch {
		case err == nil:
		case ctx.Err() != nil: // the time is up, the client went, or the server stops
			if o.bookmarks && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				_ = out.bookmark(running.Revision(), false)
				_ = out.flush()
			}
			return
		case errors.Is(err, context.DeadlineExceeded):
			again()
			if out.bookmark(running.Revision(), false) != nil || out.flush() != nil {
				return
			}
			continue
		case errors.Is(err, cache.ErrStopped): // the kind is served no more, or the server stops
			return
		default:
			out.fail(err)
			return
		}
		if out.shape(events) != nil {
			return
		}
		for n := range events {
			if out.event(events[n]) != nil {
				return
			}
		}
		clear(events)
		if first && initialEnd && out.bookmark(at, true) != nil {
			return
		}
		if out.flush() != nil {
			return
		}
		d := pace(s.metrics.watchers.Load())
		if d == 0 {
			continue
		}
		if rest == nil {
			rest = time.NewTimer(d)
		} else {
			rest.Reset(d)
		}
		select {
		case <-ctx.Done():
		case <-rest.C:
		}
	}
}

// watchWriter writes the frames of a watch.
type watchWriter struct {
	w     *response
	kind  api.Served
	want  negotiate.Want
	table table.Options
	buf   []byte
}

// event adds a frame.
func (o *watchWriter) event(e verbs.Event) error {
	gvk, body, err := o.body(e.Item)
	if err != nil { // the client has to see that it misses something
		o.fail(err)
		return err
	}
	return o.frame(e.Type, gvk, body)
}

// shape what happened as far as that can be done at once.
func (o *watchWriter) shape(events []verbs.Event) error {
	if o.kind.ConvertAll == nil || o.want.Form == negotiate.Metadata {
		return nil
	}
	items := make([]*cache.Item, len(events))
	for i := range events {
		items[i] = events[i].Item
	}
	err := verbs.ShapeAll(items, o.kind)
	if err != nil {
		o.fail(err)
	}
	return err
}

func (o *watchWriter) frame(t watch.EventType, gvk schema.GroupVersionKind, body wire.Text) error {
	o.buf = wire.Event(o.buf, t, gvk, body, o.want.Media)
	if len(o.buf) < chunk {
		return nil
	}
	_, err := o.w.Write(o.buf)
	o.buf = o.buf[:0]
	return err
}

// body of an item in the form that is wanted, and what is to be said of its kind.
func (o *watchWriter) body(item *cache.Item) (schema.GroupVersionKind, wire.Text, error) {
	switch o.want.Form {
	case negotiate.Table:
		var b bytes.Buffer
		meta := metav1.ListMeta{ResourceVersion: item.Object.GetResourceVersion()}
		err := table.Write(&b, o.table, meta, []*cache.Item{item})
		o.table.NoColumns = true
		return schema.GroupVersionKind{}, wire.Plain(bytes.TrimRight(b.Bytes(), "\n")), err
	case negotiate.Metadata:
		b, err := metadataBody(item, o.want)
		if o.want.Media == wire.Protobuf {
			return o.want.GVK(false), b, err
		}
		return schema.GroupVersionKind{}, b, err
	}
	b, err := verbs.Body(item, o.kind, o.want.Media)
	return verbs.DocumentKind(o.kind, item.Object), b, err
}

func (o *watchWriter) bookmark(revision int64, initialEnd bool) error {
	obj := verbs.Bookmark(o.kind.Kind, revision, initialEnd)
	if o.want.Form == negotiate.Table { // an empty table that has a revision
		var b bytes.Buffer
		opts := o.table
		opts.NoColumns = true
		items := []*cache.Item{}
		if initialEnd { // its mark is on the row's object
			items = append(items, &cache.Item{Object: obj, Revision: revision})
		}
		if err := table.Write(&b, opts, metav1.ListMeta{ResourceVersion: strconv.FormatInt(revision, 10)}, items); err != nil {
			return err
		}
		return o.frame(watch.Bookmark, schema.GroupVersionKind{}, wire.Plain(bytes.TrimRight(b.Bytes(), "\n")))
	}
	gvk, body, err := o.body(&cache.Item{Object: obj, Revision: revision})
	if err != nil {
		return err
	}
	return o.frame(watch.Bookmark, gvk, body)
}

// fail ends the watch with an ERROR event.
func (o *watchWriter) fail(err error) {
	status := record.StatusOf(err)
	body, err := wire.Body(&status, o.want.Media)
	if err != nil {
		return
	}
	if o.frame(watch.Error, record.StatusGVK, wire.Plain(body)) == nil {
		_ = o.flush()
	}
}

func (o *watchWriter) flush() error {
	if len(o.buf) > 0 {
		if _, err := o.w.Write(o.buf); err != nil {
			return err
		}
		o.buf = o.buf[:0]
	}
	o.w.Flush()
	if cap(o.buf) > 4*chunk { // once there were many; now it is idle
		o.buf = nil
	}
	return nil
}
