package apiserver

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver/audit"
	"github.com/proa-dev/proa/internal/apiserver/negotiate"
	"github.com/proa-dev/proa/internal/apiserver/record"
	"github.com/proa-dev/proa/internal/apiserver/table"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
	"github.com/proa-dev/proa/internal/cache"
)

// fail answers with the Status that an error is.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		w.WriteHeader(499) // the client is gone; nobody reads this
		return
	}
	status := record.StatusOf(err)
	if status.Details != nil {
		retryAfter(w.Header(), status.Details.RetryAfterSeconds)
	}
	if status.Code == http.StatusInternalServerError {
		s.log.Error("a request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	want, _ := negotiate.Accept(r, false, false)
	writeObject(w, r, int(status.Code), record.StatusGVK, &status, want)
}

// writeObject encodes an object and sends it.
func writeObject(w http.ResponseWriter, r *http.Request, code int, gvk schema.GroupVersionKind, obj runtime.Object, want negotiate.Want) {
	if rec := recordOf(w); rec.Wants(audit.Metadata) {
		record.Answer(rec, gvk, obj)
	}
	if _, custom := obj.(runtime.Unstructured); custom {
		gvk = schema.GroupVersionKind{}
	}
	doc, err := wire.Encode(gvk, obj, want.Media)
	if err != nil { // no protobuf form: JSON can say everything
		want.Media = wire.JSON
		doc, err = wire.Encode(gvk, obj, wire.JSON)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeDocument(w, r, code, doc, want)
}

// writeDocument sends bytes that are a whole answer.
func writeDocument(w http.ResponseWriter, r *http.Request, code int, doc []byte, want negotiate.Want) {
	if want.Pretty && want.Media == wire.JSON {
		var b bytes.Buffer
		if json.Indent(&b, doc, "", "  ") == nil {
			doc = b.Bytes()
		}
	}
	h := w.Header()
	h["Content-Type"] = contentTypes[want.Media]
	h["Cache-Control"] = noCache
	if len(doc) > gzipFrom && gzips(r) {
		writeGzip(w, code, func(z io.Writer) error { _, err := z.Write(doc); return err })
		return
	}
	h["Content-Length"] = []string{strconv.Itoa(len(doc))}
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		w.Write(doc)
	}
}

// Header values that are shared by all answers.
var (
	contentTypes = map[wire.Media][]string{
		wire.JSON: {wire.JSON.ContentType()}, wire.Protobuf: {wire.Protobuf.ContentType()}, wire.YAML: {wire.YAML.ContentType()},
	}
	noCache = []string{"no-cache, private"}
)

// gzipFrom is the size from which an answer is compressed for who wants that.
const gzipFrom = 128 << 10

// gzips says whether an answer is compressed: when the client takes it, and is
// not on this machine, where bytes cost less than packing and unpacking them.
func gzips(r *http.Request) bool {
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		return false
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return true
	}
	if from.Addr().IsLoopback() {
		return false
	}
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if here, err := netip.ParseAddrPort(local.String()); err == nil && here.Addr() == from.Addr() {
			return false
		}
	}
	return true
}

func writeGzip(w http.ResponseWriter, code int, write func(io.Writer) error) {
	w.Header().Set("Content-Encoding", "gzip")
	w.Header().Add("Vary", "Accept-Encoding")
	w.WriteHeader(code)
	z := zippers.Get().(*gzip.Writer)
	z.Reset(w)
	if write(z) == nil {
		z.Close()
	}
	z.Reset(nil)
	zippers.Put(z)
}

// zippers are large, and used again.
var zippers = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	return z
}}

// writeItem sends one stored object in the form that is wanted.
func (s *Server) writeItem(w http.ResponseWriter, r *http.Request, code int, item *cache.Item, k api.Served, want negotiate.Want) {
	switch want.Form {
	case negotiate.Table:
		meta := metav1.ListMeta{ResourceVersion: item.Object.GetResourceVersion()}
		s.writeTable(w, r, code, meta, []*cache.Item{item}, k, want)
		return
	case negotiate.Metadata:
		writeObject(w, r, code, want.GVK(false), table.Partial(item.Object, schema.GroupVersionKind{}), want)
		return
	}
	buf := documents.Get().(*[]byte)
	defer done(buf)
	doc, err := verbs.AppendDocument((*buf)[:0], item, k, want.Media)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if rec := recordOf(w); rec.Wants(audit.RequestResponse) {
		record.Item(rec, item, k)
	}
	*buf = doc
	writeDocument(w, r, code, doc, want)
}

// documents are written from bytes that are used again, unless they are large.
var documents = sync.Pool{New: func() any { return new([]byte) }}

const documentMost = 64 << 10

// done with bytes of documents.
func done(buf *[]byte) {
	if cap(*buf) > documentMost {
		*buf = nil
	}
	documents.Put(buf)
}

