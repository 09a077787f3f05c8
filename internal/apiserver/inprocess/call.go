package inprocess

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/audit"
	"github.com/proa-dev/proa/internal/apiserver/record"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
	"github.com/proa-dev/proa/internal/cache"
)

// call is one that is written down. It is described by the HTTP request that it would
// be, and its record goes the way of that request's. All methods may be called on nil:
// then nobody wants to know.
type call struct {
	rec *audit.Record
	q   *verbs.Request
}

// begin a call. What is done in it is done with the context that is returned. An error
// is that of a log without which nothing may be done.
func (u *User) begin(ctx context.Context, method string, q *verbs.Request, query url.Values) (context.Context, *call, error) {
	if u.Audit == nil {
		return ctx, nil, nil
	}
	c, err := u.recorded(method, q, query)
	return audit.With(ctx, c.rec), c, err
}

func (u *User) recorded(method string, q *verbs.Request, query url.Values) (*call, error) {
	if q.DryRun {
		if query == nil {
			query = url.Values{}
		}
		query.Set("dryRun", metav1.DryRunAll)
	}
	r := &http.Request{
		Method: method, URL: &url.URL{Path: pathOf(method, q), RawQuery: query.Encode()},
		Header: http.Header{"User-Agent": {u.Agent}}, RemoteAddr: "127.0.0.1:0",
	}
	c := &call{u.Audit.Begin(r), q}
	info := request.Parse(r)
	if err := c.rec.Decide(r, u.User, info, info.Verb == "watch"); err != nil {
		return c, c.failed(record.ErrNotStored())
	}
	c.rec.Annotate(record.Decision, "allow")
	c.rec.Annotate(record.Reason, "it is a part of the API server's process")
	return c, nil
}

// pathOf what is asked for.
func pathOf(method string, q *verbs.Request) string {
	gvk := q.Kind.GVK()
	path := "/apis/" + gvk.Group + "/" + gvk.Version
	if gvk.Group == "" {
		path = "/api/" + gvk.Version
	}
	if !q.Kind.Cluster && q.Namespace != "" {
		path += "/namespaces/" + q.Namespace
	}
	path += "/" + q.Kind.Plural()
	if q.Name != "" && (method != http.MethodPost || q.Subresource != "") { // who creates says the name in the body
		path += "/" + q.Name
	}
	if q.Subresource != "" {
		path += "/" + q.Subresource
	}
	return path
}

// wants says whether bodies are to be told.
func (c *call) wants(l audit.Level) bool { return c != nil && c.rec.Wants(l) }

// sent an object of the kind that the call is about.
func (c *call) sent(obj api.Object) {
	if c.wants(audit.Metadata) {
		record.Sent(c.rec, obj, c.q.Kind)
	}
}

// sentPart is for bodies of another kind.
func (c *call) sentPart(obj runtime.Object, gvk schema.GroupVersionKind) {
	if c.wants(audit.Metadata) {
		record.Part(c.rec, obj, gvk)
	}
}

func (c *call) sentPatch(data []byte) {
	if c != nil {
		c.rec.SentPatch(data)
	}
}

// failed ends a call, unless there is no error.
func (c *call) failed(err error) error {
	switch {
	case c == nil || err == nil:
	case errors.Is(err, context.Canceled):
		c.ended(499) // as where a client goes away
	default:
		status := record.StatusOf(err)
		record.Answer(c.rec, record.StatusGVK, &status)
		c.ended(int(status.Code))
	}
	return err
}

// item ends a call that is answered with a stored object, or with an error.
func (c *call) item(code int, item *cache.Item, err error) {
	if c.failed(err) != nil || c == nil {
		return
	}
	if c.wants(audit.RequestResponse) {
		record.Item(c.rec, item, c.q.Kind)
	}
	c.ended(code)
}

// answer ends a call that is answered with something else, or with an error.
func (c *call) answer(code int, gvk schema.GroupVersionKind, obj runtime.Object, err error) {
	if c.failed(err) != nil || c == nil {
		return
	}
	if c.wants(audit.Metadata) {
		record.Answer(c.rec, gvk, obj)
	}
	c.ended(code)
}

// action ends a call that did something, and is answered with what that returned.
func (c *call) action(gvk schema.GroupVersionKind, out runtime.Object, err error) {
	code := http.StatusCreated
	if status, ok := out.(*metav1.Status); ok && c != nil && err == nil {
		gvk = record.StatusGVK
		out, code = record.Coded(status, code)
	}
	c.answer(code, gvk, out, err)
}

// list ends a call that is answered with a list, or with an error.
func (c *call) list(list *verbs.List, err error) {
	if c.failed(err) != nil || c == nil {
		return
	}
	if c.wants(audit.RequestResponse) {
		record.List(c.rec, list, c.q.Kind)
	}
	c.ended(http.StatusOK)
}

func (c *call) ended(code int) {
	c.rec.Header(code)
	c.rec.End()
}

// panics is deferred: what brings the process down is written down first.
func (c *call) panics() {
	if c == nil {
		return
	}
	if p := recover(); p != nil {
		c.rec.Panic(p)
		panic(p)
	}
}
