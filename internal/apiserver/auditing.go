package apiserver

import (
	"io"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver/audit"
	"github.com/proa-dev/proa/internal/apiserver/negotiate"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
	"github.com/proa-dev/proa/internal/cache"
)

// What the audit record is told of answers that only HTTP has: lists in the form that
// is asked for, and tables. Package record tells it of the others.

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