// writeList sends what a list found.
func (s *Server) writeList(w http.ResponseWriter, r *http.Request, list *verbs.List, k api.Served, want negotiate.Want) {
	meta := metav1.ListMeta{Continue: list.Continue, RemainingItemCount: list.Remaining}
	if list.Revision != 0 { // what was made, not stored, has none
		meta.ResourceVersion = strconv.FormatInt(list.Revision, 10)
	}
	if want.Form != negotiate.Metadata { // metadata is the same in all versions
		if err := verbs.ShapeAll(list.Items, k); err != nil {
			s.fail(w, r, err)
			return
		}
	}
	if want.Form == negotiate.Table {
		s.writeTable(w, r, http.StatusOK, meta, list.Items, k, want)
		return
	}
	if rec := recordOf(w); rec.Wants(audit.RequestResponse) {
		s.recordList(rec, r, list, k, want)
	}
	gvk := k.GVK()
	gvk.Kind += "List"
	buf := documents.Get().(*[]byte)
	defer done(buf)
	body := func(item *cache.Item) (wire.Text, error) { return verbs.Listed(item, k, want.Media, buf) }
	length := func(item *cache.Item) (int, error) { return verbs.ListedLen(item, k) }
	if want.Form == negotiate.Metadata {
		gvk = want.GVK(true)
		body = func(item *cache.Item) (wire.Text, error) { return metadataBody(item, want) }
		length = func(item *cache.Item) (int, error) {
			return wire.BodyLen(table.Partial(item.Object, schema.GroupVersionKind{}))
		}
	}
	send := func(to io.Writer) error {
		return wire.List(to, gvk, &meta, verbs.Each(list, body), verbs.Each(list, length), want.Media)
	}
	if want.Pretty && want.Media == wire.JSON || len(list.Items) < 20 {
		var b bytes.Buffer
		if err := send(&b); err != nil {
			s.fail(w, r, err)
			return
		}
		writeDocument(w, r, http.StatusOK, b.Bytes(), want)
		return
	}
	// Protobuf and custom resources may lack a form: find out before the header.
	if _, err := body(list.Items[0]); err != nil {
		s.fail(w, r, err)
		return
	}
	s.writeStream(w, r, http.StatusOK, want, send)
}

// writeStream sends an answer of unknown size.
func (s *Server) writeStream(w http.ResponseWriter, r *http.Request, code int, want negotiate.Want, send func(io.Writer) error) {
	h := w.Header()
	h["Content-Type"] = contentTypes[want.Media]
	h["Cache-Control"] = noCache
	if gzips(r) {
		writeGzip(w, code, send)
		return
	}
	w.WriteHeader(code)
	if err := send(w); err != nil {
		s.log.Debug("an answer was not sent whole", "path", r.URL.Path, "err", err)
		panic(http.ErrAbortHandler) // so that the client sees it
	}
}

// metadataBody of an item, for lists and watches of PartialObjectMetadata.
func metadataBody(item *cache.Item, want negotiate.Want) (wire.Text, error) {
	var body []byte
	var err error
	if want.Media == wire.Protobuf {
		body, err = wire.Body(table.Partial(item.Object, schema.GroupVersionKind{}), wire.Protobuf)
	} else {
		body, err = table.AppendPartial(nil, item, want.Meta)
	}
	return wire.Plain(body), err
}

func (s *Server) tableOptions(r *http.Request, k api.Served, want negotiate.Want) (table.Options, error) {
	o := table.Options{Kind: k.Hub(), Version: want.Meta, Whole: func(i *cache.Item) ([]byte, error) { return verbs.AppendDocument(nil, i, k, wire.JSON) }}
	if k.Convert != nil {
		o.Shaped = func(i *cache.Item) (api.Object, error) { return verbs.ShapedItem(i, k) }
	}
	o.Include = metav1.IncludeObjectPolicy(query(r).Get("includeObject"))
	switch o.Include {
	case "", metav1.IncludeMetadata, metav1.IncludeNone, metav1.IncludeObject:
		return o, nil
	}
	return o, apierrors.NewBadRequest(fmt.Sprintf("Unable to convert to Table as requested: includeObject: Invalid value: %q: must be 'Metadata', 'Object', 'None', or empty", o.Include))
}

func (s *Server) writeTable(w http.ResponseWriter, r *http.Request, code int, meta metav1.ListMeta, items []*cache.Item, k api.Served, want negotiate.Want) {
	o, err := s.tableOptions(r, k, want)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if rec := recordOf(w); rec.Wants(audit.RequestResponse) {
		s.recordTable(rec, r, meta, items, k, want)
	}
	if want.Media == wire.YAML || want.Pretty || len(items) < 20 {
		var b bytes.Buffer
		if err := table.Write(&b, o, meta, items); err != nil {
			s.fail(w, r, err)
			return
		}
		doc := b.Bytes()
		if want.Media == wire.YAML {
			doc, _ = wire.Document(schema.GroupVersionKind{}, wire.Plain(bytes.TrimSpace(doc)), wire.YAML)
		}
		writeDocument(w, r, code, doc, want)
		return
	}
	s.writeStream(w, r, code, want, func(to io.Writer) error { return table.Write(to, o, meta, items) })
}
