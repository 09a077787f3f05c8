package apiserver

import (
	"io"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver/audit"
	"github.com/proa-dev/proa/internal/apiserver/negotiate"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
	"github.com/proa-dev/proa/internal/cache"
)

// What the audit record is told of bodies and answers. The functions here are
// called only for requests whose bodies and answers are recorded.

// recordOf the request that is answered; nil = there is none.
func recordOf(w http.ResponseWriter) *audit.Record {
	if w, ok := w.(*response); ok {
		return w.audit
	}
	return nil
}

// deprecated warns of an old version and records that it is in use, and when it
// goes, if the warning says so.
func (w *response) deprecated(text string) {
	w.warn(text)
	if !w.audit.Wants(audit.Metadata) {
		return
	}
	w.audit.Annotate("k8s.io/deprecated", "true")
	if _, after, ok := strings.Cut(text, "unavailable in v"); ok {
		if release, _, ok := strings.Cut(after, "+"); ok {
			w.audit.Annotate("k8s.io/removed-release", release)
		}
	}
}

// recordSent records the object in a body; gvk is what it is called there.
func recordSent(rec *audit.Record, obj runtime.Object, k api.Served) {
	rec.Sent(obj, func() ([]byte, error) {
		if o, ok := obj.(api.Object); ok {
			shaped, err := verbs.Shaped(o, k)
			if err != nil {
				return nil, err
			}
			obj = shaped
		}
		return encode(k.GVK(), obj)
	})
}

// recordPart records a body of another kind than the resource's.
func recordPart(rec *audit.Record, obj runtime.Object, gvk schema.GroupVersionKind) {
	rec.Sent(obj, func() ([]byte, error) { return encode(gvk, obj) })
}

func recordDelete(rec *audit.Record, o *metav1.DeleteOptions) {
	recordPart(rec, o, schema.GroupVersionKind{Group: "meta.k8s.io", Version: "v1", Kind: "DeleteOptions"})
}

func encode(gvk schema.GroupVersionKind, obj runtime.Object) ([]byte, error) {
	if _, custom := obj.(runtime.Unstructured); custom {
		gvk = schema.GroupVersionKind{}
	}
	return wire.Encode(gvk, obj, wire.JSON)
}

// recordAnswer records an object that is answered, and of a Status what is bounded.
func recordAnswer(rec *audit.Record, gvk schema.GroupVersionKind, obj runtime.Object) {
	if status, ok := obj.(*metav1.Status); ok {
		rec.Status(status)
	}
	rec.Answered(func(to io.Writer) error {
		doc, err := encode(gvk, obj)
		if err == nil {
			_, err = to.Write(doc)
		}
		return err
	})
}

func recordItem(rec *audit.Record, item *cache.Item, k api.Served) {
	rec.Answered(func(to io.Writer) error {
		doc, err := appendDocument(nil, item, k, wire.JSON)
		if err == nil {
			_, err = to.Write(doc)
		}
		return err
	})
}

func (s *Server) recordList(rec *audit.Record, r *http.Request, list *verbs.List, k api.Served, want negotiate.Want) {
	rec.Answered(func(to io.Writer) error {
		s.writeList(&capture{Writer: to}, plain(r), list, k, inJSON(want))
		return nil
	})
}

func (s *Server) recordTable(rec *audit.Record, r *http.Request, meta metav1.ListMeta, items []*cache.Item, k api.Served, want negotiate.Want) {
	rec.Answered(func(to io.Writer) error {
		s.writeTable(&capture{Writer: to}, plain(r), http.StatusOK, meta, items, k, inJSON(want))
		return nil
	})
}

func inJSON(want negotiate.Want) negotiate.Want {
	want.Media, want.Pretty = wire.JSON, false
	return want
}

// plain is a request whose answer is not compressed.
func plain(r *http.Request) *http.Request {
	c := *r
	c.Header = http.Header{}
	return &c
}

// capture takes the body of an answer.
type capture struct {
	io.Writer
	header http.Header
}

func (c *capture) Header() http.Header {
	if c.header == nil {
		c.header = http.Header{}
	}
	return c.header
}

func (*capture) WriteHeader(int) {}
